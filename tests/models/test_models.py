"""Building, saving and loading networks."""

import inspect
import itertools
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import specs

import keras_resnet
from keras_resnet import (
    InputError,
    ResNetSpec,
    build,
    count_params,
    get_spec,
    load_model,
    models,
    stage_outputs,
)
from keras_resnet.specs import TABLE, iter_layers

BUILT_ROWS = [name for name in TABLE if name != "resnet1202_cifar"]  # that one is a slow test of its own


@pytest.fixture(autouse=True)
def _clear():
    yield
    keras.utils.clear_session()


def _check_against_spec(model, spec, input_shape, classes):
    """The built model has the layers with weights that counting foresaw, with their shapes, and no others."""
    foreseen = list(iter_layers(spec, input_shape, classes))
    assert [layer.name for layer in model.layers if layer.weights] != []
    assert {layer.name for layer in model.layers if layer.weights} == {cost.name for cost in foreseen}
    for cost in foreseen:
        layer = model.get_layer(cost.name)
        assert sum(int(np.prod(w.shape)) for w in layer.trainable_weights) == cost.parameters, cost.name
        assert sum(int(np.prod(w.shape)) for w in layer.non_trainable_weights) == cost.statistics, cost.name
        assert tuple(layer.output.shape[1:]) == cost.output_shape, cost.name
    assert model.count_params() == count_params(spec, input_shape, classes)


@pytest.mark.parametrize("name", BUILT_ROWS)
def test_every_row_builds_as_counted(name):
    row = TABLE[name]
    model = build(name, row.input_shape, row.classes)
    _check_against_spec(model, row.spec, row.input_shape, row.classes)
    assert model.name == name
    assert model.input_shape == (None, *row.input_shape)
    assert model.output_shape == (None, row.classes)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(specs(), st.integers(1, 40), st.integers(1, 40), st.integers(1, 4), st.integers(1, 7))
def test_any_spec_builds_as_counted(spec, height, width, channels, classes):
    if spec.stem == "none" and spec.shortcut == "A":
        channels = min(channels, spec.filters[0] * spec.expansion)
    shape = (height, width, channels)[2 - spec.rank :]
    model = build(spec, shape, classes)
    _check_against_spec(model, spec, shape, classes)
    probabilities = model(np.ones((2, *shape), np.float32))
    np.testing.assert_allclose(np.sum(probabilities, -1), 1, atol=1e-5)
    assert list(stage_outputs(model))[-len(spec.depths) :] == [f"stage{s + 1}" for s in range(len(spec.depths))]
    assert ResNetSpec.from_dict(spec.to_dict()) == spec
    keras.utils.clear_session()


def test_layer_names_are_an_interface():
    names = [layer.name for layer in build("resnet50").layers]
    assert names[:7] == ["images", "stem_pad", "stem_conv", "stem_bn", "stem_relu", "stem_pool_pad", "stem_pool"]
    block = [n.removeprefix("stage2_block1_") for n in names if n.startswith("stage2_block1_")]
    assert sorted(block) == sorted(
        [
            "conv1",
            "bn1",
            "relu1",
            "pad2",
            "conv2",
            "bn2",
            "relu2",
            "conv3",
            "bn3",
            "shortcut_conv",
            "shortcut_bn",
            "add",
            "out",
        ]
    )
    assert names[-3:] == ["head_pool", "head_logits", "head_probabilities"]
    names = [layer.name for layer in build("resnet20_cifar", classifier_activation=None).layers]
    block = [n.removeprefix("stage2_block1_") for n in names if n.startswith("stage2_block1_")]
    assert sorted(block) == sorted(
        ["pad1", "conv1", "bn1", "relu1", "conv2", "bn2", "shortcut_pool", "shortcut_pad", "add", "out"]
    )
    assert names[-1] == "head_logits"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            "resnetv2_50",
            "bn1 relu1 conv1 bn2 relu2 pad2 conv2 bn3 relu3 conv3 shortcut_conv add",
        ),
        ("resnext50_32x4d", "conv1 bn1 relu1 pad2 conv2 bn2 relu2 conv3 bn3 shortcut_conv shortcut_bn add out"),
        (
            "resnet18_d",
            "pad1 conv1 bn1 relu1 conv2 bn2 shortcut_pool shortcut_conv shortcut_bn add out",
        ),
        (
            "seresnet18",
            "pad1 conv1 bn1 relu1 conv2 bn2 se_pool se_reduce se_expand se_scale shortcut_conv shortcut_bn add out",
        ),
        ("plain18", "pad1 conv1 bn1 relu1 conv2 bn2 out"),
        (
            "resnet18_multiscale_1d",
            "pad1_k3 conv1_k3 pad1_k5 conv1_k5 pad1_k7 conv1_k7 join1 bn1 relu1 conv2_k3 conv2_k5 conv2_k7 join2 bn2 "
            "shortcut_conv shortcut_bn add out",
        ),
        (
            replace(get_spec("resnet18"), block_dropout=0.1, stochastic_depth=0.1),
            "pad1 conv1 bn1 relu1 dropout conv2 bn2 drop shortcut_conv shortcut_bn add out",
        ),
    ],
    ids=str,
)
def test_layer_names_of_each_form(spec, expected):
    names = [layer.name for layer in build(spec).layers]
    prefix = "stage2_block1_"
    assert sorted(n.removeprefix(prefix) for n in names if n.startswith(prefix)) == sorted(expected.split())


def test_layer_names_of_stems_and_heads():
    def ends(name):
        names = [layer.name for layer in build(name).layers]
        return " ".join(n for n in names if n.startswith("stem")), " ".join(n for n in names if n.startswith("head"))

    assert ends("resnetv2_18") == (
        "stem_pad stem_conv stem_pool stem_pool_stride",
        "head_bn head_relu head_pool head_logits head_probabilities",
    )
    assert ends("resnet50v2_keras")[0] == "stem_pad stem_conv stem_pool_pad stem_pool"
    assert ends("resnet18_d")[0] == (
        "stem_pad1 stem_conv1 stem_bn1 stem_relu1 stem_conv2 stem_bn2 stem_relu2 stem_conv3 stem_bn3 stem_relu3 "
        "stem_pool_pad stem_pool"
    )
    assert ends("wrn16_4_cifar")[0] == "stem_conv"
    assert "head_dropout" in ends(replace(get_spec("resnet18"), dropout=0.5))[1]


@pytest.mark.parametrize("name", ["resnet20_cifar", "seresnet18", "resnet18_multiscale_1d", "resnetv2_18"])
def test_names_do_not_depend_on_what_was_built_before(name):
    spec = replace(get_spec(name), dropout=0.1, block_dropout=0.1, stochastic_depth=0.1)
    first = [layer.name for layer in build(spec).layers]
    assert [layer.name for layer in build(spec).layers] == first
    assert all(name == "images" or name.startswith(("stem_", "stage", "head_")) for name in first)


def test_every_layer_is_channels_last_whatever_the_global_setting():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        for name in ("resnet50", "resnet20_cifar", "resnet18_d2l", "resnext50_32x4d", "resnetv2_18", "resnet18_1d"):
            model = build(name, TABLE[name].input_shape)
            for layer in model.layers:
                # The one exception pads the last axis, the channels, by reading it as a width.
                expected = "channels_first" if layer.name.endswith("_shortcut_pad") else "channels_last"
                assert getattr(layer, "data_format", expected) == expected, layer.name
            assert model.get_layer("head_pool").output.shape[-1] == model.get_layer("head_logits").input.shape[-1]
    finally:
        keras.config.set_image_data_format(before)


def test_dynamic_sizes_share_weights():
    fixed = build("resnet8_cifar", (20, 12, 3), 4)
    free = build("resnet8_cifar", (None, None, 3), 4)
    free.set_weights(fixed.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 20, 12, 3)).astype("float32")
    np.testing.assert_allclose(fixed(x), free(x), atol=1e-6)


def test_include_top_pooling_and_input_tensor():
    body = build("resnet18", (64, 96, 3), include_top=False)
    assert body.output_shape == (None, 2, 3, 512)
    assert body.output.name.split("/")[-1] == body.get_layer("stage4_block2_out").output.name.split("/")[-1]
    for kind in ("avg", "max"):
        assert build("resnet18", (64, 96, 3), include_top=False, pooling=kind).output_shape == (None, 512)
    images = keras.Input((64, 96, 3))
    scaled = keras.layers.Rescaling(1 / 255)(images)
    model = build("resnet18", input_tensor=scaled, classes=7)
    assert model.inputs[0] is images
    assert model.output_shape == (None, 7)
    assert any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers)


MIXED = ResNetSpec("mixed", "bottleneck", (1, 1), (8, 16), (1, 2), "cifar", 8, groups=4, width_per_group=32)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("spec", [MIXED, get_spec("resnet8_cifar"), get_spec("resnetv2_8_cifar")], ids=lambda s: s.name)
def test_a_network_trains_in_mixed_precision_with_a_float32_head(policy, spec):
    model = build(spec, (8, 8, 1), 3, dtype=policy)
    assert keras.config.dtype_policy().name == "float32"  # the global one stays
    for layer in model.layers:
        if layer.name in ("head_pool", "head_logits", "head_probabilities"):
            assert layer.output.dtype == "float32", layer.name
        if isinstance(layer, keras.layers.BatchNormalization):
            assert {weight.dtype for weight in layer.weights} == {"float32"}, layer.name
    assert model.get_layer("stage1_block1_conv2").compute_dtype == policy.removeprefix("mixed_")
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) is (policy == "mixed_float16")
    before = model.get_layer("stage2_block1_conv2").kernel.numpy()
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("float32")
    loss = model.train_on_batch(x, np.array([0, 1, 2, 0]))
    assert np.isfinite(loss)
    assert not np.array_equal(before, model.get_layer("stage2_block1_conv2").kernel.numpy())


def test_an_unknown_dtype_is_refused():
    with pytest.raises(InputError, match=r"dtype must be None or a Keras dtype policy such as .* Received: 'half'"):
        build("resnet8_cifar", dtype="half")


def test_stage_outputs_are_what_the_stages_put_out():
    model = build("resnet50", (65, 97, 1), include_top=False)
    outputs = stage_outputs(model)
    assert {name: tuple(x.shape[1:]) for name, x in outputs.items()} == {
        "stem": (17, 25, 64),
        "stage1": (17, 25, 256),
        "stage2": (9, 13, 512),
        "stage3": (5, 7, 1024),
        "stage4": (3, 4, 2048),
    }
    assert outputs["stage4"] is model.output
    pyramid = keras.Model(model.input, outputs)
    x = np.random.default_rng(0).normal(size=(1, 65, 97, 1)).astype("float32")
    np.testing.assert_array_equal(pyramid(x)["stage4"], model(x))
    raw = stage_outputs(build("resnetv2_18", (32, 32, 3)))
    assert raw["stage4"].name != "head_relu"
    assert list(raw) == ["stem", "stage1", "stage2", "stage3", "stage4"]
    with pytest.raises(InputError, match=r"stage_outputs needs a model of keras_resnet.build.* Received: 'other'"):
        stage_outputs(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="other"))


@pytest.mark.parametrize("name", TABLE)
def test_named_builders_take_the_arguments_of_keras_applications(name):
    theirs = inspect.signature(keras.applications.ResNet50).parameters
    ours = inspect.signature(getattr(keras_resnet, name)).parameters
    assert list(ours) == list(theirs)
    for argument, parameter in ours.items():
        expected = {"weights": None, "name": name}.get(argument, theirs[argument].default)
        assert parameter.default == expected, argument


def test_named_builders_build_their_row(tmp_path):
    model = keras_resnet.resnet20_cifar(classes=10)
    assert (model.name, model.input_shape, model.count_params()) == ("resnet20_cifar", (None, 32, 32, 3), 271_098)
    path = tmp_path / "mine.weights.h5"
    model.save_weights(path)
    again = keras_resnet.resnet20_cifar(weights=path, classes=10)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": "imagenet"}, r"resnet18 ships no weights.*keras.applications"),
        ({"weights": "nowhere.weights.h5"}, r"path of an existing file. Received: 'nowhere.weights.h5'"),
        ({"input_shape": (0, 32, 3)}, r"at least one pixel is left .* Received: \(0, 32, 3\)"),
        ({"classes": 0}, r"classes must be an integer of at least 1. Received: 0"),
        ({"pooling": "avg"}, r"pooling is for include_top=False"),
        ({"include_top": False, "pooling": "mean"}, r"pooling must be 'avg', 'max' or None. Received: 'mean'"),
        ({"classifier_activation": "softmaks"}, r"Keras activation such as 'softmax'.* Received: 'softmaks'"),
        ({"input_tensor": np.zeros((1, 8, 8, 3))}, r"input_tensor must be a Keras tensor"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        keras_resnet.resnet18(**arguments)


def test_input_shape_must_be_that_of_input_tensor():
    with pytest.raises(InputError, match=r"that of input_tensor, \(8, 8, 3\), or left out. Received: \(9, 9, 3\)"):
        build("resnet8_cifar", (9, 9, 3), input_tensor=keras.Input((8, 8, 3)))


def test_unknown_network_names_the_nearest():
    with pytest.raises(InputError, match=r"Did you mean 'resnet18'"):
        build("resnet_18")


def test_two_networks_on_one_tensor_are_refused():
    first = build("resnet8_cifar", (8, 8, 3), include_top=False)
    with pytest.raises(InputError, match=r"layer names must be unique in one model.* as a layer instead"):
        build("resnet8_cifar", input_tensor=first.output)


def test_without_a_top_and_a_shape_any_size_will_do():
    model = keras_resnet.resnet50_keras(include_top=False)
    assert model.input_shape == keras.applications.ResNet50(include_top=False, weights=None).input_shape
    assert build("resnet18_1d", include_top=False).input_shape == (None, None, 1)
    assert model(np.ones((1, 40, 50, 3), "float32")).shape == (1, 2, 2, 2048)


def test_numpy_integers_are_integers():
    spec = ResNetSpec("np", "basic", np.array([1, 1]), [np.int64(4), 8], (1, 2), "cifar", np.int64(4))
    assert (spec.depths, spec.filters, type(spec.stem_filters)) == ((1, 1), (4, 8), int)
    assert build(spec, (8, 8, 1), np.int64(3)).output_shape == (None, 3)


def test_weights_of_another_network_are_refused(tmp_path):
    build("resnet14_cifar", (8, 8, 1), 3).save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(InputError, match=r"other.weights.h5 does not hold weights of resnet20_cifar: "):
        keras_resnet.resnet20_cifar(weights=tmp_path / "other.weights.h5", input_shape=(8, 8, 1), classes=3)


def test_load_model_refuses_what_is_no_model(tmp_path):
    with pytest.raises(InputError, match=r"must be a .keras file. Received: 'nothing.keras', which is not a file"):
        load_model("nothing.keras")
    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"PK not really")
    with pytest.raises(InputError, match=r"broken.keras could not be read as a Keras model: "):
        load_model(broken)


def test_the_recursion_limit_is_raised_and_put_back(monkeypatch):
    before = sys.getrecursionlimit()
    with models.deep_graph(before + 1000):
        assert sys.getrecursionlimit() == before + 1000
    assert sys.getrecursionlimit() == before
    with models.deep_graph(10):
        assert sys.getrecursionlimit() == before
    spec = ResNetSpec("deep", "basic", (200,), (2,), (1,), stem="cifar", stem_filters=2)
    monkeypatch.setattr(models, "_FRAMES_PER_BLOCK", 0)
    with pytest.raises(RecursionError):  # Keras alone fails here
        build(spec, (4, 4, 1), 2)
    monkeypatch.undo()
    assert build(spec, (4, 4, 1), 2).count_params() == count_params(spec, (4, 4, 1), 2)


@pytest.mark.slow
def test_resnet1202_builds_saves_and_loads(tmp_path):
    model = keras_resnet.resnet1202_cifar(classes=10)
    _check_against_spec(model, get_spec("resnet1202_cifar"), (32, 32, 3), 10)
    x = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("float32")
    expected = np.asarray(model(x))
    model.save(tmp_path / "deep.keras")
    loaded = load_model(tmp_path / "deep.keras")
    np.testing.assert_allclose(loaded(x), expected, atol=1e-5)
    assert sys.getrecursionlimit() <= 3000


# S1's summary of its ResNet-18 for input (224, 224, 1), group by group.
S1_SUMMARY = {"stem_conv": 3_200, "stem_bn": 256, "stages": (148_736, 526_976, 2_102_528, 8_399_360), "head": 5_130}


def test_resnet18_d2l_is_the_tutorials_network():
    model = keras_resnet.resnet18_d2l(input_shape=(224, 224, 1), classes=10)
    assert model.get_layer("stem_conv").count_params() == S1_SUMMARY["stem_conv"]
    assert model.get_layer("stem_bn").count_params() == S1_SUMMARY["stem_bn"]
    for stage, expected in enumerate(S1_SUMMARY["stages"], 1):
        layers = [layer for layer in model.layers if layer.name.startswith(f"stage{stage}_")]
        assert sum(layer.count_params() for layer in layers) == expected
    assert model.get_layer("head_logits").count_params() == S1_SUMMARY["head"]
    assert (model.count_params(), sum(int(np.prod(w.shape)) for w in model.trainable_weights)) == (
        11_186_186,
        11_178_378,
    )
    shapes = [model.get_layer(f"stage{s}_block2_out").output.shape[1:] for s in (1, 2, 3, 4)]
    assert shapes == [(56, 56, 64), (28, 28, 128), (14, 14, 256), (7, 7, 512)]
    bn = model.get_layer("stem_bn")
    assert (bn.epsilon, bn.momentum) == (1e-3, 0.99)


def test_resnet18_d2l_has_the_shapes_of_the_chapter():
    """S2: (1, 96, 96, 1) through the stages: 24x24x64, 24x24x64, 12x12x128, 6x6x256, 3x3x512, then 10."""
    model = keras_resnet.resnet18_d2l(input_shape=(96, 96, 1), classes=10)
    names = ["stem_pool", *(f"stage{s}_block2_out" for s in (1, 2, 3, 4))]
    assert [model.get_layer(name).output.shape[1:] for name in names] == [
        (24, 24, 64), (24, 24, 64), (12, 12, 128), (6, 6, 256), (3, 3, 512)
    ]  # fmt: skip
    assert model.output_shape == (None, 10)


def test_table_order_has_no_duplicates():
    assert all(a != b for a, b in itertools.combinations([row.spec for row in TABLE.values()], 2))
