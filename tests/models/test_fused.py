"""BN by TensorFlow's fused operation: the numbers of Keras' own, and Keras' own layer in every file."""

import copy
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_resnet
from keras_resnet.fused import fuse_batch_norm, fuse_model


def train_step(model, x):
    """Output, gradients, and every weight after a forward pass in training; and the operations of the graph."""

    @tf.function
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.cast(model(x, training=True), tf.float32)
            loss = tf.reduce_mean(tf.sin(y))
        return [y, *tape.gradient(loss, [x, *(weight.value for weight in model.trainable_weights)])]

    graph = run.get_concrete_function(tf.TensorSpec(x.shape, x.dtype)).graph
    values = [tf.cast(value, tf.float32).numpy() for value in run(tf.convert_to_tensor(x))]
    return [*values, *model.get_weights()], {operation.type for operation in graph.get_operations()}


def stock(model):
    """The same network of layers that compute as Keras does."""
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


@pytest.mark.parametrize(
    ("name", "shape", "policy", "tolerance"),
    [
        ("resnet8_cifar", (16, 12, 3), "float32", 2e-5),
        ("resnetv2_20_cifar", (9, 11, 1), "float32", 2e-5),
        ("resnet18_1d", (96, 2), "float32", 2e-5),
        ("resnet8_cifar", (16, 12, 3), "mixed_bfloat16", 0.05),
    ],
)
def test_a_training_step_is_that_of_stock_keras(name, shape, policy, tolerance):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        model = keras_resnet.build(name, shape, 4, classifier_activation=None)
        other = stock(model)
    finally:
        keras.config.set_dtype_policy("float32")
    x = np.random.default_rng(0).normal(size=(6, *shape)).astype("float32")
    ours, our_operations = train_step(model, x)
    theirs, their_operations = train_step(other, x)
    assert {"FusedBatchNormV3", "FusedBatchNormGradV3"} <= our_operations
    assert "FusedBatchNormV3" not in their_operations
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(np.abs(b).max(), 1e-3))


def test_moving_statistics_by_hand():
    layer = fuse_batch_norm(keras.layers.BatchNormalization(momentum=0.75, epsilon=0.5))
    x = np.array([1, 2, 3, 10], np.float32).reshape(4, 1, 1, 1)  # mean 4, biased variance (9 + 4 + 1 + 36) / 4 = 12.5
    y = layer(x, training=True)
    np.testing.assert_allclose(np.ravel(y), (np.ravel(x) - 4) / np.sqrt(13), rtol=1e-6)
    np.testing.assert_allclose(layer.moving_mean, [0.25 * 4], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, [0.75 + 0.25 * 12.5], rtol=1e-6)


def test_one_value_has_no_variance():
    layer = fuse_batch_norm(keras.layers.BatchNormalization(momentum=0.5))
    assert np.asarray(layer(np.full((1, 1, 1, 2), 3.0, np.float32), training=True)).tolist() == [[[[0.0, 0.0]]]]
    assert np.asarray(layer.moving_variance).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("options", "shape", "call"),
    [
        ({}, (2, 3, 3, 4), {"training": False}),
        ({"trainable": False}, (2, 3, 3, 4), {"training": True}),
        ({"axis": 1}, (2, 3, 3, 4), {"training": True}),
        ({"scale": False}, (2, 3, 3, 4), {"training": True}),
        ({"center": False}, (2, 3, 3, 4), {"training": True}),
        ({"dtype": "float64"}, (2, 3, 3, 4), {"training": True}),
        ({}, (6, 4), {"training": True}),
        ({}, (2, 3, 4), {"training": True, "mask": np.array([[True, False, True], [True, True, True]])}),
    ],
    ids=["inference", "frozen", "axis 1", "no scale", "no center", "float64", "no space", "mask"],
)
def test_everything_else_is_keras_own(options, shape, call):
    x = np.random.default_rng(0).normal(size=shape).astype(options.get("dtype", "float32"))
    ours, theirs = (
        fuse_batch_norm(keras.layers.BatchNormalization(**options)),
        keras.layers.BatchNormalization(**options),
    )
    for layer in (ours, theirs):
        layer.build(shape)
    np.testing.assert_array_equal(ours(x, **call), theirs(x, **call))
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_subclass_keeps_its_own_call():
    class Own(keras.layers.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            return inputs + 1

    np.testing.assert_array_equal(fuse_batch_norm(Own())(np.zeros((1, 2, 2, 1)), training=True), np.ones((1, 2, 2, 1)))


def test_trained_model_is_saved_as_keras_own(tmp_path):
    """Whatever ran in training, the file needs Keras alone, and a loaded model can be fused again."""
    model = keras_resnet.build("resnet8_cifar", (8, 8, 1), 3, classifier_activation=None)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    x, y = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype("float32"), np.arange(8) % 3
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", model.predict(x, verbose=0))
    code = (
        "import sys, keras, numpy as np; m = keras.saving.load_model('model.keras'); assert 'keras_resnet' not in sys.modules; "
        "np.testing.assert_allclose(m.predict(np.load('x.npy'), verbose=0), np.load('y.npy'), atol=1e-5); "
        "assert not any('call' in vars(layer) for layer in m.layers)"
    )
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, check=True)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert "FusedBatchNormV3" not in train_step(loaded, x)[1]
    fuse_model(loaded)
    assert "FusedBatchNormV3" in train_step(loaded, x)[1]


def test_a_deep_copy_trains_its_own_weights():
    """Keras copies through its file format, so that a copy is of Keras' own layers."""
    model = keras_resnet.build("resnet8_cifar", (8, 8, 1), 3)
    twin = copy.deepcopy(model)
    before = model.get_weights()
    values, operations = train_step(twin, np.ones((2, 8, 8, 1), "float32"))
    assert "FusedBatchNormV3" not in operations
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(values[-len(before) :], before, strict=True))


@pytest.mark.parametrize(
    "name",
    [
        "resnet8_cifar",
        "resnetv2_8_cifar",
        "resnetv2_11_cifar_bottleneck",
        "plain8_cifar",
        "resnet18",
        "resnet18_d",
    ],
)
def test_a_pixel_that_is_no_number_shows_in_the_loss(name):
    """oneDNN's operation of BN and ReLU makes 0 of NaN: it must not stand on every way to the loss.

    The d2l dialect is left out: TensorFlow itself joins the ReLU behind the addition to the shortcut's biased convolution.
    """
    model = keras_resnet.build(name, (32, 32, 1), 3, classifier_activation=None)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    x = np.ones((2, 32, 32, 1), "float32")
    x[0, 5, 5] = np.nan
    assert np.isnan(model.train_on_batch(x, np.array([0, 1])))


def test_inside_xla():
    model = keras_resnet.build("resnet8_cifar", (8, 8, 1), 3, classifier_activation=None)
    other = stock(model)
    x, y = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("float32"), np.arange(4) % 3
    for net, compiled in ((model, True), (other, False)):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        net.compile(keras.optimizers.SGD(0.1), loss, jit_compile=compiled)
        net.train_on_batch(x, y)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


ONEDNN = """
import {first}, logging, os
logging.basicConfig()
import keras_resnet
keras_resnet.build('resnet8_cifar')
print(os.environ.get('TF_ENABLE_ONEDNN_OPTS'))
"""


@pytest.mark.parametrize(("first", "setting", "warns"), [("keras_resnet", None, False), ("tensorflow", "0", False)])
def test_onednn_is_on_unless_the_user_says_otherwise(first, setting, warns):
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    if setting is not None:
        environment["TF_ENABLE_ONEDNN_OPTS"] = setting
    code = ONEDNN.format(first=first)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (setting or "1")
    assert ("TensorFlow was loaded without oneDNN" in done.stderr) is warns


def test_one_line_says_what_to_do_without_onednn(monkeypatch, caplog):
    """On a processor where TensorFlow leaves it off; here that is only pretended."""
    from tensorflow.python.util import _pywrap_util_port

    from keras_resnet import fused

    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    monkeypatch.setattr(_pywrap_util_port, "IsMklEnabled", lambda: False)
    fused.warn_without_onednn.cache_clear()
    keras_resnet.build("resnet8_cifar")
    keras_resnet.build("resnet8_cifar")
    fused.warn_without_onednn.cache_clear()
    (line,) = [record.getMessage() for record in caplog.records if "oneDNN" in record.getMessage()]
    assert "Import keras_resnet before tensorflow and keras, or set TF_ENABLE_ONEDNN_OPTS=1" in line
