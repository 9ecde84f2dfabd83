"""Deepening keeps the function, and the new blocks learn."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import randomise

from keras_resnet import InputError, ResNetSpec, build, deepen, get_dialect, get_spec

X = np.random.default_rng(0).normal(size=(8, 16, 16, 2)).astype("float32")
Y = np.arange(8) % 3


def small(**changes):
    options = {"block": "basic", "depths": (1, 2), "filters": (8, 12), "strides": (1, 2), "stem": "cifar", **changes}
    return ResNetSpec("small", stem_filters=8, **options)


STRIDE_LAST = replace(get_dialect("torchvision"), name="stride last", stride_block="last")
FORMS = {
    "basic": small(),
    "bottleneck": small(block="bottleneck"),
    "grouped": small(block="bottleneck", groups=2, width_per_group=32),
    "shortcut A": small(shortcut="A"),
    "shortcut D": small(shortcut="D", stem="deep"),
    "squeeze-excitation": small(se_ratio=0.25),
    "pre-activation": small(dialect=get_dialect("torchvision_v2")),
    "pre-activation bottleneck": small(block="bottleneck", dialect=get_dialect("torchvision_v2")),
    "keras v1": small(block="bottleneck", dialect=get_dialect("keras_v1")),
    "keras v2": small(block="bottleneck", depths=(2, 2), dialect=get_dialect("keras_v2")),
    "keras v2, single blocks": small(
        block="bottleneck", depths=(1, 1), strides=(1, 1), dialect=get_dialect("keras_v2")
    ),
    "stride last, no stem": small(stem="none", depths=(1, 1), strides=(1, 1), dialect=STRIDE_LAST),
    "d2l": small(dialect=get_dialect("d2l")),
    "multi-scale": small(kernel_sizes=(3, 5), dialect=get_dialect("torchvision_v2")),
    "sequence": small(rank=1),
    "dilated": small(output_stride=1),
}


@pytest.mark.parametrize("form", FORMS)
def test_outputs_stay_and_new_blocks_learn(form):
    spec = FORMS[form]
    keras.utils.set_random_seed(0)  # the new blocks' weights
    x = X[:, :, 0] if spec.rank == 1 else X
    model = build(spec, x.shape[1:], 3, classifier_activation=None)
    randomise(model)
    depths = tuple(depth + 2 - stage for stage, depth in enumerate(spec.depths))
    deeper, deeper_spec = deepen(model, spec, depths)
    assert deeper_spec == replace(spec, name=deeper_spec.name, depths=depths)
    assert deeper.count_params() > model.count_params()
    before = np.asarray(model(x))
    np.testing.assert_allclose(deeper(x), before, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(deeper(x, training=True), model(x, training=True), rtol=1e-5, atol=1e-5)
    assert np.ptp(before) > 0.1

    frozen = [weight.numpy() for weight in model.weights]
    deeper.compile(
        keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
    )
    deeper.train_on_batch(x, Y)  # moves the zeros; from the second step on all that stood behind them has a gradient
    old = {layer.name for layer in model.layers}
    new = [layer for layer in deeper.layers if layer.name not in old and layer.trainable_weights]
    assert new
    with tf.GradientTape() as tape:
        loss = deeper.loss(Y, deeper(x, training=True))
    gradients = tape.gradient(loss, [layer.trainable_weights[0].value for layer in new])  # kernels and scales
    for layer, gradient in zip(new, gradients, strict=True):
        assert np.any(gradient), layer.name  # however small: the zeros have moved by one step
    for weight, before in zip(model.weights, frozen, strict=True):
        np.testing.assert_array_equal(weight.numpy(), before)  # the model itself is left as it was


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"classifier_activation": None},
        {"classifier_activation": "sigmoid"},
        {"include_top": False},
        {"include_top": False, "pooling": "avg"},
        {"include_top": False, "pooling": "max"},
    ],
    ids=str,
)
def test_the_head_stays_as_it_is(head):
    model = build("resnet8_cifar", (16, 16, 2), **head)
    deeper, spec = deepen(model, get_spec("resnet8_cifar"), (3, 3, 3))
    assert spec == get_spec("resnet20_cifar")
    assert deeper.name == "resnet20_cifar"
    np.testing.assert_allclose(deeper(X), model(X), rtol=1e-6, atol=1e-6)


def test_growing_twice_and_not_at_all():
    model = build("resnet8_cifar", (16, 16, 2), 3)
    randomise(model)
    once, spec = deepen(model, get_spec("resnet8_cifar"), (2, 1, 1))
    assert spec.name == "resnet8_cifar_2_1_1"
    twice, spec = deepen(once, spec, (2, 2, 2))
    assert spec.name == "resnet14_cifar"
    np.testing.assert_allclose(twice(X), model(X), rtol=1e-6, atol=1e-6)
    same, spec = deepen(model, get_spec("resnet8_cifar"), (1, 1, 1))
    assert spec.name == "resnet8_cifar"
    np.testing.assert_array_equal(same(X), model(X))


@pytest.mark.parametrize(
    ("spec", "depths", "message"),
    [
        (small(), (1, 1), r"must not be below \(1, 2\). Received: \(1, 1\)"),
        (small(), (2, 2, 2), r"one entry per stage.* Received: depths=\(2, 2, 2\)"),
        (small(), (2, 2.5), r"depths must be integers of at least 1"),
        (small(), 3, r"depths must be a tuple with one integer per stage. Received: 3"),
        (small(shortcut="C"), (2, 2), r"must be able to be an identity.* Received: block='basic', shortcut='C'"),
        (small(shortcut="none"), (2, 2), r"Received: block='basic', shortcut='none'"),
        (
            small(block="bottleneck", depths=(2, 1), dialect=get_dialect("keras_v2")),
            (2, 2),
            r"stage 2 is one block with a stride.*'keras_v2'",
        ),
    ],
)
def test_what_cannot_grow(spec, depths, message):
    model = build(spec, (16, 16, 2), 3)
    with pytest.raises(InputError, match=message):
        deepen(model, spec, depths)


def test_the_model_must_be_of_the_spec():
    model = build("resnet8_cifar", (16, 16, 2), 3)
    with pytest.raises(InputError, match=r"build\('resnet14_cifar'\) made.* differs in the layers stage1_block2_"):
        deepen(model, get_spec("resnet14_cifar"), (3, 3, 3))
    for changes in ({"filters": (16, 32, 128)}, {"strides": (1, 2, 3)}, {"block_dropout": 0.1}):
        other = replace(get_spec("resnet8_cifar"), **changes)
        with pytest.raises(InputError, match=r"which differs in the layers "):
            deepen(model, other, (3, 3, 3))
    coarse = replace(get_spec("resnet8_cifar"), dialect=replace(get_dialect("torchvision"), bn_epsilon=1e-3))
    with pytest.raises(InputError, match=r"which differs in the layers stem_bn, "):
        deepen(model, coarse, (3, 3, 3))
    with pytest.raises(InputError, match=r"deepen needs a model of keras_resnet.build. Received: 'other'"):
        deepen(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="other"), "resnet8_cifar", (3, 3, 3))
    with pytest.raises(InputError, match=r"deepen needs a Keras model. Received: 'resnet8_cifar'"):
        deepen("resnet8_cifar", "resnet8_cifar", (3, 3, 3))


def test_a_name_will_do_and_formulas_name_the_result():
    deeper, spec = deepen(build("resnet8_cifar", (16, 16, 2), 3), "resnet8_cifar", [2, 2, 2])
    assert (deeper.name, spec) == ("resnet14_cifar", get_spec("resnet14_cifar"))
    small_next = build("resnext11_2x16d_cifar", (16, 16, 2), 3)
    assert deepen(small_next, "resnext11_2x16d_cifar", (2, 2, 2))[1].name == "resnext20_2x16d_cifar"
    model = build("resnext50_2x4d", (16, 16, 2), 3)
    assert deepen(model, "resnext50_2x4d", (3, 4, 23, 3))[1] == get_spec("resnext101_2x4d")


def test_policy_and_frozen_layers_stay():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build("resnet8_cifar", (16, 16, 2), 3)
    finally:
        keras.config.set_dtype_policy("float32")
    randomise(model)
    for layer in model.layers:
        layer.trainable = layer.name.startswith("head")
    deeper, _ = deepen(model, "resnet8_cifar", (2, 2, 2))
    assert keras.config.dtype_policy().name == "float32"
    assert deeper.get_layer("stage2_block2_conv1").compute_dtype == "bfloat16"
    np.testing.assert_array_equal(deeper(X), model(X))
    np.testing.assert_array_equal(deeper(X, training=True), model(X, training=True))  # frozen BN keeps its statistics
    assert not deeper.get_layer("stem_conv").trainable
    assert deeper.get_layer("stage1_block2_conv1").trainable  # what is new is there to learn
