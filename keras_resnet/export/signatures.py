"""The graph that is served: preprocessing, network and class names in front of and behind one another."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_resnet.data.preprocess import decode, normalize, read_shape, resize_with_pad
from keras_resnet.export.request import Request
from keras_resnet.models import deep_graph
from keras_resnet.private import freeze_variables


class ServedModel(tf.Module):
    """`head(network(preprocess(images)))` as signatures: the module that is saved.

    Args:
        network: (batch, height, width, channels) or (batch, steps, channels) to (logits, features).
        request: whose preprocessing comes before the network, only a resize with pad to its size where there is none;
            whose head comes behind it; and whose `max_pixels` limit what `serve_bytes` decodes.
        labels_path: a text file of the class names, a line each, stored as an asset.
    """

    def __init__(self, network: keras.Model, request: Request, labels_path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.labels = tf.saved_model.Asset(os.fspath(labels_path))
        self._input_shape = tuple(network.input_shape[1:])
        self._preprocessing = request.preprocessing
        self._head = request.head
        self._max_pixels = request.max_pixels
        self._network = _freeze(network)

    @property
    def _channels(self) -> int:
        return self._input_shape[-1]

    def make_signatures(self) -> dict[str, Any]:
        """Concrete functions by signature name."""
        if len(self._input_shape) == 2:
            spec = tf.TensorSpec([None, *self._input_shape], tf.float32, "sequences")
            signatures: dict[str, tuple[Callable[..., Any], Any]] = {
                "serving_default": (self._serve_sequences, spec),
                "features": (self._embed_sequences, spec),
            }
        else:
            shape = [None, *(None if isinstance(side, str) else side for side in self._sides)]
            images, floats = (tf.TensorSpec(shape, dtype, "images") for dtype in (tf.uint8, tf.float32))
            signatures = {
                "serving_default": (self._serve, images),
                "serve_float": (self._serve_float, floats),
                "features": (self._embed, images),
            }
            if self._channels in (1, 3):
                signatures["serve_bytes"] = (self._serve_bytes, tf.TensorSpec([None], tf.string, "image_bytes"))
        return {name: tf.function(f).get_concrete_function(spec) for name, (f, spec) in signatures.items()}

    def _serve(self, images: Any) -> dict[str, Any]:
        return self._classify(self._prepare(self._check_images(images)))

    def _serve_float(self, images: Any) -> dict[str, Any]:
        images = tf.debugging.check_numerics(self._check_images(images), "images must hold numbers. Received:")
        if self._preprocessing is not None:
            tf.debugging.Assert(
                tf.reduce_all((images >= 0) & (images <= 255)),
                [
                    "images must hold pixel values from 0 to 255. Received, lowest and highest:",
                    tf.reduce_min(images),
                    tf.reduce_max(images),
                ],
            )
        return self._classify(self._prepare(images))

    def _serve_bytes(self, image_bytes: Any) -> dict[str, Any]:
        some = tf.debugging.Assert(
            tf.size(image_bytes) > 0, ["image_bytes must hold at least one image. Received: none."]
        )
        with tf.control_dependencies([some]):
            image_bytes = tf.identity(image_bytes)

        def fit(encoded: Any) -> Any:
            image = decode(encoded, self._channels, max_pixels=self._max_pixels)
            return self._check_size(image, image_bytes[0]) if self._size is None else self._resize(image)

        shape = [*(self._size or self._input_shape[:2]), self._channels]
        pixels = tf.map_fn(fit, image_bytes, fn_output_signature=tf.TensorSpec(shape, tf.float32))
        return self._classify(self._normalize(pixels))

    def _embed(self, images: Any) -> dict[str, Any]:
        return {"features": self._network(self._prepare(self._check_images(images)))[1]}

    def _serve_sequences(self, sequences: Any) -> dict[str, Any]:
        return self._classify(self._check_sequences(sequences))

    def _embed_sequences(self, sequences: Any) -> dict[str, Any]:
        return {"features": self._network(self._check_sequences(sequences))[1]}

    def _check_images(self, images: Any) -> Any:
        return _check_shape(images, "images", self._sides)

    def _check_size(self, image: Any, first: Any) -> Any:
        """`image` as float32, after its size was found to be the network's and, for a batch, the first one's."""
        size, wanted = tf.shape(image)[:2], tf.cast(read_shape(first)[:2], tf.int32)
        wanted = tf.stack(
            [given or any_size for given, any_size in zip(self._input_shape, tf.unstack(wanted), strict=False)]
        )
        words = "All images of a batch must have one size, and where the network has a fixed side this one"
        check = tf.debugging.Assert(
            tf.reduce_all(size == wanted), [f"{words}, height and width:", wanted, "Received:", size]
        )
        with tf.control_dependencies([check]):
            return tf.cast(image, tf.float32)

    def _check_sequences(self, sequences: Any) -> Any:
        steps, channels = self._input_shape
        checked = _check_shape(sequences, "sequences", ("steps" if steps is None else steps, channels))
        return tf.debugging.check_numerics(checked, "sequences must hold numbers. Received:")

    @property
    def _sides(self) -> tuple[int | str, ...]:
        """What images must be behind the batch: numbers, and words for what may be anything."""
        height, width, channels = self._input_shape
        if self._size is not None:
            return "height", "width", channels
        return height or "height", width or "width", channels

    @property
    def _size(self) -> tuple[int, int] | None:
        """(height, width) that images get; None where they stay as they are."""
        if self._preprocessing is not None:
            return self._preprocessing.image_size_pixels
        height, width, _ = self._input_shape
        return None if height is None or width is None else (height, width)

    def _prepare(self, images: Any) -> Any:
        return self._normalize(self._resize(images))

    def _resize(self, images: Any) -> Any:
        return tf.cast(images, tf.float32) if self._size is None else resize_with_pad(images, *self._size)

    def _normalize(self, images: Any) -> Any:
        return images if self._preprocessing is None else normalize(images, self._preprocessing)

    def _classify(self, inputs: Any) -> dict[str, Any]:
        logits, _ = self._network(inputs)
        return self._head.serve(logits)


def _check_shape(tensor: Any, name: str, sides: tuple[int | str, ...]) -> Any:
    """`tensor`, after its shape was found to be (batch, *sides); a side is a number, or the word for any."""
    # A server does not compare what it is given with the signature, but TensorFlow's graph optimizer believes the signature
    # and would drop the comparison: it knows nothing of what is behind this operation.
    tensor = tf.raw_ops.PlaceholderWithDefault(input=tensor, shape=None)
    shape, end = tf.shape(tensor), [-1]  # behind the last side, so that their number is checked with them
    lowest = [1, *(1 if isinstance(side, str) else side for side in sides)]
    highest = [tf.int32.max, *(tf.int32.max if isinstance(side, str) else side for side in sides)]
    compared = tf.concat([shape, end * len(lowest + end)], 0)[: len(lowest + end)]
    fits = tf.reduce_all((compared >= lowest + end) & (compared <= highest + end))
    wanted = ", ".join(map(str, ("batch", *sides)))
    check = tf.debugging.Assert(
        fits, [f"{name} must be ({wanted}), no side 0. Received the shape:", shape], summarize=8
    )
    with tf.control_dependencies([check]):  # on another rank oneDNN would end the process
        tensor = tf.identity(tensor)
    return tf.ensure_shape(tensor, [None, *(None if isinstance(side, str) else side for side in sides)])


def _freeze(network: keras.Model) -> Callable[[Any], tuple[Any, Any]]:
    """The network as one graph function, in which the weights are constants and nothing is left of training."""

    @tf.function
    def compute(inputs: Any) -> tuple[Any, Any]:
        logits, features = network(inputs, training=False)
        return tf.cast(logits, tf.float32), tf.cast(features, tf.float32)

    with deep_graph():
        concrete = compute.get_concrete_function(tf.TensorSpec([None, *network.input_shape[1:]], tf.float32))
        return freeze_variables(concrete)
