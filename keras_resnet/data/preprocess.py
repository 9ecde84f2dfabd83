"""Decode, resize with pad, normalise: the same graph in training, prediction and serving."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.errors import InputError
from keras_resnet.recipes import Preprocessing

MAX_PIXELS = 64_000_000  # of an encoded image: what it takes in memory when decoded is three times as many bytes

_PNG_START, _JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


def decode(encoded: Any, channels: int, *, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """`uint8 pixels` of one PNG or JPEG: a scalar string to (height, width, channels).

    Colour becomes gray where `channels` is 1 and gray becomes colour where it is 3; an alpha channel is dropped.

    Args:
        encoded: the bytes of the file.
        channels: 1 or 3.
        max_pixels: height times width above which an image is refused.

    Raises:
        tf.errors.InvalidArgumentError: not a PNG or JPEG (a GIF would lose all pictures but one), a JPEG in CMYK, whose
            colours TensorFlow can only guess, too large, or broken.
    """
    is_jpeg = _is_jpeg(encoded)
    is_png = tf.equal(tf.strings.substr(encoded, 0, len(_PNG_START)), _PNG_START)
    height, width, components = tf.unstack(read_shape(encoded))  # before anything is decoded
    checks = (
        tf.debugging.Assert(is_jpeg | is_png, ["An image must be a PNG or JPEG. Received bytes of neither."]),
        tf.debugging.Assert(components <= 3, ["A JPEG must be in gray or RGB colours. Received: CMYK."]),
        tf.debugging.Assert(
            height * width <= max_pixels,
            [f"An image must have at most {max_pixels:,} pixels. Received, height and width:", height, width],
        ),
    )
    with tf.control_dependencies([check for check in checks if check is not None]):  # None outside a graph
        encoded = tf.identity(encoded)
    return tf.io.decode_image(encoded, channels=channels, dtype=tf.uint8, expand_animations=False)


def read_shape(encoded: Any) -> tf.Tensor:
    """(height, width, components) int64 from the header of a PNG (components 1) or JPEG; meaningless for other bytes."""
    return tf.cond(
        _is_jpeg(encoded),
        lambda: tf.cast(tf.image.extract_jpeg_shape(encoded), tf.int64),
        lambda: _png_shape(encoded),
    )


def _is_jpeg(encoded: Any) -> tf.Tensor:
    return tf.equal(tf.strings.substr(encoded, 0, len(_JPEG_START)), _JPEG_START)


def _png_shape(encoded: Any) -> tf.Tensor:
    """(height, width, 1) from where a PNG has them; meaningless for other bytes."""
    start = tf.strings.join([tf.strings.substr(encoded, 0, 24), b"\0" * 24])  # so that short ones are long enough
    numbers = tf.cast(tf.io.decode_raw(tf.strings.substr(start, 16, 8), tf.uint8), tf.int64)
    width, height = tf.unstack(tf.reduce_sum(tf.reshape(numbers, (2, 4)) * [1 << 24, 1 << 16, 1 << 8, 1], axis=1))
    return tf.stack([height, width, tf.constant(1, tf.int64)])


def fitted_size(sides: Any, targets: Any) -> tuple[Any, Any]:
    """`max(1, floor(sides * min(targets / sides)))`, and how many pixels go in front of each side to centre it.

    In integers, for (height, width) as a NumPy array or an int64 tensor: `tf.image.resize_with_pad` divides in float32 and
    loses a pixel where the quotient falls just below an integer (32 to 224 comes out as 223 and a black line). On vectors,
    because at batch 1 a small network's time is that of the operations around it.
    """
    xp = tf if tf.is_tensor(sides) else np
    others, scaled = sides[::-1], sides * targets[::-1]
    # The scaled side, where the other one decides the scale; else this is at least the target.
    new = xp.minimum(targets, xp.maximum(scaled // others, 1))
    return new, xp.maximum((targets * others - scaled) // (2 * others), 0)


def resize_with_pad(images: Any, height: int, width: int) -> tf.Tensor:
    """`pad(bilinear(images))`: scales to the largest size that fits, keeps the shape, centres it on zeros.

    Equal to `tf.image.resize_with_pad`, except where that loses a pixel to float rounding (see `fitted_size`).

    Args:
        images: (height, width, channels) or (batch, height, width, channels), any real type, any size.
        height: of the result, in pixels.
        width: of the result, in pixels.

    Returns:
        float32 of the same rank, in the units of the input.
    """
    if height < 1 or width < 1:
        raise InputError(
            f"resize_with_pad needs a height and a width of at least 1 pixel. Received: {height}, {width}."
        )
    images = tf.convert_to_tensor(images)
    if images.shape.rank not in (3, 4):
        raise InputError(
            "resize_with_pad takes (height, width, channels) or (batch, height, width, channels). "
            f"Received: shape {tuple(images.shape)}."
        )
    spatial = images.shape[-3:-1]
    is_known = spatial.is_fully_defined()
    if is_known:
        if 0 in spatial:
            raise InputError(
                f"resize_with_pad needs images of at least 1x1 pixel. Received: shape {tuple(images.shape)}."
            )
        if tuple(spatial) == (height, width):
            return tf.cast(images, tf.float32)
    sides = np.array(spatial, np.int64) if is_known else tf.shape(images, out_type=tf.int64)[-3:-1]
    targets = np.array([height, width], np.int64)
    new, before = fitted_size(sides, targets)
    resized = tf.image.resize(images, tf.cast(new, tf.int32), method="bilinear")
    margins = tf.stack([before, targets - new - before], axis=1)
    padded = tf.pad(tf.cast(resized, tf.float32), tf.pad(margins, [[images.shape.rank - 3, 1], [0, 0]]))
    return tf.ensure_shape(padded, [*images.shape[:-3], height, width, images.shape[-1]])


def normalise(images: Any, preprocessing: Preprocessing) -> tf.Tensor:
    """`(images / 255 - mean) / std` per channel, float32: (..., channels) of pixel values 0-255 to the same shape."""
    # One multiply-add per value: the constants are folded in float64.
    scale, offset = tf.constant(preprocessing.scale, tf.float32), tf.constant(preprocessing.offset, tf.float32)
    return tf.cast(images, tf.float32) * scale + offset


def preprocess(images: Any, preprocessing: Preprocessing) -> tf.Tensor:
    """`normalise(resize_with_pad(images))`: one image or a batch of pixels 0-255 to the network's input."""
    return normalise(resize_with_pad(images, *preprocessing.image_size_pixels), preprocessing)
