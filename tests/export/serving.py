"""What the tests of exports share: tiny networks, images and files of them, and what an answer must be."""

import functools
import io
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

from keras_resnet import Preprocessing, ResNetSpec, build

SPEC = ResNetSpec("tiny", "basic", depths=(1, 1), filters=(4, 6), strides=(1, 2), stem="cifar", stem_filters=4)
LINE = ResNetSpec("line", "basic", depths=(1,), filters=(4,), strides=(1,), stem="cifar", stem_filters=4, rank=1)
COLOUR = Preprocessing((8, 10), 3, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
GRAY = Preprocessing((8, 8), 1, (0.13,), (0.31,))
NAMES = ["Ärger", "猫", "two words", "🐈", "e", "f", "g"]


@functools.cache
def network(input_shape=(8, 10, 3), classes=7, activation="softmax", spec=SPEC):
    """A network with BN as after a training, so that nothing it leaves out goes unseen; an export leaves it as it is."""
    keras.utils.set_random_seed(0)
    model = build(spec, input_shape, classes, classifier_activation=activation)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.set_weights([rng.uniform(0.5, 1.5, shape), *rng.normal(size=(2, *shape)), rng.uniform(0.5, 2, shape)])
    return model


def stock_grouped():
    """With Keras' own grouped convolution, which needs XLA."""
    images = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, groups=2, name="grouped")(images)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(images, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), name="stock")


def describe(tensors):
    return {
        name: (tf.as_dtype(tensor.dtype).name, [axis.size for axis in tensor.tensor_shape.dim])
        for name, tensor in tensors.items()
    }


def draw(count, height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, channels)).astype(np.uint8)


def encode(image, kind="PNG", **options):
    stream = io.BytesIO()
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    image.save(stream, kind, **options)
    return stream.getvalue()


def as_bytes(*encoded):
    return np.array(encoded, object)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def check_answer(answer, model, inputs, names):
    """All outputs against the Keras model; `inputs` is what the network takes."""
    outputs = np.asarray(model(inputs, training=False), np.float64)
    wanted = outputs if np.allclose(outputs.sum(-1), 1, atol=1e-5) else softmax(outputs)
    probabilities, logits = answer["probabilities"], answer["logits"]
    np.testing.assert_allclose(probabilities, wanted, atol=1e-5)
    np.testing.assert_allclose(softmax(logits.astype(np.float64)), wanted, atol=1e-5)
    assert not np.allclose(logits.sum(-1), 1, atol=1e-3)
    count = min(5, len(names))
    ids = np.argsort(-logits, axis=-1, kind="stable")[:, :count]  # the order that probabilities of 0 hide
    np.testing.assert_array_equal(answer["class_ids"], ids)
    assert [[name.decode() for name in row] for row in answer["class_names"]] == [
        [names[index] for index in row] for row in ids
    ]


def read_files(root):
    return {path.relative_to(root): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


def check_nothing_left(tmp_path, error, message, call):
    """`call` fails for a destination two folders deep, none of which is there afterwards; nor is anything else."""
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(error, match=message):
        call(tmp_path / "a" / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert (tmp_path / "mine.txt").read_text() == "kept"
