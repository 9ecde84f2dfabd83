"""Image folders: one sub-folder per class, PNG and JPEG files of any size."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from keras_resnet.data.splits import ImageData, Split
from keras_resnet.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg")
GRAY_MODES = ("1", "L", "LA", "I;16", "I;16B", "I")  # Pillow's names for one-channel images

log = logging.getLogger(__name__)


def load_folder(path: Path, name: str, *, split: Callable[[Split], tuple[Split, Split]]) -> ImageData:
    """Reads the file names and headers of an image folder; pixels are decoded when they are needed.

    Raises:
        InputError: no class folders, an empty one, one of `train/` and `test/` without the other, a class of
            `test/` that `train/` does not have, or a file that is not a PNG or JPEG image (its path).
    """
    parts = {part: path / part for part in ("train", "test") if (path / part).is_dir()}
    if parts and any(_sub_folders(folder) for folder in parts.values()):
        lacking = [part for part in ("train", "test") if part not in parts or not _sub_folders(parts[part])]
        if lacking:
            raise InputError(
                f"{name}: an image folder must have one sub-folder per class, or train/ and test/ that both have. "
                f"Received: {' and '.join(f'{part}/' for part in parts)}, but no class folders in {lacking[0]}/."
            )
        class_names = _sub_folders(parts["train"])
        test_names = _sub_folders(parts["test"])
        unknown = sorted(set(test_names) - set(class_names))
        if unknown:
            raise InputError(
                f"{name}: every class of test/ must be in train/ ({', '.join(class_names)}). "
                f"Received: {', '.join(unknown)}."
            )
        train = _list_images(parts["train"], class_names, class_names)
        test = _list_images(parts["test"], test_names, class_names)
    else:
        class_names = _sub_folders(path)
        if not class_names:
            raise InputError(
                f"{name}: an image folder must have one sub-folder per class. Received: a folder without any."
            )
        train, test = split(_list_images(path, class_names, class_names))
    sizes, gray = set(), True
    for file in (*train.images, *test.images):
        file_size, mode = read_header(file)
        sizes.add(file_size)
        gray = gray and mode in GRAY_MODES
    size = sizes.pop() if len(sizes) == 1 else None
    return ImageData(name, "folder", train, test, tuple(class_names), 1 if gray else 3, size)


def read_header(path: str | Path) -> tuple[tuple[int, int], str]:
    """Returns ((height, width), Pillow mode) of a PNG or JPEG file; raises InputError with its path otherwise."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.format not in ("PNG", "JPEG", "MPO"):  # MPO: a JPEG of several pictures, as phones write
                raise InputError(f"{path} must be a PNG or JPEG image. Received: {image.format}.")
            return (image.height, image.width), image.mode
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"There is no image at {path}.") from error
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} could not be decoded as a PNG or JPEG image: {error}") from error


def find_undecodable(images: Iterable[str | bytes]) -> tuple[str, str] | None:
    """Returns (path or number, reason) of the first image whose pixels cannot be decoded, or None.

    Args:
        images: paths, or the bytes of encoded images.
    """
    import tensorflow as tf

    from keras_resnet.data.preprocess import decode

    for index, image in enumerate(images):
        try:
            decode(tf.io.read_file(image) if isinstance(image, str) else image, 3)
        except tf.errors.OpError as error:
            return (image if isinstance(image, str) else f"image {index}"), _describe(error.message)
    return None


def _describe(message: str) -> str:
    """What an error of TensorFlow's says, without what TensorFlow wraps around it."""
    _, assertion, text = message.partition("Summarized data: ")
    if assertion:
        return re.sub("b'([^']*)'", r"\1", " ".join(text.splitlines()))
    return re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:.*", "", message.splitlines()[0])


def check_decodable(images: Iterable[str | bytes]) -> None:
    """Raises InputError naming the first image whose pixels cannot be decoded."""
    found = find_undecodable(images)
    if found:
        raise InputError(f"{found[0]} could not be decoded as a PNG or JPEG image: {found[1]}")


def _sub_folders(path: Path) -> list[str]:
    return sorted(child.name for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _list_images(path: Path, folders: list[str], class_names: list[str]) -> Split:
    files, labels, others = [], [], 0
    for folder in folders:
        here = [child for child in sorted((path / folder).iterdir()) if not child.name.startswith(".")]
        images = [str(child) for child in here if child.is_file() and child.suffix.lower() in SUFFIXES]
        if not images:
            nested = [child.name for child in here if child.is_dir()]
            raise InputError(
                f"{path / folder}: a class folder must hold at least one image ({', '.join(SUFFIXES)}). Received: "
                + (f"folders ({', '.join(nested[:3])}) instead." if nested else f"{len(here)} other files.")
            )
        others += len(here) - len(images)
        files += images
        labels += [class_names.index(folder)] * len(images)
    if others:
        log.warning("%s: %d entries that are not %s were left out", path, others, ", ".join(SUFFIXES))
    return Split(np.array(files), np.array(labels, np.int64))
