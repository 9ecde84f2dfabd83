"""What a set is like: how many images of each class, how large they are, what they take."""

from __future__ import annotations

import io
import os

import numpy as np

from keras_resnet.data.encoded import hold_in_memory
from keras_resnet.data.splits import Split

_MEASURED_FILES = 1000  # whose headers are read


def count_classes(split: Split, classes: int) -> list[int]:
    """Returns the number of images of each class."""
    return np.bincount(split.labels, minlength=classes).tolist()


def measure_sizes(split: Split) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns (least height, least width), (greatest height, greatest width); of files, of up to 1,000 of them."""
    if not split.encoded:
        height, width = (int(side) for side in split.images.shape[1:3])
        return (height, width), (height, width)
    from PIL import Image

    sizes = []
    if split.stream is not None:  # what comes first: others are reached by reading all before them
        sample = hold_in_memory(split.take(np.arange(min(len(split), _MEASURED_FILES))))
    else:
        sample = split.take(np.unique(np.linspace(0, len(split) - 1, _MEASURED_FILES).astype(int)))
    for stored in sample.images:
        with Image.open(stored if isinstance(stored, str) else io.BytesIO(stored)) as image:
            sizes.append((image.height, image.width))
    heights, widths = zip(*sizes, strict=True)
    return (min(heights), min(widths)), (max(heights), max(widths))


def count_bytes(split: Split) -> tuple[int, str]:
    """Returns how much the images take and where: "in memory" or "in files"."""
    if split.stream is not None:
        return round(split.stream.bytes_per_example * len(split)), "in files"
    if split.images.dtype.kind == "U":
        return sum(os.path.getsize(path) for path in split.images), "in files"
    if split.images.dtype.kind == "O":
        return sum(map(len, split.images)), "in memory"
    return split.images.nbytes, "in memory"
