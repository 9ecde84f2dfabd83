"""Resized crops: a random part of each image, of random area and aspect ratio, stretched to the network's size."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from keras_resnet.data.preprocess import check_shape, decode, is_jpeg

ASPECT_RATIOS = (3 / 4, 4 / 3)  # least and greatest width / height of a crop, as in torchvision's RandomResizedCrop
_JPEG_BLOCK = 16  # pixels that JPEG encodes as one, across, with halved colour


def draw_numbers(batch: Any, seed: Any) -> tf.Tensor:
    """Draws, by one stateless seed, the four numbers that decide the crop of each image: float32 (batch, 4) in [0, 1)."""
    return tf.random.stateless_uniform((batch, 4), seed)


def crop_window(height: Any, width: Any, numbers: Any, area: tuple[float, float]) -> tuple[tf.Tensor, ...]:
    """`(top, left, crop height, crop width)`, int32 in pixels: uniform area, log-uniform aspect, uniform place.

    Szegedy et al. 2015, Going Deeper with Convolutions, section 6. Where a side would be longer than the image's it
    is the image's (torchvision draws again instead); it is at least one pixel.

    Args:
        height: of the images, int32, a scalar or (batch,).
        width: the same.
        numbers: (4,) or (batch, 4) of `draw_numbers`.
        area: least and greatest share of the image's area.
    """
    share, aspect, down, right = tf.unstack(numbers, axis=-1)
    height, width = tf.cast(height, tf.int32), tf.cast(width, tf.int32)
    pixels = tf.cast(height, tf.float32) * tf.cast(width, tf.float32) * (area[0] + share * (area[1] - area[0]))
    low, high = map(math.log, ASPECT_RATIOS)
    ratio = tf.exp(low + aspect * (high - low))

    def fit(side: tf.Tensor, limit: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(tf.cast(tf.round(side), tf.int32), 1, limit)

    def place(number: tf.Tensor, free: tf.Tensor) -> tf.Tensor:
        return tf.minimum(tf.cast(number * tf.cast(free + 1, tf.float32), tf.int32), free)

    crop_height, crop_width = fit(tf.sqrt(pixels / ratio), height), fit(tf.sqrt(pixels * ratio), width)
    return place(down, height - crop_height), place(right, width - crop_width), crop_height, crop_width


def crop_encoded(
    encoded: Any, numbers: Any, area: tuple[float, float], size: tuple[int, int], channels: int, *, known: bool = False
) -> tf.Tensor:
    """One PNG or JPEG to float32 (height, width, channels), 0-255: of a JPEG only the window is decoded.

    Args:
        encoded: the bytes.
        numbers: (4,) of `draw_numbers`.
        area: least and greatest share of the image's area.
        size: (height, width) of the result.
        channels: 1 or 3.
        known: whether the image is known to be a JPEG, which saves a branch.

    Raises:
        tf.errors.InvalidArgumentError: as `decode`.
    """

    def jpeg() -> tf.Tensor:
        shape = tf.image.extract_jpeg_shape(encoded)
        contents = check_shape(encoded, shape)
        top, left, height, width = crop_window(shape[0], shape[1], numbers, area)
        # The window begins with the block that holds its left border: libjpeg's rows begin at a block, and where a window
        # does not, TensorFlow copies each of them.
        more = left % _JPEG_BLOCK
        window = tf.stack([top, left - more, height, width + more])
        return tf.io.decode_and_crop_jpeg(contents, window, channels=channels)[:, more:]

    def other() -> tf.Tensor:
        pixels = decode(encoded, channels)
        shape = tf.shape(pixels)
        top, left, height, width = crop_window(shape[0], shape[1], numbers, area)
        return pixels[top : top + height, left : left + width]

    pixels = tf.ensure_shape(jpeg() if known else tf.cond(is_jpeg(encoded), jpeg, other), (None, None, channels))
    # To float32 first: the operation would convert each byte every time that it reads it.
    return tf.image.resize(tf.cast(pixels, tf.float32), size, method="bilinear")


def crop_batch(images: Any, numbers: Any, area: tuple[float, float], size: tuple[int, int]) -> tf.Tensor:
    """`resize(crop(image))` for each image: (batch, height, width, channels) to float32 (batch, *size, channels).

    The result is that of `crop_encoded`, but that bilinear weights at the border of a crop reach one pixel beyond it.
    """
    images = tf.convert_to_tensor(images)
    height, width = images.shape[1:3]
    top, left, crop_height, crop_width = (
        tf.cast(value, tf.float32) for value in crop_window(height, width, numbers, area)
    )
    # One more pixel of each border, repeated, so that no weight falls outside.
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="SYMMETRIC")

    def ends(start: tf.Tensor, length: tf.Tensor, new: int, old: int) -> tuple[tf.Tensor, tf.Tensor]:
        # The operation puts its first and last samples onto the ends of a box; ours lie half a step within.
        half = 0.5 * length / new
        return (start + 0.5 + half) / (old + 1), (start + 0.5 + length - half) / (old + 1)

    (y1, y2), (x1, x2) = ends(top, crop_height, size[0], height), ends(left, crop_width, size[1], width)
    boxes = tf.stack([y1, x1, y2, x2], axis=1)
    cropped = tf.image.crop_and_resize(padded, boxes, tf.range(tf.shape(images)[0]), size)
    return tf.ensure_shape(cropped, [images.shape[0], *size, images.shape[-1]])
