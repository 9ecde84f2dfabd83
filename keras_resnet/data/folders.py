"""Image folders: one sub-folder per class, PNG and JPEG files of any size."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.data.encoded import drop_undecodable
from keras_resnet.data.splits import ImageData, Split, divide_fixed
from keras_resnet.data.stores import FileStore, show_path
from keras_resnet.errors import InputError
from keras_resnet.inputs import DataSource

SUFFIXES = (".png", ".jpg", ".jpeg")
GRAY_MODES = ("1", "L", "LA", "I;16", "I;16B", "I")  # Pillow's names for one-channel images
UPRIGHT = 1  # of EXIF's eight orientations
_ORIENTATION = 0x0112  # its tag

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Header:
    """What a file says of its image before it is decoded."""

    size: tuple[int, int]  # (height, width), as stored
    mode: str  # Pillow's
    format: str  # Pillow's: "PNG", "JPEG" or "MPO", which is a JPEG too
    orientation: int  # EXIF's, which TensorFlow, Keras and torchvision ignore when they decode


def load_folder(source: DataSource) -> ImageData:
    """Reads the file names and headers of the image folder `source.name`; pixels are decoded when they are needed.

    With on_error="skip" every file is decoded once and those that cannot be are left out.

    Raises:
        InputError: no class folders, an empty one, one of `train/` and `test/` without the other, a class of
            `test/` that `train/` does not have, or a file that is not a PNG or JPEG image (its path).
    """
    train, test, class_names = _list_parts(Path(source.name), source.name)
    skipped: tuple[str, ...] = ()
    if source.on_error == "skip":
        train, test, skipped = drop_undecodable(train, test, source.name)
    sizes, gray, deep, turned, jpeg = set(), True, 0, [], True
    for file in (*train.images, *test.images):
        header = read_header(file)
        sizes.add(header.size)
        gray = gray and header.mode in GRAY_MODES
        deep += header.mode.startswith("I")
        jpeg = jpeg and header.format != "PNG"
        if header.orientation != UPRIGHT:
            turned.append(file)
    warn_turned(source.name, turned, len(train) + len(test))
    if deep:
        log.warning("%s: of %d grayscale images with 16 bits per pixel the upper 8 are used", source.name, deep)
    train, test = (Split(FileStore(split.images, jpeg=jpeg), split.labels) for split in (train, test))
    size = sizes.pop() if len(sizes) == 1 else None
    return ImageData(
        source.name, "folder", train, test, class_names, 1 if gray else 3, size, skipped, turned=len(turned)
    )


def _list_parts(path: Path, name: str) -> tuple[Split, Split, tuple[str, ...]]:
    """Returns training and test files of a folder, by its `train/` and `test/` or divided here, and the class names."""
    parts = {part: path / part for part in ("train", "test") if (path / part).is_dir()}
    if parts and any(_sub_folders(folder) for folder in parts.values()):
        lacking = [part for part in ("train", "test") if part not in parts or not _sub_folders(parts[part])]
        if lacking:
            raise InputError(
                f"{name}: an image folder must have one sub-folder per class, or train/ and test/ that both have. "
                f"Received: {' and '.join(f'{part}/' for part in parts)}, but no class folders in {lacking[0]}/."
            )
        class_names, test_names = _sub_folders(parts["train"]), _sub_folders(parts["test"])
        unknown = sorted(set(test_names) - set(class_names))
        if unknown:
            raise InputError(
                f"{name}: every class of test/ must be in train/ ({', '.join(class_names)}). "
                f"Received: {', '.join(unknown)}."
            )
        train = _list_images(parts["train"], class_names, class_names)
        return train, _list_images(parts["test"], test_names, class_names), tuple(class_names)
    class_names = _sub_folders(path)
    if not class_names:
        raise InputError(f"{name}: an image folder must have one sub-folder per class. Received: a folder without any.")
    return *divide_fixed(_list_images(path, class_names, class_names)), tuple(class_names)


def read_orientation(image: Any) -> int:
    """Returns EXIF's orientation, 1 to 8, of an image that Pillow has opened: 1, upright, where it says nothing."""
    if "exif" not in image.info:  # `getexif` would decode a PNG that has none, in search of one at its end
        return UPRIGHT
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # Pillow fails in many ways on broken EXIF, which is no reason to refuse the pixels
        return UPRIGHT
    return orientation if orientation in range(1, 9) else UPRIGHT


def warn_turned(name: str, files: Sequence[str], total: int) -> None:
    """Logs a line that counts the files, of `total`, whose EXIF orientation is not upright, if there are any."""
    if files:
        log.warning(
            "%s: %d of %d images have an EXIF orientation other than 1, such as %s; it is ignored and their pixels are "
            "taken as stored, on the side or head first: turn them first (PIL.ImageOps.exif_transpose)",
            name,
            len(files),
            total,
            show_path(files[0]),
        )


def read_header(path: str | Path) -> Header:
    """Reads the header of a PNG or JPEG file; raises InputError with its path where it is another or broken."""
    from PIL import Image, UnidentifiedImageError

    shown = show_path(path)
    try:
        with Image.open(str(path)) as image:  # Pillow shows a NumPy string as such
            if image.format not in ("PNG", "JPEG", "MPO"):  # MPO: a JPEG of several pictures, as phones write
                raise InputError(f"{shown} must be a PNG or JPEG image. Received: {image.format}.")
            if image.mode == "CMYK":
                raise InputError(f"{shown} must be in gray or RGB colours. Received: CMYK.")
            return Header((image.height, image.width), image.mode, image.format, read_orientation(image))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"There is no image at {shown}.") from error
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).replace(str(path), shown)
        raise InputError(f"{shown} could not be decoded as a PNG or JPEG image: {reason}") from error


def _sub_folders(path: Path) -> list[str]:
    names = sorted(child.name for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    for name in names:
        if name != show_path(name):
            raise InputError(
                f"{show_path(path / name)}: the name of a class folder must be UTF-8 text, for it is the name of the "
                "class. Received: other bytes; rename it."
            )
    return names


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
