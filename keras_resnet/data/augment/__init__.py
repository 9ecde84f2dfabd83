"""Random changes of whole batches, each image with draws of its own from one stateless seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_resnet.data.augment.erase import random_cutout, random_erasing
from keras_resnet.data.augment.geometry import draw_flips, draw_shifts, shift_and_flip
from keras_resnet.data.augment.jitter import random_jitter
from keras_resnet.data.augment.mixing import random_mix, smooth
from keras_resnet.data.augment.randaugment import random_augment
from keras_resnet.errors import InputError
from keras_resnet.recipes import Augmentation

Augment = Callable[[Any, Any, Any], tuple[tf.Tensor, tf.Tensor]]


def make_augment(augmentation: Augmentation, *, classes: int | None = None) -> Augment:
    """`(images, labels, seed) -> (images, labels)`: the augmentation of a batch, a function of its arguments alone.

    Images are (batch, height, width, channels) of static height, width and channels, uint8 or float32 pixels from 0
    to 255, and come out as either of the two: uint8 is kept as long as can be, which is fastest. Labels int64
    (batch,) stay so, or become float32 (batch, classes) that sum to 1 where `augmentation.soft_labels`. The seed is
    int64 (2,). `resized_crop` is not done here but where images are decoded.

    Args:
        augmentation: what is done, in the order of its fields.
        classes: how many there are; needed for soft labels only.

    Raises:
        InputError: soft labels without `classes`.
    """
    if augmentation.soft_labels and (classes is None or classes < 2):
        raise InputError(
            "Mixup, cutmix and label smoothing need classes, the number of classes, of at least 2. "
            f"Received: {classes!r}."
        )

    def augment(images: Any, labels: Any, seed: Any) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = tf.convert_to_tensor(images), tf.convert_to_tensor(labels)
        shape = images.shape
        shift, flip, operations, jitter, cutout, erasing, mixing = _split(seed)
        if augmentation.shift_fraction or augmentation.horizontal_flip:
            images = shift_and_flip(
                images,
                draw_shifts(images, augmentation.shift_fraction, shift) if augmentation.shift_fraction else None,
                draw_flips(images, flip) if augmentation.horizontal_flip else None,
            )
        if augmentation.randaugment_ops:
            images = random_augment(
                images,
                augmentation.randaugment_ops,
                augmentation.randaugment_magnitude,
                augmentation.randaugment_magnitude_std,
                operations,
            )
        strengths = (augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue)
        if any(strengths):
            images = random_jitter(images, *strengths, jitter)
        if augmentation.cutout_fraction:
            images = random_cutout(images, augmentation.cutout_fraction, cutout)
        if augmentation.erasing_probability:
            images = random_erasing(images, augmentation.erasing_probability, erasing)
        if augmentation.soft_labels:
            labels = smooth(tf.one_hot(labels, classes), augmentation.label_smoothing)
        if augmentation.mixup_alpha or augmentation.cutmix_alpha:
            images, labels = random_mix(images, labels, augmentation.mixup_alpha, augmentation.cutmix_alpha, mixing)
        return tf.ensure_shape(images, shape), labels

    # There is no Python control flow over tensors in it: converting it would only make tracing several times slower.
    return tf.autograph.experimental.do_not_convert(augment)


def draw_mirrored(images: Any, seed: Any) -> tf.Tensor:
    """Draws which images of a batch `horizontal_flip` mirrors, for where they are mirrored one by one: bool (batch,).

    Args:
        images: (batch, ...), of any kind.
        seed: of the batch, as `make_augment`'s function takes it.
    """
    return draw_flips(images, _split(seed)[1])


def _split(seed: Any) -> list[tf.Tensor]:
    """One stream for each kind of change, so that switching one on leaves the draws of the others."""
    return tf.unstack(tf.random.split(seed, 7))
