"""Random changes of whole batches, each image with draws of its own from one stateless seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_resnet.data.augment.geometry import random_flip, random_shift
from keras_resnet.data.augment.labels import smooth
from keras_resnet.errors import InputError
from keras_resnet.recipes import Augmentation

Augment = Callable[[Any, Any, Any], tuple[tf.Tensor, tf.Tensor]]


def make_augment(augmentation: Augmentation, *, classes: int | None = None) -> Augment:
    """`(images, labels, seed) -> (images, labels)`: the augmentation of a batch, a function of its arguments alone.

    Images are (batch, height, width, channels) of static height, width and channels, uint8 or float32 pixels from 0
    to 255, and stay so. Labels int64 (batch,) stay so, or become float32 (batch, classes) that sum to 1 where
    `augmentation.soft_labels`. The seed is int64 (2,). `resized_crop` is not done here but where images are decoded.

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
        # One stream for each kind of change, so that switching one on leaves the draws of the others.
        seeds = iter(tf.unstack(tf.random.split(seed, 8)))
        shift, flip, *_ = seeds
        if augmentation.shift_fraction:
            images = random_shift(images, augmentation.shift_fraction, shift)
        if augmentation.horizontal_flip:
            images = random_flip(images, flip)
        if augmentation.soft_labels:
            labels = smooth(tf.one_hot(labels, classes), augmentation.label_smoothing)
        return images, labels

    return augment
