"""Grouped convolution: by hand, against Keras' own, without oneDNN, and what it writes into a graph."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_resnet import layers
from keras_resnet.layers import GroupedConv1D, GroupedConv2D


@pytest.fixture(params=["native", "split"])
def gradient(request, monkeypatch):
    """With TensorFlow's own gradient where it has one, and with the one per group everywhere."""
    if request.param == "split":
        monkeypatch.setattr(layers, "_has_grouped_gradient", lambda dtype: False)


def outputs_and_gradients(layer, x):
    """Output, gradient by input, kernel and bias of sum(sin(layer(x))), computed in a graph."""

    @tf.function
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(tf.sin(tf.cast(y, tf.float32)))
        return [y, *tape.gradient(loss, [x, *(weight.value for weight in layer.trainable_weights)])]

    return [np.asarray(tf.cast(value, tf.float32)) for value in run(tf.convert_to_tensor(x))]


@pytest.mark.usefixtures("gradient")
def test_two_groups_by_hand():
    layer = GroupedConv2D(2, (1, 2), groups=2, use_bias=False)
    layer.build((None, 1, 3, 4))
    # Channels 0 and 1 go to filter 0, channels 2 and 3 to filter 1.
    kernel = np.array([[[[1, 10], [2, 20]], [[3, 30], [4, 40]]]], np.float32)  # (1, 2, channels per group, filters)
    layer.kernel.assign(kernel)
    x = np.array([[[[1, 1, 1, 1], [0, 1, 0, 1], [2, 0, 0, 2]]]], np.float32)
    y, by_x, by_kernel = outputs_and_gradients(layer, x)
    # Filter 0 at 0: 1*1 + 1*2 + 0*3 + 1*4 = 7, at 1: 0*1 + 1*2 + 2*3 + 0*4 = 8; filter 1: 70 and 20 + 80 = 100.
    expected = np.array([[[[7, 70], [8, 100]]]], np.float32)
    np.testing.assert_allclose(y, expected)
    d = np.cos(expected[0, 0])  # of sum(sin(y))
    np.testing.assert_allclose(
        by_x[0, 0, 1], [3 * d[0, 0] + d[1, 0], 4 * d[0, 0] + 2 * d[1, 0], *_second(d)], rtol=1e-4
    )
    np.testing.assert_allclose(by_kernel[0, 0, :, 0], [d[0, 0], d[0, 0] + d[1, 0]], rtol=1e-4)


def _second(d):
    return 30 * d[0, 1] + 10 * d[1, 1], 40 * d[0, 1] + 20 * d[1, 1]


@pytest.mark.usefixtures("gradient")
@pytest.mark.parametrize("rank", [1, 2])
@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_equal_to_keras_forward_and_backward(rank, data):
    groups = data.draw(st.integers(2, 4))
    sizes = [data.draw(st.integers(3, 9)) for _ in range(rank)]
    stride = data.draw(st.integers(1, 2))
    options = {
        "filters": groups * data.draw(st.integers(1, 3)),
        "kernel_size": data.draw(st.sampled_from([1, 3])),
        "strides": stride,
        "dilation_rate": data.draw(st.integers(1, 2)) if stride == 1 else 1,
        "padding": data.draw(st.sampled_from(["same", "valid", "causal"][: 3 if rank == 1 else 2])),
        "activation": data.draw(st.sampled_from([None, "relu"])),
        "groups": groups,
    }
    if options["padding"] == "valid":
        sizes = [size + 2 for size in sizes]
    x = np.random.default_rng(0).normal(size=(2, *sizes, groups * data.draw(st.integers(1, 3)))).astype("float32")
    ours = {1: GroupedConv1D, 2: GroupedConv2D}[rank](**options)
    theirs = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D}[rank](**options)
    ours.build(x.shape)
    theirs.build(x.shape)
    ours.bias.assign(np.linspace(-1, 1, options["filters"]))
    theirs.set_weights(ours.get_weights())
    for a, b in zip(outputs_and_gradients(ours, x), outputs_and_gradients(theirs, x), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * max(1, np.abs(b).max()))
    keras.utils.clear_session()


@pytest.mark.usefixtures("gradient")
def test_eager_gradients_reach_the_variable():
    layer = GroupedConv2D(8, 3, groups=4)
    x = tf.random.stateless_normal((2, 5, 5, 8), seed=(0, 0))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x) ** 2)
    eager = tape.gradient(loss, [layer.kernel.value, layer.bias.value])
    stock = keras.layers.Conv2D(8, 3, groups=4)
    stock.build(x.shape)
    stock.set_weights(layer.get_weights())
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(stock(x) ** 2)
    for a, b in zip(eager, tape.gradient(loss, [stock.kernel.value, stock.bias.value]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("gradient")
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 8)).astype("float32")
    layer = GroupedConv2D(8, 3, padding="same", groups=4, dtype=policy)
    single = GroupedConv2D(8, 3, padding="same", groups=4)
    layer.build(x.shape)
    single.build(x.shape)
    single.set_weights(layer.get_weights())
    assert layer.kernel.dtype == "float32"
    half = tf.cast(x, layer.compute_dtype)
    for a, b in zip(outputs_and_gradients(layer, half), outputs_and_gradients(single, x), strict=True):
        np.testing.assert_allclose(a, b, atol=0.05 * np.abs(b).max())


def test_one_group_and_channels_first_are_keras_own():
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 4)).astype("float32")
    plain, ours = keras.layers.Conv2D(3, 3), GroupedConv2D(3, 3)
    plain.build(x.shape)
    ours.build(x.shape)
    ours.set_weights(plain.get_weights())
    np.testing.assert_array_equal(ours(x), plain(x))
    assert GroupedConv2D(4, 3, groups=2, data_format="channels_first")._is_native() is False
    assert GroupedConv1D(4, 3, groups=1)._is_native() is False
    assert GroupedConv1D(4, 3)(np.ones((1, 5, 2), "float32")).shape == (1, 3, 4)


def test_dynamic_sizes():
    inputs = keras.Input((None, None, 4))
    model = keras.Model(inputs, GroupedConv2D(4, 3, groups=2, padding="same")(inputs))
    assert model.output_shape == (None, None, None, 4)
    assert model.predict(np.ones((3, 5, 7, 4), "float32"), verbose=0).shape == (3, 5, 7, 4)


@pytest.mark.usefixtures("gradient")
@pytest.mark.parametrize(("rank", "strides", "dilation"), [(2, 2, 1), (2, 1, 2), (1, 2, 1)])
def test_inside_xla(rank, strides, dilation):
    options = {"strides": strides, "dilation_rate": dilation, "groups": 4, "padding": "same"}
    layer = {1: GroupedConv1D, 2: GroupedConv2D}[rank](8, 3, **options)
    x = tf.random.stateless_normal((2, *(7, 5)[:rank], 8), seed=(0, 0))
    layer.build(x.shape)

    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x) ** 2)
        return tape.gradient(loss, [x, layer.kernel.value])

    for a, b in zip(tf.function(run, jit_compile=True)(x), tf.function(run)(x), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())


@pytest.mark.usefixtures("gradient")
def test_a_graph_holds_one_plain_convolution():
    layer = GroupedConv2D(8, 3, groups=4)
    layer.build((None, 8, 8, 8))
    graph = tf.function(layer).get_concrete_function(tf.TensorSpec((None, 8, 8, 8))).graph
    nodes = [node for function in graph.as_graph_def().library.function for node in function.node_def]
    nodes += graph.as_graph_def().node
    assert [node.op for node in nodes].count("Conv2D") == 1
    assert not any("_XlaMustCompile" in node.attr for node in nodes)


WITHOUT_ONEDNN = """
import os
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
import keras_resnet, keras, numpy as np
from keras_resnet import layers
assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "0", "the user's setting is kept"
keras.utils.set_random_seed(0)
print("native", layers._has_grouped_gradient("float32"))
spec = keras_resnet.ResNetSpec("small", "bottleneck", (1, 1), (8, 16), (1, 2), "cifar", 8, groups=4, width_per_group=32,
                               dialect=keras_resnet.get_dialect("keras_v1"))
model = keras_resnet.build(spec, (9, 9, 3), 2)
model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
x = np.random.default_rng(0).normal(size=(8, 9, 9, 3)).astype("float32")
before = model.get_layer("stage1_block1_conv2").get_weights()
losses = [model.train_on_batch(x, np.arange(8) % 2) for _ in range(3)]
assert np.isfinite(losses).all() and losses[-1] < losses[0], losses
assert not np.array_equal(before[0], model.get_layer("stage1_block1_conv2").get_weights()[0])
print("predicted", model.predict(x, verbose=0).shape)  # biases right behind a grouped convolution, in a graph
static = keras.Input((9, 9, 8), batch_size=8)  # where the graph optimizer knows every shape
fixed = keras.Model(static, layers.GroupedConv2D(8, 3, groups=4, activation="relu")(static))
print("fixed", fixed.predict(np.ones((8, 9, 9, 8), "float32"), batch_size=8, verbose=0).shape)
"""


def test_a_grouped_network_trains_and_predicts_without_onednn():
    done = subprocess.run([sys.executable, "-c", WITHOUT_ONEDNN], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Where the processor has no gradient of a grouped convolution without oneDNN (all known) ours takes its place.
    assert done.stdout.splitlines() == ["native False", "predicted (8, 2)", "fixed (8, 7, 7, 8)"], done.stdout


@pytest.mark.parametrize(
    ("arguments", "channels", "message"),
    [
        ({"filters": 6, "groups": 4}, 8, r"filters must be evenly divisible by the number of groups.*filters=6"),
        (
            {"filters": 8, "groups": 4},
            6,
            r"channels must be evenly divisible by the number of groups.*groups=4.*6 chan",
        ),
        ({"filters": 8, "groups": 0}, 8, r"groups must be a positive integer"),
    ],
)
def test_groups_must_divide(arguments, channels, message):
    with pytest.raises(ValueError, match=message):
        GroupedConv2D(kernel_size=3, **arguments)(np.ones((1, 5, 5, channels), "float32"))


def test_a_layer_is_its_config():
    layer = GroupedConv2D(8, 3, groups=4, padding="same", use_bias=False, name="mine")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is GroupedConv2D
    assert again.get_config() == layer.get_config()
