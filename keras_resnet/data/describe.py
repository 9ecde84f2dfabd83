"""What a set is like: how many images of each class, how large they are, what they take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_resnet.data.folders import UPRIGHT, read_orientation
from keras_resnet.data.splits import ImageData, Split
from keras_resnet.data.stores import FileStore, Store

_MEASURED_FILES = 1000  # whose headers are read


def count_classes(split: Split, classes: int) -> list[int]:
    """Returns the number of images of each class."""
    return np.bincount(split.labels, minlength=classes).tolist()


def measure_sizes(split: Split) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns (least height, least width), (greatest height, greatest width); of files, of up to 1,000 of them."""
    if split.image_shape is not None:
        height, width, _ = split.image_shape
        return (height, width), (height, width)
    heights, widths = zip(*((image.height, image.width) for image in _open_some(split.store)), strict=True)
    return (min(heights), min(widths)), (max(heights), max(widths))


def count_turned(data: ImageData) -> tuple[int, int]:
    """Returns (how many images have an EXIF orientation that is not upright, of how many looked at).

    In a folder all were looked at when it was read; of other encoded images up to 1,000 of the training images are.
    """
    if isinstance(data.train.store, FileStore):
        return data.turned, len(data.train) + len(data.test)
    orientations = [read_orientation(image) for image in _open_some(data.train.store)]
    return sum(orientation != UPRIGHT for orientation in orientations), len(orientations)


def _open_some(store: Store) -> Iterator[Any]:
    """Yields Pillow's images, of which only headers are read, of up to 1,000 encoded images; of pixels none."""
    from PIL import Image

    for stored in store.open_sample(_MEASURED_FILES):
        with Image.open(stored) as image:
            yield image


def count_bytes(split: Split) -> tuple[int, str]:
    """Returns how much the images take and where: "in memory" or "in files"."""
    return split.store.count_bytes()
