"""`wrap_for_device`: preprocessing in front of a network while it trains, so that only small uint8 images travel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_resnet.errors import InputError

if TYPE_CHECKING:
    from keras_resnet.inputs import Preprocessing


def wrap_for_device(
    network: keras.Model, image_shape: tuple[int, int, int], preprocessing: Preprocessing
) -> keras.Model:
    """`network(preprocess(images))`: takes uint8 images as they are stored, shares all weights with `network`.

    Compile and train the wrapper on `make_train_dataset(..., prepare_on="device")`; save, evaluate and export the network.

    Args:
        network: takes what `preprocessing` makes of an image.
        image_shape: (height, width, channels) of the stored images; of files, which are decoded to the network's size,
            that of its input.
        preprocessing: size and normalization of the network's input.

    Raises:
        InputError: the network's input or the images do not fit `preprocessing`.
    """
    if tuple(network.input_shape[1:]) != preprocessing.input_shape or image_shape[-1] != preprocessing.channels:
        raise InputError(
            f"A network on images of {preprocessing.input_shape} and stored images of {preprocessing.channels} channels "
            f"are needed. Received: a network on {tuple(network.input_shape[1:])}, images of {tuple(image_shape)}."
        )
    images = keras.Input(image_shape, dtype="uint8", name="stored_images")
    outputs = network(PrepareOnDevice(preprocessing, name="prepare")(images))
    return keras.Model(images, outputs, name=f"{network.name}_with_preprocessing")


class PrepareOnDevice(keras.layers.Layer):
    """`normalize(resize_with_pad(images))` in Keras operations, on any backend; has no weights and is not saved."""

    def __init__(self, preprocessing: Preprocessing, **options: Any) -> None:
        super().__init__(dtype="float32", trainable=False, **options)
        self._preprocessing = preprocessing

    def call(self, images: Any) -> Any:
        """Pixels 0-255 (batch, height, width, channels) to the network's input."""
        from keras_resnet.data.preprocess import fitted_size

        ops, (height, width) = keras.ops, self._preprocessing.image_size_pixels
        new, before = fitted_size(np.array(images.shape[1:3]), np.array([height, width]))
        (new_height, new_width), (top, left) = new.tolist(), before.tolist()
        x = ops.cast(images, "float32")
        x = _interpolate(_interpolate(x, 2, new_width), 1, new_height)
        if (new_height, new_width) != (height, width):
            bottom, right = height - top - new_height, width - left - new_width
            x = ops.pad(x, [[0, 0], [top, bottom], [left, right], [0, 0]])
        scale, offset = self._preprocessing.scale, self._preprocessing.offset
        return x * ops.array(scale, "float32") + ops.array(offset, "float32")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(batch, height, width, channels) of the network's input."""
        return (input_shape[0], *self._preprocessing.input_shape)


def _interpolate(x: Any, axis: int, new: int) -> Any:
    """`(1 - f) x[lower] + f x[upper]` along one axis, element by element: a matrix product may round to less than float32."""
    from keras_resnet.data.preprocess import bilinear_taps

    if x.shape[axis] == new:
        return x
    lower, upper, fraction = bilinear_taps(x.shape[axis], new)
    low, high = keras.ops.take(x, lower, axis=axis), keras.ops.take(x, upper, axis=axis)
    shape = [1] * 4
    shape[axis] = new
    return low + (high - low) * keras.ops.reshape(keras.ops.array(fraction), shape)
