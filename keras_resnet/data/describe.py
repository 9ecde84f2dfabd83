"""What a set is like: how many images of each class, how large they are, what they take."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_resnet.data.encoded import hold_in_memory
from keras_resnet.data.folders import UPRIGHT, read_orientation
from keras_resnet.data.splits import ImageData, Split

_MEASURED_FILES = 1000  # whose headers are read


def count_classes(split: Split, classes: int) -> list[int]:
    """Returns the number of images of each class."""
    return np.bincount(split.labels, minlength=classes).tolist()


def measure_sizes(split: Split) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns (least height, least width), (greatest height, greatest width); of files, of up to 1,000 of them."""
    if not split.encoded:
        height, width = (int(side) for side in split.images.shape[1:3])
        return (height, width), (height, width)
    heights, widths = zip(*((image.height, image.width) for image in _open_some(split)), strict=True)
    return (min(heights), min(widths)), (max(heights), max(widths))


def count_turned(data: ImageData) -> tuple[int, int]:
    """Returns (how many images have an EXIF orientation that is not upright, of how many looked at).

    In a folder all were looked at when it was read; of other encoded images up to 1,000 of the training images are.
    """
    if not data.train.encoded:
        return 0, 0
    if data.train.images.dtype.kind == "U":
        return data.turned, len(data.train) + len(data.test)
    orientations = [read_orientation(image) for image in _open_some(data.train)]
    return sum(orientation != UPRIGHT for orientation in orientations), len(orientations)


def _open_some(split: Split) -> Iterator[Any]:
    """Pillow's images, of which headers are read, of up to 1,000 encoded images."""
    from PIL import Image

    if split.stream is not None:  # what comes first: others are reached by reading all before them
        sample = hold_in_memory(split.take(np.arange(min(len(split), _MEASURED_FILES))))
    else:
        sample = split.take(np.unique(np.linspace(0, len(split) - 1, _MEASURED_FILES).astype(int)))
    for stored in sample.images:
        with Image.open(stored if isinstance(stored, str) else io.BytesIO(stored)) as image:
            yield image


def count_bytes(split: Split) -> tuple[int, str]:
    """Returns how much the images take and where: "in memory" or "in files"."""
    if split.stream is not None:
        return round(split.stream.bytes_per_example * len(split)), "in files"
    if split.images.dtype.kind == "U":
        return sum(os.path.getsize(path) for path in split.images), "in files"
    if split.images.dtype.kind == "O":
        return sum(map(len, split.images)), "in memory"
    return split.images.nbytes, "in memory"
