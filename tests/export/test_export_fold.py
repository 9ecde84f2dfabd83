"""Folding BN into convolutions, and other rewriting for inference."""

import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers
from networks import SMALL, draw_input, draw_weights, make_bn, make_conv, make_network, measure, names_of
from strategies import specs

from keras_resnet import InputError, build, get_spec
from keras_resnet.export import fold_batchnorm
from keras_resnet.export.fold import rewrite
from keras_resnet.layers import GroupedConv2D

TOLERANCE = 1e-5  # of the scale; 1e-4 is promised, a few 1e-7 is what float32 gives
BOTTLENECK = replace(SMALL, block="bottleneck")
PREACTIVATION = get_spec("resnetv2_8_cifar").dialect
FORMS = {
    "basic": SMALL,
    "bottleneck": BOTTLENECK,
    "resnext": replace(get_spec("resnext29_8x64d_cifar"), groups=2, width_per_group=4, depths=(1, 1, 1)),
    "multi-scale": replace(SMALL, kernel_sizes=(3, 5)),
    "deep stem": replace(SMALL, stem="deep", shortcut="D"),
    "se": replace(BOTTLENECK, se_ratio=0.25),
    "dropout": replace(SMALL, dropout=0.5, block_dropout=0.3, stochastic_depth=0.2),
    "1-D": replace(SMALL, rank=1, stem="imagenet"),
    "1-D resnext": replace(BOTTLENECK, rank=1, groups=2),
    "biased": replace(SMALL, dialect=get_spec("resnet50_keras").dialect),
}


def _fold(model):
    """Folds a model with random BN; proves that it computes the same and that the model is as it was."""
    draw_weights(model)
    x = draw_input(model)
    weights = model.get_weights()
    config, trainable = model.get_config(), [w.path for w in model.trainable_weights]
    folded = fold_batchnorm(model)
    assert measure(model, folded, x) < TOLERANCE
    assert model.get_config() == config
    assert [w.path for w in model.trainable_weights] == trainable
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))
    assert not {id(w) for w in model.weights} & {id(w) for w in folded.weights}
    assert [tuple(y.shape) for y in folded.outputs] == [tuple(y.shape) for y in model.outputs]
    assert names_of(folded, layers.InputLayer) == names_of(model, layers.InputLayer)
    assert folded.name == model.name
    return folded


def _input_shape(spec):
    return (17, 12, 3)[2 - spec.rank :]


@pytest.mark.parametrize("form", FORMS)
def test_no_bn_is_left_behind_convolutions(form):
    model = build(FORMS[form], _input_shape(FORMS[form]), 5)
    assert names_of(model)
    folded = _fold(model)
    assert not names_of(folded)
    assert not names_of(folded, layers.Dropout)
    gone = set(names_of(model)) | set(names_of(model, layers.Dropout))
    assert {layer.name for layer in folded.layers} == {layer.name for layer in model.layers} - gone


def test_the_difference_is_that_of_float32():
    """Not merely within what is promised: the factors are computed in float64."""
    model = draw_weights(build("resnet20_cifar", (16, 16, 3), 5))
    assert measure(model, fold_batchnorm(model), draw_input(model)) < 3e-6


@pytest.mark.parametrize(
    ("spec", "left"),
    [
        # The stem's convolution feeds the first block's BN and its shortcut; behind an addition BN is never folded.
        (
            replace(SMALL, dialect=PREACTIVATION),
            ["stage1_block1_bn1", "stage1_block2_bn1", "stage2_block1_bn1", "head_bn"],
        ),
        (
            replace(BOTTLENECK, dialect=PREACTIVATION, depths=(1, 1)),  # here the stem feeds the first block's BN alone
            ["stage2_block1_bn1", "head_bn"],
        ),
        (get_spec("resnetv2_8_cifar"), [f"stage{s}_block1_bn1" for s in (1, 2, 3)] + ["head_bn"]),
    ],
    ids=["basic", "bottleneck", "resnetv2_8_cifar"],
)
def test_preactivation_keeps_the_bn_that_no_convolution_is_alone_with(spec, left):
    model = build(spec, (16, 16, 3), 5)
    assert sorted(names_of(_fold(model))) == sorted(left)


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(specs(), st.integers(1, 20), st.integers(1, 20), st.integers(1, 4), st.integers(2, 5))
def test_any_network_computes_the_same(spec, height, width, channels, classes):
    if spec.stem == "none" and spec.shortcut == "A":
        channels = min(channels, spec.filters[0] * spec.expansion)
    model = build(spec, (height, width, channels)[2 - spec.rank :], classes, classifier_activation=None)
    folded = _fold(model)
    assert not names_of(folded, layers.Dropout)
    if not spec.dialect.preactivation:
        assert not names_of(folded)
    keras.utils.clear_session()


def test_a_folded_model_is_not_compiled_and_the_original_still_trains():
    model = draw_weights(build(SMALL, (8, 8, 3), 3, classifier_activation=None))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    folded = fold_batchnorm(model)
    assert not folded.compiled
    x = draw_input(model)
    bn = model.get_layer("stem_bn")
    before, statistics, output = model.get_weights()[0], np.copy(bn.moving_mean), np.asarray(folded(x))
    assert np.isfinite(model.train_on_batch(x, np.arange(3)))
    assert not np.array_equal(before, model.get_weights()[0])
    assert not np.array_equal(statistics, bn.moving_mean)
    np.testing.assert_array_equal(folded(x), output)  # it shares no weight with what was trained


def test_folding_twice_changes_nothing():
    once = _fold(build(SMALL, (8, 8, 3), 3))
    twice = fold_batchnorm(once)
    assert [layer.name for layer in twice.layers] == [layer.name for layer in once.layers]
    assert all(np.array_equal(a, b) for a, b in zip(once.get_weights(), twice.get_weights(), strict=True))


# Models by hand


def _shared(x, *, same_bn=False, same_conv=False):
    convs = [layers.Conv2D(3, 3, padding="same")] * 2 if same_conv else [layers.Conv2D(3, 3) for _ in range(2)]
    norms = [layers.BatchNormalization()] * 2 if same_bn else [layers.BatchNormalization() for _ in range(2)]
    return layers.add([bn(conv(y)) for bn, conv, y in zip(norms, convs, (x, layers.ReLU()(x)), strict=True)])


def _fed_twice(x):
    y = make_conv(x)
    return layers.add([make_bn(y), y])


def _conv_is_an_output(x):
    y = make_conv(x)
    return [y, make_bn(y)]


def _joined_with_itself(x):
    y = make_conv(x)
    return make_bn(layers.Concatenate()([y, y]))


FOLDED = {
    "with a bias": lambda x: make_bn(make_conv(x)),
    "without a bias": lambda x: make_bn(make_conv(x, use_bias=False)),
    "no scale": lambda x: make_bn(make_conv(x), scale=False),
    "no offset": lambda x: make_bn(make_conv(x, use_bias=False), center=False),
    "neither": lambda x: make_bn(make_conv(x), scale=False, center=False),
    "epsilon": lambda x: make_bn(make_conv(x), epsilon=0.3),
    "the axis by its number": lambda x: make_bn(make_conv(x), axis=3),
    "dense": lambda x: make_bn(layers.Dense(4)(layers.Flatten()(x))),
    "dense on each pixel": lambda x: make_bn(layers.Dense(4)(x)),
    "Keras' groups": lambda x: make_bn(make_conv(layers.Concatenate()([x, x]), groups=2)),
    "joins of joins": lambda x: make_bn(
        layers.Concatenate(axis=3)([make_conv(x, 2), layers.Concatenate()([make_conv(x, 3), make_conv(x, 4)])])
    ),
    "before an operation": lambda x: keras.ops.tanh(make_bn(make_conv(x))) * 2,
    "two outputs of one BN": lambda x: (lambda y: [y, layers.ReLU()(y)])(make_bn(make_conv(x))),
    "outputs by name": lambda x: (lambda y: {"map": y, "mean": layers.GlobalAveragePooling2D()(y)})(
        make_bn(make_conv(x))
    ),
    "dropout last": lambda x: layers.Dropout(0.5)(make_bn(make_conv(x))),
    "noise first": lambda x: make_bn(make_conv(layers.GaussianNoise(0.5)(x))),
}
KEPT = {
    "an activation between": lambda x: make_bn(make_conv(x, activation="relu")),
    "an activation layer between": lambda x: make_bn(layers.ReLU()(make_conv(x))),
    "an operation between": lambda x: make_bn(make_conv(x) * 2),
    "fed twice": _fed_twice,
    "the convolution is an output": _conv_is_an_output,
    "another axis": lambda x: make_bn(make_conv(x, 3), axis=1),
    "another axis of the same size": lambda x: make_bn(make_conv(x, 8), axis=1),
    "joined with itself": _joined_with_itself,
    "joined over the width": lambda x: make_bn(layers.Concatenate(axis=2)([make_conv(x), make_conv(x)])),
    "joined with what is no convolution": lambda x: make_bn(layers.Concatenate()([make_conv(x), x])),
    "depthwise": lambda x: make_bn(layers.DepthwiseConv2D(3)(x)),
    "transposed": lambda x: make_bn(layers.Conv2DTranspose(4, 3)(x)),
    "a shared convolution": lambda x: _shared(x, same_conv=True),
    "a shared BN": lambda x: _shared(x, same_bn=True),
    "both shared": lambda x: _shared(x, same_bn=True, same_conv=True),
}


@pytest.mark.parametrize("body", FOLDED)
def test_is_folded(body):
    folded = _fold(make_network(FOLDED[body]))
    assert not names_of(folded)
    assert not names_of(folded, (layers.Dropout, layers.GaussianNoise))


@pytest.mark.parametrize("body", KEPT)
def test_is_kept(body):
    model = make_network(KEPT[body])
    assert names_of(_fold(model)) == names_of(model) != []


def test_of_two_bn_the_first_is_folded():
    model = make_network(lambda x: make_bn(make_bn(make_conv(x), name="first"), name="second"))
    assert names_of(_fold(model)) == ["second"]


def test_convolutions_of_all_dimensions():
    for kind, shape in ((layers.Conv1D, (9, 2)), (layers.Conv3D, (5, 5, 5, 2))):
        assert not names_of(_fold(make_network(lambda x, kind=kind: make_bn(kind(4, 3, strides=2)(x)), shape)))


def test_channels_first_is_folded_along_its_own_axis():
    """Computed where channels come first, which TensorFlow cannot on a CPU: BN's factors are compared alone."""
    model = draw_weights(
        make_network(lambda x: make_bn(make_conv(x, 4, data_format="channels_first", use_bias=False), axis=1))
    )
    folded = fold_batchnorm(model)
    (conv,), (bn,) = ([x for x in model.layers if isinstance(x, k)] for k in (layers.Conv2D, layers.BatchNormalization))
    scale = np.asarray(bn.gamma) / np.sqrt(np.asarray(bn.moving_variance) + bn.epsilon)
    kernel, bias = folded.get_layer(conv.name).get_weights()
    np.testing.assert_allclose(kernel, np.asarray(conv.kernel) * scale, rtol=1e-5)
    np.testing.assert_allclose(bias, np.asarray(bn.beta) - np.asarray(bn.moving_mean) * scale, rtol=1e-5, atol=1e-6)
    assert not names_of(folded)
    across = make_network(lambda x: make_bn(make_conv(x, 8, data_format="channels_first"), axis=-1), (3, 8, 8))
    assert names_of(fold_batchnorm(across)) == names_of(across) != []


# Whole models in models


def _make_sequential():
    return keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(), layers.Dropout(0.5)]
    )


def test_a_sequential_model():
    folded = _fold(_make_sequential())
    assert not names_of(folded)
    assert not names_of(folded, layers.Dropout)


def test_a_sequential_model_that_was_built_later():
    model = keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()])
    model.build((None, 8, 8, 3))
    assert not names_of(_fold(model))


def test_a_nested_sequential_model():
    folded = _fold(make_network(lambda x: layers.Dense(2)(layers.Flatten()(_make_sequential()(x)))))
    assert not names_of(folded)


def _make_base():
    return build(SMALL, (8, 8, 3), include_top=False, pooling="avg")


def test_a_nested_model():
    """As transfer learning builds it: a base without its top, called as a layer, and a new Dense layer."""
    model = make_network(lambda x: layers.Dense(2)(_make_base()(x, training=False)))
    folded = _fold(model)
    assert not names_of(folded)
    assert [layer.name for layer in folded.layers[1:]] == [layer.name for layer in model.layers[1:]]


def test_a_nested_model_that_is_called_twice():
    def body(a, b):
        base = _make_base()
        return layers.Dense(2)(layers.subtract([base(a), base(b)]))

    assert not names_of(_fold(make_network(body, (8, 8, 3), (8, 8, 3))))


def test_what_lies_outside_of_a_nested_model_is_not_folded_into_it():
    def body(x):
        inner = make_network(lambda y: layers.ReLU()(make_bn(y)), (8, 8, 4))
        return inner(make_conv(x))

    model = make_network(body)
    assert names_of(_fold(model)) == names_of(model) != []


def test_layers_that_another_model_uses_too():
    """`keras.Model(model.input, layer.output)` shares layers: what the other model does with them changes nothing."""
    model = draw_weights(make_network(lambda x: layers.GlobalAveragePooling2D()(make_bn(make_conv(x)))))
    inside = keras.Model(model.input, model.layers[1].output)
    again = keras.Input((8, 8, 3))
    keras.Model(again, model.layers[2](model.layers[1](again)))
    for each in (model, inside):
        assert measure(each, fold_batchnorm(each), draw_input(each)) < TOLERANCE


def test_operations_of_the_original_stay_its_own():
    """An operation of keras.ops is an object with nodes, as a layer is: the new model must not add to the old one's."""
    model = make_network(lambda x: keras.ops.tanh(make_bn(make_conv(x))))
    (operation,) = [x for x in model.operations if not isinstance(x, keras.Layer)]
    fold_batchnorm(model)
    assert len(operation._inbound_nodes) == 1


def test_a_model_with_a_training_step_of_its_own():
    class Mine(keras.Model):
        def train_step(self, data):
            return {}

    images = keras.Input((8, 8, 3))
    assert not names_of(_fold(Mine(images, make_bn(make_conv(images)))))


# Files


LOAD = """
import sys
sys.modules["keras_resnet"] = None  # importing it would fail
import keras, numpy as np
folder = sys.argv[1]
model = keras.saving.load_model(folder + "/folded.keras")
np.testing.assert_allclose(model(np.load(folder + "/x.npy")), np.load(folder + "/y.npy"), rtol=1e-4, atol=1e-5)
print(*[type(layer).__name__ for layer in model.layers])
"""


def test_a_folded_model_is_loaded_without_this_package(tmp_path):
    model = build(replace(SMALL, se_ratio=0.25, dropout=0.5, kernel_sizes=(3, 5)), (8, 8, 3), 3)
    folded = _fold(model)
    x = draw_input(model)
    folded.save(tmp_path / "folded.keras")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", model(x, training=False))
    done = subprocess.run([sys.executable, "-c", LOAD, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Conv2D" in done.stdout
    assert "BatchNormalization" not in done.stdout


def test_a_folded_grouped_model_is_loaded_with_it(tmp_path):
    model = build(FORMS["resnext"], (8, 8, 3), 3)
    folded = _fold(model)
    folded.save(tmp_path / "folded.keras")
    assert measure(model, keras.saving.load_model(tmp_path / "folded.keras"), draw_input(model)) < TOLERANCE


# What is no model


class Subclass(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


@pytest.mark.parametrize(
    "make",
    [
        Subclass,
        lambda: layers.Dense(2),
        lambda: None,
        lambda: "resnet18",
        lambda: keras.Sequential([layers.Dense(2)]),  # of unknown input
    ],
)
def test_what_has_no_graph_is_refused(make):
    with pytest.raises(InputError, match=r"A functional Keras model is needed, or a Sequential one .* Received: "):
        fold_batchnorm(make())


class Unnamed(layers.Layer):
    """Without get_config, so that Keras cannot build it again."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return x * self.factor


@pytest.mark.parametrize(
    "make",
    [lambda: Unnamed(3), Subclass, lambda: layers.Lambda(lambda x: x * 2)],
    ids=["layer", "model", "lambda"],
)
def test_layers_that_keras_cannot_build_again_are_refused(make):
    with pytest.raises(InputError, match=r"every layer must be one that Keras can build again"):
        fold_batchnorm(make_network(make()))


def test_an_unnamed_input_keeps_its_name():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs)))
    assert [layer.name for layer in fold_batchnorm(model).layers] == [layer.name for layer in model.layers[:-1]]


@pytest.mark.parametrize("behind", [layers.BatchNormalization, layers.ReLU])
def test_lora_becomes_part_of_the_kernel(behind):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 4))
    x = behind()(layers.Conv2D(8, 3, name="conv")(inputs))
    model = keras.Model(inputs, layers.Dense(3, name="dense")(layers.GlobalAveragePooling2D()(x)))
    rng = np.random.default_rng(0)
    for name in ("conv", "dense"):
        layer = model.get_layer(name)
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(rng.normal(size=layer.lora_kernel_b.shape))
    folded = _fold(model)
    assert not any(layer.lora_enabled for layer in folded.layers if hasattr(layer, "lora_enabled"))
    assert [w.name for w in folded.weights] == ["kernel", "bias"] * 2


def test_bn_behind_a_quantized_layer_stays():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.BatchNormalization()(layers.Dense(8, name="dense")(inputs)))
    draw_weights(model)
    model.quantize("int8")
    x = draw_input(model)
    folded = fold_batchnorm(model)
    assert len(names_of(folded)) == 1
    assert measure(model, folded, x) < TOLERANCE


@pytest.mark.parametrize("kind", [layers.Conv1D, layers.Conv2D, GroupedConv2D])
def test_paired_groups_compute_the_same(kind):
    """Behind BN too; an odd number of groups and wide ones stay."""
    rank = 1 if kind is layers.Conv1D else 2
    x = inputs = keras.Input((9,) * rank + (48,))
    for groups in (24, 3, 8, 4):  # groups of 2, 16, 6 and 12 channels
        x = layers.BatchNormalization()(kind(48, 3, groups=groups, name=f"groups{groups}")(x))
        x = layers.Concatenate()([x[..., 24:], x[..., :24]])
    model = draw_weights(keras.Model(inputs, x))
    paired = rewrite(model, native_groups=True, pair_groups=True)
    assert measure(model, paired, draw_input(model)) < TOLERANCE
    assert [paired.get_layer(f"groups{groups}").groups for groups in (24, 3, 8, 4)] == [12, 3, 4, 4]


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("kind", ["AveragePooling", "MaxPooling"])
@pytest.mark.parametrize("rank", [1, 2])
def test_pools_of_one_pixel_become_slices(kind, rank, padding):
    pool = getattr(layers, f"{kind}{rank}D")
    inputs = keras.Input((*(9, 8)[:rank], 3))
    x = pool(1, strides=3, padding=padding, name="one")(pool(2, strides=1, name="two")(inputs))
    model = keras.Model(inputs, x)
    sliced = rewrite(model, slice_pools=True)
    assert measure(model, sliced, draw_input(model)) == 0
    assert type(sliced.get_layer("two")) is pool
    assert type(sliced.get_layer("one")) is not pool
    assert type(rewrite(model).get_layer("one")) is pool
