"""What becomes of a pixel's value: per-image tables and blends, as Pillow defines them."""

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


def look_up(images: tf.Tensor, tables: tf.Tensor) -> tf.Tensor:
    """`tables[i, channel, pixel]`: uint8 (batch, height, width, channels) through uint8 (batch, channels, 256)."""
    batch, channels = tf.shape(images)[0], images.shape[-1]
    start = tf.range(batch * channels) * _LEVELS
    index = tf.cast(images, tf.int32) + tf.reshape(start, [batch, 1, 1, channels])
    return tf.gather(tf.reshape(tables, [-1]), index)


def contrast_tables(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Tables of `blend(mean gray, image)`: Pillow's `ImageEnhance.Contrast`."""
    gray = to_gray(images)
    pixels = tf.size(gray[0], tf.int64)
    total = tf.reduce_sum(tf.cast(gray, tf.int64), [1, 2])
    mean = (2 * total + pixels) // (2 * pixels)  # rounded, halves up
    return _blend_tables(tf.cast(mean, tf.float32), factors, images.shape[-1])


def brightness_tables(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Tables of `blend(black, image)`: Pillow's `ImageEnhance.Brightness`."""
    return _blend_tables(tf.zeros_like(factors), factors, images.shape[-1])


def posterize_tables(images: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Tables that keep the first `bits` bits, 0 to 8: Pillow's `ImageOps.posterize`."""
    step = tf.bitwise.left_shift(1, 8 - tf.cast(bits, tf.int32))[:, None]
    return _for_each_channel(tf.range(_LEVELS) // step * step, images.shape[-1])


def solarize_tables(images: tf.Tensor, thresholds: tf.Tensor) -> tf.Tensor:
    """Tables that invert values from the threshold on: Pillow's `ImageOps.solarize`."""
    levels = tf.range(_LEVELS)
    inverted = tf.where(tf.cast(levels, tf.float32) < thresholds[:, None], levels, 255 - levels)
    return _for_each_channel(inverted, images.shape[-1])


def autocontrast_tables(images: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    """Tables that stretch each channel to 0 ... 255: Pillow's `ImageOps.autocontrast`."""
    low = tf.cast(tf.reduce_min(images, [1, 2]), tf.float64)[..., None]
    high = tf.cast(tf.reduce_max(images, [1, 2]), tf.float64)[..., None]
    levels = tf.range(_LEVELS, dtype=tf.float64)
    scale = 255.0 / tf.maximum(high - low, 1.0)  # in Pillow's order and precision, which decide what is cut to what
    stretched = tf.clip_by_value(levels * scale - low * scale, 0.0, 255.0)
    return tf.cast(tf.where(high > low, stretched, levels), tf.uint8)


def equalize_tables(images: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    """Tables that make each channel's histogram even: Pillow's `ImageOps.equalize`."""
    batch, height, width, channels = tf.shape(images)[0], *images.shape[1:]
    start = tf.reshape(tf.range(batch * channels) * _LEVELS, [batch, 1, 1, channels])
    bins = batch * channels * _LEVELS
    index = tf.reshape(tf.cast(images, tf.int32) + start, [-1])
    counts = tf.reshape(tf.math.bincount(index, minlength=bins, maxlength=bins), [batch, channels, _LEVELS])
    last = tf.reduce_max(images, [1, 2])  # the highest value that there is
    of_last = tf.gather(counts, tf.cast(last, tf.int32), axis=2, batch_dims=2)[..., None]
    step = (height * width - of_last) // 255
    even = (step // 2 + tf.cumsum(counts, axis=2, exclusive=True)) // tf.maximum(step, 1)
    return tf.cast(tf.where(step > 0, tf.minimum(even, 255), tf.range(_LEVELS)), tf.uint8)


def _blend_tables(degenerate: tf.Tensor, factors: tf.Tensor, channels: int) -> tf.Tensor:
    levels, degenerate = tf.range(_LEVELS, dtype=tf.float32), degenerate[:, None]
    blended = tf.clip_by_value(degenerate + factors[:, None] * (levels - degenerate), 0.0, 255.0)
    return _for_each_channel(blended, channels)


def _for_each_channel(tables: tf.Tensor, channels: int) -> tf.Tensor:
    return tf.tile(tf.cast(tables, tf.uint8)[:, None], [1, channels, 1])
