"""`Split` and `ImageData`: labelled images in memory or on disk, and how they are divided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_resnet import seeds
from keras_resnet.data.stores import Store, make_store
from keras_resnet.errors import InputError

TEST_FRACTION = 0.2  # of a set that comes unsplit


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images: `labels[i]` is the class of image i.

    Args:
        images: uint8 (number, height, width, channels); or paths of PNG and JPEG files, or their bytes, as a sequence or
            an array (number,); or a store of `keras_resnet.data.stores`.
        labels: int64 (number,).

    Raises:
        InputError: other images, or another number of labels.
    """

    store: Store  # where the images are
    labels: np.ndarray

    def __init__(self, images: Any, labels: np.ndarray) -> None:
        # What a user passes becomes a store here, once.
        object.__setattr__(self, "store", make_store(images))
        object.__setattr__(self, "labels", labels)
        if len(self.store) != len(labels):
            raise InputError(
                f"There must be one label per image. Received: {len(self.store)} images, {len(labels)} labels."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images(self) -> np.ndarray:
        """Pixels, encoded bytes, paths, or places in a stream: what the store says of each image."""
        return self.store.images

    @property
    def encoded(self) -> bool:
        """Whether the images are PNG or JPEG files, wherever they are, rather than an array of pixels."""
        return self.store.encoded

    @property
    def streamed(self) -> bool:
        """Whether the images are read in the order of their record files, because they do not fit into memory."""
        return self.store.streamed

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(height, width, channels) of pixels; None of encoded images, which are decoded when they are needed."""
        return self.store.image_shape

    def take(self, indices: np.ndarray) -> Split:
        """Returns the images at `indices`, in that order."""
        return Split(self.store.take(indices), self.labels[indices])


@dataclass(frozen=True)
class ImageData:
    """A data set: its training and test images and what their labels mean."""

    name: str  # as asked for: "digits", "mnist", a path
    origin: str  # where it came from: "scikit-learn load_digits", "tfds mnist 3.0.1", "folder", "npz"
    train: Split
    test: Split
    class_names: tuple[str, ...]
    channels: int
    image_size_pixels: tuple[int, int] | None  # (height, width) if all images have the same
    skipped: tuple[str, ...] = ()  # images that could not be decoded and were left out, as asked for
    turned: int = 0  # files of a folder whose EXIF orientation, which is ignored, is not upright

    def __post_init__(self) -> None:
        if len(self.class_names) < 2:
            raise InputError(
                f"{self.name}: there must be at least 2 classes. Received: {', '.join(self.class_names) or 'none'}."
            )
        for part, split in (("training", self.train), ("test", self.test)):
            if not len(split):
                raise InputError(f"{self.name}: the {part} split must have at least one image. Received: none.")
            check_labels(split.labels, len(self.class_names), f"{self.name}, {part} split")


def check_labels(labels: np.ndarray, classes: int, where: str) -> None:
    """Raises InputError, naming the first offender, unless all labels are in 0 ... classes - 1."""
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        index = int(outside[0])
        raise InputError(
            f"{where}: labels must be integers from 0 to {classes - 1} ({classes} classes). "
            f"Received: {int(labels[index])} at index {index}; {len(outside)} of {len(labels)} are outside."
        )


def split_stratified(labels: np.ndarray, fraction: float, seed: int | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Draws `fraction` of all indices, each class in proportion: returns (the rest, the drawn), both in order.

    Any fraction and any class size works: classes are filled evenly, and which of the small ones get the odd
    image is drawn by the seed. Both parts get at least one image.
    """
    count = min(max(round(len(labels) * fraction), 1), len(labels) - 1)
    if len(labels) < 2:
        raise InputError(f"A split into two parts needs at least 2 images. Received: {len(labels)}.")
    order = np.random.default_rng(seed).permutation(len(labels))
    # Position of each image within its class as a fraction: cutting all classes at the same fraction takes the
    # same share of each (scikit-learn's splitter refuses parts smaller than the number of classes).
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    drawn = order[np.argsort(position[order], kind="stable")][:count]
    mask = np.zeros(len(labels), bool)
    mask[drawn] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def split_fixed(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the (training, test) images of a set that comes unsplit: 80/20, stratified, always the same."""
    return split_stratified(labels, TEST_FRACTION, seeds.FIXED_SPLIT)


def divide_fixed(everything: Split) -> tuple[Split, Split]:
    """Divides a set that comes unsplit into training and test images, by `split_fixed`."""
    train, test = (everything.take(indices) for indices in split_fixed(everything.labels))
    return train, test


def draw_subset(split: Split, size: int | None, seed: int | Sequence[int], *, what: str) -> Split:
    """Returns `size` images of `split`, drawn without replacement by the seed; all of them for None."""
    if size is None or size == len(split):
        return split
    if not 1 <= size <= len(split):
        raise InputError(f"{what} must be from 1 to {len(split)}, the images there are, or 'all'. Received: {size}.")
    return split.take(np.sort(np.random.default_rng(seed).permutation(len(split))[:size]))
