"""The graph that is served: preprocessing, network and class names in front of and behind one another."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_resnet.data.preprocess import decode, normalise, resize_with_pad
from keras_resnet.models import deep_graph
from keras_resnet.recipes import Preprocessing

TOP_K = 5


class ServedModel(tf.Module):
    """`head(network(preprocess(images)))` as signatures: what a SavedModel holds.

    Args:
        network: (batch, height, width, channels) or (batch, steps, channels) to (logits, features).
        preprocessing: how pixels 0-255 become the network's input; None only resizes with pad to its size.
        class_names: one for each output.
        labels_path: a text file of the class names, a line each, stored as an asset.
        max_pixels: the largest image that `serve_bytes` decodes.
    """

    def __init__(
        self,
        network: keras.Model,
        preprocessing: Preprocessing | None,
        class_names: Sequence[str],
        labels_path: str | os.PathLike[str],
        max_pixels: int,
    ) -> None:
        super().__init__()
        self.labels = tf.saved_model.Asset(os.fspath(labels_path))
        self._input_shape = tuple(network.input_shape[1:])
        self._preprocessing = preprocessing
        self._class_names = list(class_names)
        self._max_pixels = max_pixels
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
            images = tf.TensorSpec([None, None, None, self._channels], tf.uint8, "images")
            floats = tf.TensorSpec([None, None, None, self._channels], tf.float32, "images")
            signatures = {
                "serving_default": (self._serve, images),
                "serve_float": (self._serve_float, floats),
                "features": (self._embed, images),
            }
            if self._channels in (1, 3):
                signatures["serve_bytes"] = (self._serve_bytes, tf.TensorSpec([None], tf.string, "image_bytes"))
        return {name: tf.function(f).get_concrete_function(spec) for name, (f, spec) in signatures.items()}

    def _serve(self, images: Any) -> dict[str, Any]:
        return self._classify(self._prepare(self._check(images)))

    def _serve_float(self, images: Any) -> dict[str, Any]:
        images = self._check(tf.debugging.check_numerics(images, "images must hold numbers. Received:"))
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
        tf.debugging.Assert(tf.size(image_bytes) > 0, ["image_bytes must hold at least one image. Received: none."])
        height, width, _ = self._input_shape

        def fit(encoded: Any) -> Any:
            return self._resize(decode(encoded, self._channels, max_pixels=self._max_pixels))

        pixels = tf.map_fn(
            fit, image_bytes, fn_output_signature=tf.TensorSpec([height, width, self._channels], tf.float32)
        )
        return self._classify(self._normalise(pixels))

    def _embed(self, images: Any) -> dict[str, Any]:
        return {"features": self._network(self._prepare(self._check(images)))[1]}

    def _serve_sequences(self, sequences: Any) -> dict[str, Any]:
        return self._classify(self._check_sequences(sequences))

    def _embed_sequences(self, sequences: Any) -> dict[str, Any]:
        return {"features": self._network(self._check_sequences(sequences))[1]}

    def _check(self, images: Any) -> Any:
        shape = tf.shape(images)
        tf.debugging.Assert(
            tf.reduce_all(shape[:3] > 0) & (shape[3] == self._channels),
            [f"images must be (batch, height, width, {self._channels}), no side 0. Received the shape:", shape],
        )
        return images

    def _check_sequences(self, sequences: Any) -> Any:
        shape = tf.shape(sequences)
        steps, channels = self._input_shape
        fits = tf.reduce_all(shape > 0) & (shape[2] == channels)
        if steps is not None:
            fits &= shape[1] == steps
        wanted = f"(batch, {'steps' if steps is None else steps}, {channels})"
        tf.debugging.Assert(fits, [f"sequences must be {wanted}, no side 0. Received the shape:", shape])
        return tf.debugging.check_numerics(sequences, "sequences must hold numbers. Received:")

    def _prepare(self, images: Any) -> Any:
        return self._normalise(self._resize(images))

    def _resize(self, images: Any) -> Any:
        height, width, _ = self._input_shape
        if height is None or width is None:
            return tf.cast(images, tf.float32)
        return resize_with_pad(images, height, width)

    def _normalise(self, images: Any) -> Any:
        return images if self._preprocessing is None else normalise(images, self._preprocessing)

    def _classify(self, inputs: Any) -> dict[str, Any]:
        logits, _ = self._network(inputs)
        top = tf.math.top_k(logits, min(TOP_K, len(self._class_names)))
        return {
            "probabilities": tf.nn.softmax(logits),
            "logits": logits,
            "class_ids": tf.cast(top.indices, tf.int64),
            "class_names": tf.gather(tf.constant(self._class_names), top.indices),
        }


def _freeze(network: keras.Model) -> Callable[[Any], tuple[Any, Any]]:
    """The network as one graph function, in which the weights are constants and nothing is left of training."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    @tf.function
    def compute(inputs: Any) -> tuple[Any, Any]:
        logits, features = network(inputs, training=False)
        return tf.cast(logits, tf.float32), tf.cast(features, tf.float32)

    with deep_graph():
        concrete = compute.get_concrete_function(tf.TensorSpec([None, *network.input_shape[1:]], tf.float32))
        if os.environ.get("X_FREEZE", "1") == "1":
            return convert_variables_to_constants_v2(concrete)
    return concrete
