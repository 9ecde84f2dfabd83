"""What is made of a batch of stored images: decoded, cropped, augmented, at the network's size, normalized."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from keras_resnet import seeds
from keras_resnet.data import crop
from keras_resnet.data.augment import draw_mirrored, make_augment
from keras_resnet.data.preprocess import decode, normalize, normalize_lines, preprocess, resize_with_pad
from keras_resnet.data.stores import EncodedStore, Store
from keras_resnet.errors import InputError
from keras_resnet.inputs import PREPARE_ON, Preprocessing
from keras_resnet.recipes import NO_AUGMENTATION, Augmentation
from keras_resnet.records import check_choice


@dataclass(frozen=True)
class Preparation:
    """What is done to the images and labels of a batch, and where it ends."""

    preprocessing: Preprocessing
    prepare_on: str = "host"  # "device": batches are uint8, for a network that finishes them
    augmentation: Augmentation = NO_AUGMENTATION
    classes: int | None = None  # how many there are, for soft labels

    def __post_init__(self) -> None:
        check_choice("prepare_on", self.prepare_on, PREPARE_ON)

    @property
    def on_device(self) -> bool:
        """Tells whether the network finishes the images."""
        return self.prepare_on == "device"


def check_channels(store: Store, preprocessing: Preprocessing) -> None:
    """Raises InputError unless the images have, or can be decoded to, the channels that the network takes."""
    if store.image_shape is None:
        if preprocessing.channels not in (1, 3):
            raise InputError(f"Images are decoded to 1 or 3 channels. Received: {preprocessing.channels}.")
    elif store.image_shape[-1] != preprocessing.channels:
        raise InputError(
            f"The images have {store.image_shape[-1]} channels and the preprocessing {preprocessing.channels}; they "
            "must match."
        )


def prepare_batches(batches: tf.data.Dataset, store: Store, preparation: Preparation, largest: int) -> tf.data.Dataset:
    """Turns (stored images, labels, int64 (2,) seed) of batches into (images, labels) as the network takes them.

    Args:
        batches: of what `store.gather` returns; sizes differ by at most one, except for the last.
        store: where the images are from.
        preparation: what is done.
        largest: images of the largest batch.

    Returns:
        Images float32 (batch, height, width, channels), or uint8 for the device; labels int64 (batch,), or float32
        (batch, classes) where they are soft.
    """
    if isinstance(store, EncodedStore):
        return _prepare_encoded(batches, store, preparation, largest)
    return batches.map(_make_pixel_preparer(store, preparation), tf.data.AUTOTUNE)


def _draw_crops(images: Any, seed: Any) -> tf.Tensor:
    return crop.draw_numbers(tf.shape(images)[0], seed + tf.constant([seeds.CROPS, 0], tf.int64))


def _whole_levels(images: tf.Tensor) -> tf.Tensor:
    return images if images.dtype == tf.uint8 else tf.saturate_cast(tf.round(images), tf.uint8)


def _make_pixel_preparer(
    store: Store, preparation: Preparation
) -> Callable[[Any, Any, Any], tuple[tf.Tensor, tf.Tensor]]:
    """Makes a function from (pixels, labels, seed) of a batch to what the network takes, for the whole batch at once."""
    assert store.image_shape is not None
    preprocessing, area = preparation.preprocessing, preparation.augmentation.resized_crop
    (height, width), (old_height, old_width) = preprocessing.image_size_pixels, store.image_shape[:2]
    augment = make_augment(preparation.augmentation, classes=preparation.classes)

    def prepare_for_device(images: Any, labels: Any, seed: Any) -> tuple[tf.Tensor, tf.Tensor]:
        if area is not None:
            images = crop.crop_batch(images, _draw_crops(images, seed), area, (old_height, old_width))
        images, labels = augment(images, labels, seed)
        return _whole_levels(images), labels

    def prepare(images: Any, labels: Any, seed: Any) -> tuple[tf.Tensor, tf.Tensor]:
        if area is not None:
            images = crop.crop_batch(images, _draw_crops(images, seed), area, (height, width))
        elif old_height * old_width > height * width:
            images = resize_with_pad(images, height, width)
        # Otherwise images are enlarged last: everything before works on the small ones.
        images, labels = augment(images, labels, seed)
        return preprocess(images, preprocessing), labels

    return prepare_for_device if preparation.on_device else prepare


def _prepare_encoded(
    batches: tf.data.Dataset, store: EncodedStore, preparation: Preparation, largest: int
) -> tf.data.Dataset:
    """Draws numbers for a batch, reads its images one by one and puts them together, the only pass over a whole batch.

    As much as possible is done to each image while it is in the processor's cache.
    """
    preprocessing, augmentation = preparation.preprocessing, preparation.augmentation
    height, width, channels = preprocessing.input_shape
    area = augmentation.resized_crop
    mirror = augmentation.horizontal_flip and not augmentation.shift_fraction  # shifts come before
    rest = replace(augmentation, resized_crop=None, horizontal_flip=augmentation.horizontal_flip and not mirror)
    augment = make_augment(rest, classes=preparation.classes)
    complete = replace(rest, label_smoothing=0.0) == NO_AUGMENTATION  # once it is read: no more changes of pixels
    normalizes = complete and not preparation.on_device
    kind = tf.uint8 if not normalizes and (complete or area is not None) else tf.float32

    def draw(images: Any, labels: Any, seed: Any) -> tuple[tf.Tensor, ...]:
        number = tf.shape(images, out_type=tf.int64)[0]
        # All batches of one size, for `batch`: where one is smaller by one, its last image comes twice.
        places = tf.minimum(tf.range(number + tf.cast(number == largest - 1, tf.int64)), number - 1)
        numbers = tf.zeros((number, 1)) if area is None else _draw_crops(images, seed)
        if mirror:
            numbers = tf.concat([numbers, tf.cast(draw_mirrored(images, seed), tf.float32)[:, None]], 1)
        # Few parts: each is taken apart and put together again for every image.
        facts = tf.repeat(tf.concat([number[None], seed], 0)[None], tf.size(places), 0)
        return *(tf.gather(part, places) for part in (images, numbers, labels)), facts

    def read(image: Any, numbers: Any, label: Any, facts: Any) -> tuple[tf.Tensor, ...]:
        contents = store.load(image)
        if area is not None:
            pixels = crop.crop_encoded(contents, numbers[:4], area, (height, width), channels, known=store.jpeg)
        else:
            pixels = resize_with_pad(decode(contents, channels), height, width)
        if kind == tf.uint8:
            pixels = tf.cast(pixels + 0.5, tf.uint8)
        if mirror:
            pixels = tf.cond(numbers[-1] > 0, lambda: tf.reverse(pixels, [1]), lambda: pixels)
        return normalize_lines(pixels, preprocessing) if normalizes else pixels, label, facts

    def finish(images: Any, labels: Any, facts: Any) -> tuple[tf.Tensor, tf.Tensor]:
        number, seed = facts[0, 0], facts[0, 1:]
        images, labels = augment(images[:number], labels[:number], seed)
        if preparation.on_device:
            return _whole_levels(images), labels
        return images if normalizes else normalize(images, preprocessing), labels

    images = batches.map(draw, tf.data.AUTOTUNE).unbatch().map(read, tf.data.AUTOTUNE)
    return images.batch(largest).map(finish, tf.data.AUTOTUNE)
