"""Where a pixel comes from: shifts and mirror images of whole batches."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def random_flip(images: tf.Tensor, seed: Any) -> tf.Tensor:
    """`image` or `image[:, ::-1]`, each for half of the images: (batch, height, width, channels) to the same."""
    flip = tf.random.stateless_uniform([tf.shape(images)[0]], seed) < 0.5
    return tf.where(flip[:, None, None, None], images[:, :, ::-1], images)


def random_shift(images: tf.Tensor, fraction: float, seed: Any) -> tf.Tensor:
    """`crop(pad(image))`: shifts each image by up to `fraction` of its height and width; zeros move in.

    (batch, height, width, channels), static height and width, to the same shape and type.
    """
    height, width = images.shape[1:3]
    rows, columns = round(height * fraction), round(width * fraction)
    padded = tf.pad(images, [[0, 0], [rows, rows], [columns, columns], [0, 0]])
    batch = tf.shape(images)[0]
    seeds = tf.random.split(seed, 2)  # rows and columns move independently
    top = tf.random.stateless_uniform([batch, 1], seeds[0], 0, 2 * rows + 1, tf.int32)
    left = tf.random.stateless_uniform([batch, 1], seeds[1], 0, 2 * columns + 1, tf.int32)
    padded = tf.gather(padded, top + tf.range(height), axis=1, batch_dims=1)
    shifted = tf.gather(padded, left + tf.range(width), axis=2, batch_dims=1)
    return tf.ensure_shape(shifted, images.shape)
