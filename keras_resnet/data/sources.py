"""Which images: `load_data` finds a data set by name or path and reads it."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from keras_resnet.data.folders import load_folder
from keras_resnet.data.splits import ImageData, Split, check_labels, divide_fixed
from keras_resnet.data.tfds_source import load_tfds
from keras_resnet.errors import InputError
from keras_resnet.inputs import DataSource


def load_data(
    name: str | os.PathLike[str] | DataSource,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    memory_limit_bytes: int | None = None,
    on_error: str = "stop",
) -> ImageData:
    """Reads a labelled image data set: training and test images, labels, class names.

    Args:
        name: "digits" (scikit-learn's 1,797 scans of 8x8 pixels, no network needed); or the path of a folder with
            one sub-folder per class (`train/` and `test/` used if there); or of an .npz file (`x_train, y_train,
            x_test, y_test`, or `images, labels`); or the TFDS name of an image classification set, such as
            "mnist", "fashion_mnist", "cifar10". An existing path wins over a name. Or a `DataSource`, which says all
            of this itself.
        data_dir: where TFDS keeps prepared sets; by default the environment's TFDS_DATA_DIR, or TFDS' own folder.
        memory_limit_bytes: what the images may take in memory, by default 8 GiB: above it a TFDS set is streamed from
            its files. Image folders are always read from disk.
        on_error: "stop" raises where an image cannot be decoded, at the latest when it is needed; "skip" decodes every
            file of a folder, or encoded image of a TFDS set, once now and leaves out those that cannot be (`skipped`).

    Returns:
        The data. Of a TFDS set without a test split its validation split is the test split; a set with neither, as
        folders and arrays without one, is split 80/20, stratified, always in the same way.

    Raises:
        InputError: nothing of that name, not prepared and no network, a label out of range, an empty class, a
            file that is not an image, an .npz file above the memory limit.
    """
    return _load(DataSource.of(name, data_dir=data_dir, memory_limit_bytes=memory_limit_bytes, on_error=on_error))


def _load(source: DataSource) -> ImageData:
    path = Path(source.name)
    if path.is_dir():
        return load_folder(source)
    if path.is_file():
        if path.suffix != ".npz":
            raise InputError(
                f"A data file must be an .npz archive; a data folder holds one folder per class. Received: {source.name}."
            )
        return _load_npz(source)
    if source.name == "digits":
        return _load_digits()
    # TFDS names may hold a slash.
    if path.suffix == ".npz" or path.is_absolute() or source.name.startswith((".", "~")):
        raise InputError(f"There is no file or folder at {source.name!r} (seen from {Path.cwd()}).")
    return load_tfds(source)


def _load_digits() -> ImageData:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # 17 gray levels, 0 to 16, become 0 to 255.
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    train, test = divide_fixed(Split(pixels, digits.target.astype(np.int64)))
    names = tuple(str(name) for name in digits.target_names)
    return ImageData("digits", "scikit-learn load_digits", train, test, names, 1, (8, 8))


def _load_npz(source: DataSource) -> ImageData:
    name = source.name
    try:
        with np.load(name, allow_pickle=False) as archive:
            size = sum(member.file_size for member in archive.zip.infolist())
            if size > source.limit_bytes:
                raise InputError(
                    f"{name} takes {size / 2**20:.1f} MiB in memory; the limit is {source.limit_bytes / 2**20:.1f} MiB. "
                    "Raise memory_limit_bytes (--memory-limit), or write it out as an image folder "
                    "(train/CLASS/*.png, test/CLASS/*.png), which is read from disk."
                )
            arrays = {key: archive[key] for key in archive.files}
    except InputError:
        raise
    except (ValueError, OSError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{name} could not be read as an .npz archive of plain arrays: {error}") from error
    four, two = ("x_train", "y_train", "x_test", "y_test"), ("images", "labels")
    if all(key in arrays for key in four):
        train = _npz_split(arrays, "x_train", "y_train", name)
        test = _npz_split(arrays, "x_test", "y_test", name)
        if train.images.shape[1:] != test.images.shape[1:]:
            raise InputError(
                f"{name}: x_train and x_test must hold images of one shape. "
                f"Received: {train.images.shape[1:]} and {test.images.shape[1:]}."
            )
        labels = train.labels
    elif all(key in arrays for key in two):
        everything = _npz_split(arrays, "images", "labels", name)
        labels = everything.labels
        train, test = divide_fixed(everything)
    else:
        raise InputError(
            f"{name} must hold {', '.join(four)}, or {', '.join(two)}. Received: {', '.join(arrays) or 'nothing'}."
        )
    if "class_names" in arrays:
        if arrays["class_names"].ndim != 1:
            raise InputError(
                f"{name}: class_names must be a list of names. Received: shape {arrays['class_names'].shape}."
            )
        names = tuple(str(value) for value in arrays["class_names"])
    else:
        # Without names, classes are the labels of the training images, which must leave no gap: a stray -1 or
        # 255 (a usual mark for "unknown") would otherwise become a class.
        names = tuple(str(value) for value in range(len(np.unique(labels))))
        check_labels(labels, len(names), f"{name}, with {len(names)} different labels and no class_names")
    height, width, channels = train.images.shape[1:]
    return ImageData(name, "npz", train, test, names, channels, (height, width))


def _npz_split(arrays: dict[str, np.ndarray], images_key: str, labels_key: str, name: str) -> Split:
    images, labels = arrays[images_key], arrays[labels_key]
    if images.dtype != np.uint8:
        raise InputError(
            f"{name}: {images_key} must be uint8 pixels, 0 to 255. Received: {images.dtype}"
            + (f" from {images.min()} to {images.max()}." if images.size and images.dtype.kind in "iuf" else ".")
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise InputError(
            f"{name}: {images_key} must be (number, height, width) or (number, height, width, channels). "
            f"Received: shape {arrays[images_key].shape}."
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise InputError(
            f"{name}: {labels_key} must be integers, one per image. Received: {labels.dtype}, shape {labels.shape}."
        )
    if len(images) != len(labels):
        raise InputError(
            f"{name}: {images_key} has {len(images)} images and {labels_key} {len(labels)} labels; they must match."
        )
    return Split(images, labels.astype(np.int64))
