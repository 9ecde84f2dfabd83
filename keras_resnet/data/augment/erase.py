"""Rectangles of whole batches, each image with its own: what is in them is erased or taken from elsewhere."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

# Random erasing as in its paper (Zhong et al. 2020, algorithm 1, table 4): share of the area, height / width.
ERASED_AREA = (0.02, 0.4)
ERASED_ASPECT = (0.3, 1 / 0.3)


def random_cutout(images: Any, fraction: float, seed: Any) -> tf.Tensor:
    """`image` with a square of zeros; its middle is anywhere, so that part of it may lie outside.

    DeVries and Taylor 2017, Improved regularization of convolutional neural networks with cutout.

    Args:
        images: (batch, height, width, channels) of any type; the result has it too.
        fraction: side of the square, part of the shorter side.
        seed: int64 (2,).
    """
    images = tf.convert_to_tensor(images)
    side = tf.fill([tf.shape(images)[0]], max(round(fraction * min(images.shape[1:3])), 1))
    return erase(images, centred_boxes(images, side, side, seed))


def random_erasing(images: Any, probability: float, seed: Any) -> tf.Tensor:
    """`image` with a rectangle of noise, uniform in 0 ... 255, in a share `probability` of the images.

    (batch, height, width, channels) uint8 or float32 to the same; seed int64 (2,).
    """
    images = tf.convert_to_tensor(images)
    batch, (height, width) = tf.shape(images)[0], images.shape[1:3]
    coin, area, aspect, place, noise = tf.unstack(tf.random.split(seed, 5))
    share = tf.random.stateless_uniform([batch], area, *ERASED_AREA)
    ratio = tf.exp(tf.random.stateless_uniform([batch], aspect, *map(math.log, ERASED_ASPECT)))
    high = tf.sqrt(share * height * width * ratio)
    wide = high / ratio
    # The paper draws again where the rectangle does not fit; here it becomes as long as the side.
    rows = tf.clip_by_value(tf.cast(tf.round(high), tf.int32), 1, height)
    columns = tf.clip_by_value(tf.cast(tf.round(wide), tf.int32), 1, width)
    chosen = tf.cast(tf.random.stateless_uniform([batch], coin) < probability, tf.int32)
    boxes = inner_boxes(images, rows * chosen, columns, place)
    return erase(images, boxes, _noise(images, noise))


def centred_boxes(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor, seed: Any) -> tf.Tensor:
    """(top, bottom, left, right), int32 (batch, 4): boxes whose middle is any pixel, cut at the border."""
    batch, (height, width) = tf.shape(images)[0], images.shape[1:3]
    seeds = tf.random.split(seed, 2)
    top = tf.random.stateless_uniform([batch], seeds[0], 0, height, tf.int32) - rows // 2
    left = tf.random.stateless_uniform([batch], seeds[1], 0, width, tf.int32) - columns // 2
    return tf.stack(
        [tf.maximum(top, 0), tf.minimum(top + rows, height), tf.maximum(left, 0), tf.minimum(left + columns, width)], 1
    )


def inner_boxes(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor, seed: Any) -> tf.Tensor:
    """(top, bottom, left, right), int32 (batch, 4): boxes anywhere within the image."""
    batch, (height, width) = tf.shape(images)[0], images.shape[1:3]
    seeds = tf.random.split(seed, 2)

    def draw(seed: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
        # Below 1 but so near that the product with many places may be rounded up to their number.
        places = tf.random.stateless_uniform([batch], seed) * tf.cast(room + 1, tf.float32)
        return tf.minimum(tf.cast(places, tf.int32), room)

    top, left = draw(seeds[0], height - rows), draw(seeds[1], width - columns)
    return tf.stack([top, top + rows, left, left + columns], 1)


def erase(images: tf.Tensor, boxes: tf.Tensor, replacement: tf.Tensor | None = None) -> tf.Tensor:
    """`image` outside of its box, zeros or `replacement` within: of any type, to the same shape and type."""
    batch, (height, width, channels) = tf.shape(images)[0], images.shape[1:]
    top, bottom, left, right = tf.unstack(boxes[..., None], axis=1)
    rows, columns = tf.range(height), tf.range(width)
    in_rows = (top <= rows) & (rows < bottom)
    in_columns = (left <= columns) & (columns < right)
    # Channels are laid beside columns: to spread a mask over a last axis of three is many times slower.
    in_columns = tf.repeat(in_columns, channels, axis=1)
    inside = tf.cast(in_rows, images.dtype)[:, :, None] * tf.cast(in_columns, images.dtype)[:, None, :]
    lines = tf.reshape(images, [batch, height, width * channels])
    kept = lines * (1 - inside)
    if replacement is not None:
        kept += tf.reshape(replacement, [batch, height, width * channels]) * inside
    return tf.ensure_shape(tf.reshape(kept, tf.shape(images)), images.shape)


def _noise(images: tf.Tensor, seed: Any) -> tf.Tensor:
    """Uniform in 0 ... 255, of the images' shape and type: four bytes of each random word."""
    size = tf.size(images)
    words = tf.random.stateless_uniform([(size + 3) // 4], seed, None, None, tf.int32)
    values = tf.reshape(tf.bitcast(words, tf.uint8), [-1])[:size]
    return tf.cast(tf.reshape(values, tf.shape(images)), images.dtype)
