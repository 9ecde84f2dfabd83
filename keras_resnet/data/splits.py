"""`Split` and `ImageData`: labelled images in memory or on disk, and how they are divided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from keras_resnet.errors import InputError

if TYPE_CHECKING:
    from keras_resnet.data.streams import Stream


@dataclass(frozen=True)
class Split:
    """Labelled images. `images[i]` is pixels, an encoded file's bytes, its path, or its place in a stream.

    `labels[i]` is its class.
    """

    images: np.ndarray  # uint8 (number, height, width, channels); or (number,) of object (bytes), str, int64
    labels: np.ndarray  # int64 (number,)
    stream: Stream | None = None  # where the places are read, of a set that does not fit into memory
    jpeg: bool = False  # whether all images are known to be JPEG files: crops of them need not ask each

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise InputError(
                f"There must be one label per image. Received: {len(self.images)} images, {len(self.labels)} labels."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def encoded(self) -> bool:
        """Whether the images are PNG or JPEG files, wherever they are, rather than an array of pixels."""
        return self.images.dtype != np.uint8

    def take(self, indices: np.ndarray) -> Split:
        """Returns the images at `indices`, in that order."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])


@dataclass(frozen=True)
class ImageData:
    """A data set: its training and test images and what their labels mean."""

    name: str  # as asked for: "digits", "mnist", a path
    source: str  # where it came from: "scikit-learn load_digits", "tfds mnist 3.0.1", "folder", "npz"
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


def draw_subset(split: Split, size: int | None, seed: int | Sequence[int], *, what: str) -> Split:
    """Returns `size` images of `split`, drawn without replacement by the seed; all of them for None."""
    if size is None or size == len(split):
        return split
    if not 1 <= size <= len(split):
        raise InputError(f"{what} must be from 1 to {len(split)}, the images there are, or 'all'. Received: {size}.")
    return split.take(np.sort(np.random.default_rng(seed).permutation(len(split))[:size]))
