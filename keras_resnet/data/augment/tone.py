"""What becomes of a pixel's value: blends and tables, each image by its own, as Pillow defines them."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_LEVELS = 256


def blend(degenerate: Any, images: Any, factors: Any) -> tf.Tensor:
    """`clip(degenerate + factor * (image - degenerate))`, cut to integers: Pillow's `Image.blend`.

    (batch, height, width, channels) uint8, factors float32 (batch,); the degenerate image, uint8, broadcasts.
    """
    degenerate, images = tf.cast(degenerate, tf.float32), tf.cast(images, tf.float32)
    blended = degenerate + tf.reshape(factors, [-1, 1, 1, 1]) * (images - degenerate)
    return tf.cast(tf.clip_by_value(blended, 0.0, 255.0), tf.uint8)


def to_gray(images: Any) -> tf.Tensor:
    """Pillow's luma, rounded, of (..., 3) uint8 to int32 (...,); other numbers of channels by their mean, cut."""
    values = tf.cast(images, tf.int32)
    if images.shape[-1] != 3:
        return tf.reduce_sum(values, -1) // images.shape[-1]
    red, green, blue = tf.unstack(values, axis=-1)
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) // 65536


def saturate(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """`blend(gray, image)`: Pillow's `ImageEnhance.Color`. Only three channels have a saturation: others stay."""
    if images.shape[-1] != 3:
        return images
    return blend(to_gray(images)[..., None], images, factors)


def sharpen(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """`blend(smooth, image)`: Pillow's `ImageEnhance.Sharpness`; its smooth image has the border of the image."""
    height, width = images.shape[1:3]
    if min(height, width) < 3:
        return images  # nothing but border
    values = tf.cast(images, tf.float32)
    rows = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    box = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = values[:, 1:-1, 1:-1]
    smooth = tf.floor((box + 4 * inner) / 13 + 0.5)
    factors = tf.reshape(factors, [-1, 1, 1, 1])
    inner = tf.cast(tf.clip_by_value(smooth + factors * (inner - smooth), 0.0, 255.0), tf.uint8)
    middle = tf.concat([images[:, 1:-1, :1], inner, images[:, 1:-1, -1:]], 2)
    return tf.concat([images[:, :1], middle, images[:, -1:]], 1)


def brighten(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """`blend(black, image)`: Pillow's `ImageEnhance.Brightness`."""
    return blend(0, images, factors)


def add_contrast(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """`blend(mean gray, image)`: Pillow's `ImageEnhance.Contrast`."""
    total = tf.reduce_sum(tf.cast(to_gray(images), tf.int64), [1, 2])
    pixels = images.shape[1] * images.shape[2]
    mean = (2 * total + pixels) // (2 * pixels)  # rounded, halves up
    return blend(tf.reshape(mean, [-1, 1, 1, 1]), images, factors)


def posterize(images: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keeps the first `bits` bits, 0 to 8, of each value: Pillow's `ImageOps.posterize`."""
    dropped = tf.bitwise.left_shift(1, 8 - tf.cast(bits, tf.int32)) - 1
    return tf.bitwise.bitwise_and(images, tf.reshape(tf.cast(255 - dropped, tf.uint8), [-1, 1, 1, 1]))


def solarize(images: tf.Tensor, thresholds: tf.Tensor) -> tf.Tensor:
    """`value` below the threshold, `255 - value` from there on: Pillow's `ImageOps.solarize`."""
    inverted = tf.cast(tf.cast(images, tf.float32) >= tf.reshape(thresholds, [-1, 1, 1, 1]), tf.uint8) * 255
    return tf.bitwise.bitwise_xor(images, inverted)


def autocontrast(images: tf.Tensor) -> tf.Tensor:
    """Each channel stretched to 0 ... 255: Pillow's `ImageOps.autocontrast`."""
    low = tf.cast(tf.reduce_min(images, [1, 2]), tf.float64)[..., None]
    high = tf.cast(tf.reduce_max(images, [1, 2]), tf.float64)[..., None]
    levels = tf.range(_LEVELS, dtype=tf.float64)
    scale = 255.0 / tf.maximum(high - low, 1.0)  # in Pillow's order and precision, which decide what is cut to what
    stretched = tf.clip_by_value(levels * scale - low * scale, 0.0, 255.0)
    return _look_up(images, tf.where(high > low, stretched, levels))


def equalize(images: tf.Tensor) -> tf.Tensor:
    """Each channel with an even histogram: Pillow's `ImageOps.equalize`."""
    batch, (height, width, channels) = tf.shape(images)[0], images.shape[1:]
    bins = batch * channels * _LEVELS
    counts = tf.math.bincount(tf.reshape(_places(images), [-1]), minlength=bins, maxlength=bins)
    counts = tf.reshape(counts, [batch, channels, _LEVELS])
    last = tf.cast(tf.reduce_max(images, [1, 2]), tf.int32)  # the highest value that there is
    of_last = tf.gather(counts, last, axis=2, batch_dims=2)[..., None]
    step = (height * width - of_last) // 255
    even = (step // 2 + tf.cumsum(counts, axis=2, exclusive=True)) // tf.maximum(step, 1)
    return _look_up(images, tf.where(step > 0, tf.minimum(even, 255), tf.range(_LEVELS)))


def _look_up(images: tf.Tensor, tables: tf.Tensor) -> tf.Tensor:
    """`tables[i, channel, pixel]`: uint8 (batch, height, width, channels) through (batch, channels, 256)."""
    return tf.gather(tf.reshape(tf.cast(tables, tf.uint8), [-1]), _places(images))


def _places(images: tf.Tensor) -> tf.Tensor:
    """`(i * channels + channel) * 256 + pixel`: where each value is in tables laid end to end."""
    batch, channels = tf.shape(images)[0], images.shape[-1]
    start = tf.range(batch * channels) * _LEVELS
    return tf.cast(images, tf.int32) + tf.reshape(start, [batch, 1, 1, channels])
