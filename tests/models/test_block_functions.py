"""Block functions, built in or one's own, and the other parts of a network."""

from dataclasses import replace

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet import (
    Block,
    InputError,
    ResNetSpec,
    blocks,
    build,
    count_params,
    get_spec,
    load_model,
    stage_outputs,
)
from keras_resnet.specs import D2L, KERAS_V1, KERAS_V2, TORCHVISION_V2


@pytest.fixture(autouse=True)
def _clear():
    yield
    keras.utils.clear_session()


def test_shortcut_a_subsamples_and_appends_zeros():
    model = build("resnet8_cifar", (5, 6, 1), 10)
    join = model.get_layer("stage2_block1_add")
    probe = keras.Model(model.inputs, [model.get_layer("stage1_block1_out").output, join.input[1]])
    x, skipped = (np.asarray(v) for v in probe(np.random.default_rng(0).normal(size=(2, 5, 6, 1)).astype("float32")))
    assert skipped.shape == (2, 3, 3, 32)
    np.testing.assert_array_equal(skipped[..., :16], x[:, ::2, ::2])
    assert not skipped[..., 16:].any()


def test_zero_gamma_makes_blocks_identities():
    spec = ResNetSpec("zero", "bottleneck", (2,), (4,), (1,), stem="cifar", stem_filters=16, zero_gamma=True)
    model = build(spec, (8, 8, 3), include_top=False)
    probe = keras.Model(model.inputs, [model.get_layer("stem_relu").output, model.output])
    stem, out = probe(np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype("float32"))
    np.testing.assert_array_equal(stem, out)


@pytest.mark.parametrize(
    "changes",
    [
        {"block": "basic"},
        {"block": "bottleneck"},
        {"block": "bottleneck", "groups": 2, "width_per_group": 32},
        {"block": "basic", "dialect": TORCHVISION_V2},
        {"block": "bottleneck", "dialect": KERAS_V1},
        {"block": "bottleneck", "dialect": KERAS_V2},
        {"block": "basic", "shortcut": "A"},
        {"block": "basic", "rank": 1, "kernel_sizes": (3, 5)},
    ],
    ids=str,
)
def test_a_dilated_network_has_the_strided_ones_pixels_among_its_own(changes):
    spec = ResNetSpec(
        **{
            "name": "dense",
            "depths": (2, 2, 2),
            "filters": (4, 6, 8),
            "strides": (1, 2, 2),
            "stem_filters": 4,
            **changes,
        }
    )
    shape = (37, 49, 3)[2 - spec.rank :]
    strided = build(spec, shape, include_top=False)
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    for stride, step in ((8, 2), (4, 4)):
        dilated = build(replace(spec, output_stride=stride), shape, include_top=False)
        dilated.set_weights(strided.get_weights())
        every = np.asarray(dilated(x))[(slice(None), *(slice(None, None, step),) * spec.rank)]
        np.testing.assert_allclose(every, strided(x), atol=1e-5)


def test_stochastic_depth_leaves_branches_out_in_training_only():
    spec = ResNetSpec(
        "drops", "basic", (1,), (4,), (1,), stem="none", shortcut="B", stochastic_depth=0.5, dialect=TORCHVISION_V2
    )
    model = build(spec, (6, 6, 4), include_top=False)
    x = np.random.default_rng(0).normal(size=(64, 6, 6, 4)).astype("float32")
    branch = keras.Model(model.input, model.get_layer("stage1_block1_conv2").output)
    joined = keras.Model(model.input, model.get_layer("stage1_block1_add").output)
    keras.utils.set_random_seed(0)
    added = np.asarray(joined(x, training=True)) - x
    expected = np.asarray(branch(x, training=True))
    kept = np.abs(added).max((1, 2, 3)) > 1e-4
    assert 16 < kept.sum() < 48  # each example by itself, half of them
    # What is kept counts double, so that the mean stays; BN has moved its averages meanwhile, not its output.
    np.testing.assert_allclose(added[kept], 2 * expected[kept], atol=1e-4)
    np.testing.assert_allclose(joined(x) - x, branch(x), atol=1e-5)


def test_zero_gamma_in_preactivation_has_a_gradient():
    spec = ResNetSpec("zero", "basic", (2,), (4,), (1,), "cifar", 4, zero_gamma=True, dialect=TORCHVISION_V2)
    model = build(spec, (8, 8, 3), 2)
    assert not model.get_layer("stage1_block2_conv2").kernel.numpy().any()
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    model.train_on_batch(x, np.array([0, 1, 1, 0]))
    assert model.get_layer("stage1_block2_conv2").kernel.numpy().any()


def test_batch_normalization_of_two_by_hand():
    """S5: a channel of two images, in training (its own mean and variance) and in inference (the moving ones)."""
    inputs = keras.Input((1, 1, 2))
    model = keras.Model(inputs, blocks.batch_norm(inputs, name="bn"))
    x = np.array([[1.0, 10.0], [3.0, 30.0]], np.float32).reshape(2, 1, 1, 2)
    y = np.asarray(model(x, training=True)).reshape(2, 2)
    # Means 2 and 20, variances 1 and 100 (over n): (1 - 2) / sqrt(1 + 1e-5) = -0.999995.
    np.testing.assert_allclose(y, [[-0.999995, -1.0], [0.999995, 1.0]], atol=1e-6)
    bn = model.get_layer("bn")
    np.testing.assert_allclose(bn.moving_mean, [0.2, 2.0], rtol=1e-6)  # 0.9 * 0 + 0.1 * mean
    np.testing.assert_allclose(bn.moving_variance, [1.0, 10.9], rtol=1e-6)  # 0.9 * 1 + 0.1 * variance
    y = np.asarray(model(x)).reshape(2, 2)
    np.testing.assert_allclose(y[0], [(1 - 0.2) / np.sqrt(1.00001), (10 - 2) / np.sqrt(10.90001)], rtol=1e-5)


def test_the_shapes_of_s2():
    """Residual(3) keeps (4, 6, 6, 3); Residual(6) with stride 2 gives (4, 3, 3, 6); ResNeXtBlock(32, 16, 1) keeps."""
    x = keras.Input((6, 6, 3))
    assert blocks.basic_block(x, Block("a", "basic", 3, dialect=D2L)).shape == (None, 6, 6, 3)
    assert blocks.basic_block(x, Block("b", "basic", 6, stride=2, dialect=D2L)).shape == (None, 3, 3, 6)
    x = keras.Input((96, 96, 32))
    y = blocks.bottleneck_block(x, Block("c", "bottleneck", 8, groups=2, width_per_group=128))
    assert y.shape == (None, 96, 96, 32)


def test_a_block_of_ones_own():
    seen = []

    def half(x, block):
        seen.append(block)
        return keras.layers.Conv2D(block.filters, 1, strides=block.stride, name=f"{block.name}_conv1")(x)

    spec = ResNetSpec("mine", "custom", (1, 2), (4, 6), (1, 2), stem="cifar", stem_filters=4, se_ratio=0.25)
    with pytest.raises(InputError, match=r"block='custom' is built with a block function.* Received: block=None"):
        build(spec, (8, 8, 1), 3)
    model = build(spec, (8, 8, 1), 3, block=half)
    assert seen == [
        Block("stage1_block1", "custom", 4, se_ratio=0.25),
        Block("stage2_block1", "custom", 6, stride=2, se_ratio=0.25),
        Block("stage2_block2", "custom", 6, se_ratio=0.25),
    ]
    assert model.get_layer("stage2_block2_conv1").output.shape == (None, 4, 4, 6)


def test_a_built_in_block_takes_the_place_of_another():
    """The function decides what is built, whatever kind the spec says."""
    spec = replace(get_spec("resnet20_cifar"), block="bottleneck", shortcut="B")
    basic = build(spec, (8, 8, 3), 3, block=blocks.basic_block)
    assert basic.count_params() == count_params(replace(spec, block="basic"), (8, 8, 3), 3)
    custom = build(replace(spec, block="custom"), (8, 8, 3), 3, block=blocks.bottleneck_block)
    assert custom.count_params() == count_params(spec, (8, 8, 3), 3)


def test_a_block_of_ones_own_is_checked():
    spec = ResNetSpec("mine", "custom", (1,), (4,), (1,), stem="cifar", stem_filters=4)
    with pytest.raises(InputError, match=r"block must be a function .* Received: 'basic'"):
        build(spec, (8, 8, 1), 3, block="basic")
    for wrong in (lambda x, block: None, lambda x, block: keras.layers.Flatten()(x)):
        with pytest.raises(InputError, match=r"mine: a block function must return .* rank 4.* from stage1_block1: "):
            build(spec, (8, 8, 1), 3, block=wrong)
    # In place of a block that the spec describes, so that its figures are not taken for this model's.
    model = build("resnet8_cifar", (8, 8, 1), block=lambda x, block: x)
    assert model.name == "resnet8_cifar_custom"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: blocks.bottleneck_block(x, Block("b", "bottleneck", 8, groups=32, width_per_group=4)),
            r"b: The inner width .* at least groups.*gives 0",
        ),
        (
            lambda x: blocks.basic_block(x, Block("b", "bottleneck", 8, groups=2)),
            r"b: A basic block has no inner width, so groups must be 1",
        ),
        (
            lambda x: blocks.basic_block(x, 8),
            r"block must be a Block, such as Block\('stage1_block1', 'basic', .* Received: 8",
        ),
        (
            lambda x: blocks.basic_block(x, Block("b", "basic", 8, dialect="d2l")),
            r"must be a Dialect.* Received: 'd2l'",
        ),
        (lambda x: blocks.basic_block(x, Block("b", "basic", 8, shortcut="E")), r"'D', 'none'. Received: 'E'"),
        (lambda x: blocks.basic_block(x, Block("b", "basic", 2, shortcut="A")), r"only appends channels. Received: 4"),
        (
            lambda x: blocks.shortcut(x, Block("b", "basic", 4, shortcut="none"), 4),
            r"b: a block without a shortcut has none",
        ),
        (lambda x: blocks.stem(x, "x", 8), r"stem must be one of 'imagenet'"),
        (lambda x: blocks.pool(x, "mean"), r"pooling must be one of 'avg', 'max'. Received: 'mean'"),
        (lambda x: blocks.conv_bn(x, 8, 2, prefix="p"), r"p_conv: kernel sizes must be odd. Received: \(2,\)"),
        (lambda x: stage_outputs("x"), r"stage_outputs needs a Keras model. Received: 'x'"),
        (lambda x: load_model(None), r"must be a .keras file. Received: None"),
        (lambda x: build("resnet18", block=3), r"block must be a function such as .*, or None. Received: 3"),
        (  # as 0.1 called them
            lambda x: build("resnet8_cifar", block=lambda x, filters, *, stride, name, **options: x),
            r"called as block\(x, block\), .* Received: one with the arguments \(x, filters, \*, stride, name, \*\*options\)",
        ),
        (lambda x: build("resnet18", name="a/b"), r"name must be a string without '/', or None. Received: 'a/b'"),
        (lambda x: build("resnet18", 5, input_tensor=x), r"input_shape must be \(height.* Received: 5"),
        (lambda x: keras_resnet.resnet18(weights=5), r"path of an existing file. Received: 5"),
        (
            lambda x: build(ResNetSpec("n", "basic", (1,), (2,), (1,), "none", shortcut="A"), (8, 8, 4)),
            r"without a stem the input must have at most the 2 channels.* Received: input_shape=\(8, 8, 4\)",
        ),
    ],
)
def test_bad_parts(call, message):
    with pytest.raises(InputError, match=message):
        call(keras.Input((8, 8, 4)))
