"""RandAugment: every image goes through operations of its own, drawn from one list.

Cubuk et al. 2020, RandAugment: Practical automated data augmentation with a reduced search space. Operations,
ranges and their Pillow definitions are torchvision's `RandAugment`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_resnet.data.augment import tone
from keras_resnet.data.augment.geometry import transform
from keras_resnet.data.augment.groups import by_kind

GREATEST_MAGNITUDE = 10.0
# What an operation does at the greatest magnitude. The first seven go either way.
GREATEST_SHEAR = 0.3  # columns per row
GREATEST_TRANSLATION = 150 / 331  # of the side
GREATEST_ANGLE = math.radians(30)
GREATEST_FACTOR = 0.9  # brightness, colour, contrast and sharpness: 1 - 0.9 to 1 + 0.9
GREATEST_BITS = 4  # that posterize takes away
# Solarize inverts values from 256 on, which are none, down to all of them.


def random_augment(images: Any, operations: int, magnitude: float, magnitude_std: float, seed: Any) -> tf.Tensor:
    """`op_n(... op_1(image))`: `operations` operations for each image, drawn with replacement.

    Args:
        images: (batch, height, width, channels) pixels from 0 to 255, uint8, or float32, which is rounded.
        operations: for each image.
        magnitude: 0, where nothing but autocontrast and equalize changes an image, to 10.
        magnitude_std: of the normal noise on the magnitude of each operation of each image.
        seed: int64 (2,).

    Returns:
        uint8 of the same shape.
    """
    images = tf.convert_to_tensor(images)
    if images.dtype != tf.uint8:
        images = tf.cast(tf.round(tf.clip_by_value(images, 0.0, 255.0)), tf.uint8)
    batch = [tf.shape(images)[0]]
    for round_seed in tf.unstack(tf.random.split(seed, operations)):
        which, noise, sign = tf.unstack(tf.random.split(round_seed, 3))
        operation = tf.random.stateless_uniform(batch, which, 0, len(OPERATIONS), tf.int32)
        own = magnitude + magnitude_std * tf.random.stateless_normal(batch, noise)
        strength = tf.clip_by_value(own / GREATEST_MAGNITUDE, 0.0, 1.0)
        strength = tf.where(tf.random.stateless_uniform(batch, sign) < 0.5, -strength, strength)
        images = apply_operations(images, operation, strength)
    return images


def apply_operations(images: tf.Tensor, operation: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """`OPERATIONS[operation[i]](image i, strength[i])`.

    Args:
        images: uint8 (batch, height, width, channels).
        operation: int32 (batch,), numbers in `OPERATIONS`.
        strength: float32 (batch,) from -1 to 1; the sign is the way to go, where there are two.
    """
    kernels = list(dict.fromkeys(_KERNELS.values()))
    kernel_of = tf.constant([kernels.index(_KERNELS[name]) for name in OPERATIONS])
    return by_kind(tf.gather(kernel_of, operation), kernels, images, operation, strength)


def _move(images: tf.Tensor, operation: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Shears about the first pixel's corner, translations by whole pixels, rotations about the middle, as Pillow."""
    height, width = images.shape[1:3]

    def of(name: str, value: Any) -> tf.Tensor:
        return tf.where(operation == OPERATIONS.index(name), value, 0.0)

    angle = of("rotate", strength * GREATEST_ANGLE)
    cos, sin = tf.cos(angle), tf.sin(angle)
    right = of("translate_x", tf.round(strength * GREATEST_TRANSLATION * width))
    down = of("translate_y", tf.round(strength * GREATEST_TRANSLATION * height))
    x, y = width / 2, height / 2
    matrices = [
        *(cos, sin + of("shear_x", strength * GREATEST_SHEAR), x - cos * x - sin * y - right),
        *(of("shear_y", strength * GREATEST_SHEAR) - sin, cos, y + sin * x - cos * y - down),
    ]
    return transform(images, tf.stack(matrices, 1))


def _factors(strength: tf.Tensor) -> tf.Tensor:
    return 1.0 + GREATEST_FACTOR * strength


# Images of one kernel are treated together, so the geometric operations share one.
_KERNELS: dict[str, Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "identity": lambda images, _, strength: images,
    **dict.fromkeys(("shear_x", "shear_y", "translate_x", "translate_y", "rotate"), _move),
    "brightness": lambda images, _, strength: tone.brighten(images, _factors(strength)),
    "color": lambda images, _, strength: tone.saturate(images, _factors(strength)),
    "contrast": lambda images, _, strength: tone.add_contrast(images, _factors(strength)),
    "sharpness": lambda images, _, strength: tone.sharpen(images, _factors(strength)),
    "posterize": lambda images, _, strength: tone.posterize(images, tf.round(8 - GREATEST_BITS * tf.abs(strength))),
    "solarize": lambda images, _, strength: tone.solarize(images, 256 * (1 - tf.abs(strength))),
    "autocontrast": lambda images, _, strength: tone.autocontrast(images),
    "equalize": lambda images, _, strength: tone.equalize(images),
}
OPERATIONS = tuple(_KERNELS)
