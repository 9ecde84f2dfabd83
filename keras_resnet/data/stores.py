"""Where the images of a split are: an array of pixels, encoded bytes in memory, files, or places in a stream.

There is one class for each place. They answer the same questions, so that nothing else asks which of them it has.
"""

from __future__ import annotations

import abc
import functools
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow as tf

from keras_resnet.data.streams import Stream, read_in_order, read_shuffled
from keras_resnet.errors import InputError

_ALLOWED = "Images must be uint8 pixels (number, height, width, channels), paths, or the bytes of PNG and JPEG files."


def show_path(path: str | os.PathLike[str]) -> str:
    r"""Returns a path as text that any output takes: bytes that are not UTF-8 are written as `\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@dataclass(frozen=True, eq=False)
class Store(abc.ABC):
    """Images in an order of their own. `images[i]` says what image i is or where; what that is, each class says."""

    images: np.ndarray

    encoded: ClassVar[bool]  # whether images are PNG or JPEG files, wherever they are, rather than pixels
    streamed: ClassVar[bool] = False  # whether images come in the order of record files alone

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: np.ndarray) -> Self:
        """Returns the images at `indices`, in that order."""
        return replace(self, images=self.images[indices])

    def hold(self) -> Store:
        """Returns the same images where any of them can be read at any time: in memory, where they are streamed."""
        return self

    @property
    @abc.abstractmethod
    def element(self) -> tf.TensorSpec:
        """Returns shape and type of one of the values that `gather` returns."""

    @property
    @abc.abstractmethod
    def image_shape(self) -> tuple[int, int, int] | None:
        """Returns (height, width, channels) of every image; None where each has to be decoded to know."""

    @abc.abstractmethod
    def gather(self, indices: np.ndarray) -> np.ndarray:
        """Returns the stored values of a batch: pixels, or what `load` takes."""

    def name(self, index: int) -> str:
        """Returns what a message calls an image."""
        return f"image {index}"

    def open_sample(self, count: int) -> Iterator[str | io.BytesIO]:
        """Yields what Pillow opens, of up to `count` images; nothing where they are no files."""
        yield from ()

    def check_readable(self) -> None:  # noqa: B027 - most places have nothing to check
        """Raises InputError where what holds the images is damaged, so that which image is broken cannot be told."""

    @abc.abstractmethod
    def count_bytes(self) -> tuple[int, str]:
        """Returns how much the images take and where: "in memory" or "in files"."""


@dataclass(frozen=True, eq=False)
class PixelStore(Store):
    """Decoded images of one shape: `images` is uint8 (number, height, width, channels)."""

    encoded = False

    @property
    def element(self) -> tf.TensorSpec:
        """Returns shape and type of an image's pixels."""
        return tf.TensorSpec(self.image_shape, tf.uint8)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Returns (height, width, channels) of every image."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """Returns the pixels of a batch."""
        return np.asarray(self.images)[indices]

    def count_bytes(self) -> tuple[int, str]:
        """Returns how much the array takes."""
        return self.images.nbytes, "in memory"


@dataclass(frozen=True, eq=False)
class EncodedStore(Store):
    """PNG and JPEG files, wherever they are, of any size."""

    encoded = True

    jpeg: bool = field(default=False, kw_only=True)  # whether all are known to be JPEGs, so that none has to be asked

    @property
    def element(self) -> tf.TensorSpec:
        """Returns the type of a string, of bytes or of a path."""
        return tf.TensorSpec((), tf.string)

    @property
    def image_shape(self) -> None:
        """Returns None: images are decoded when they are needed."""
        return None

    @abc.abstractmethod
    def read_encoded(self) -> tf.data.Dataset:
        """Reads (int64 index, the bytes) of each image, in order."""

    def load(self, stored: Any) -> Any:
        """Returns the bytes of an image whose value `gather` returned: a scalar string tensor to the same."""
        return stored

    def sample(self, count: int) -> Self:
        """Returns up to `count` of the images that are quick to reach, spread evenly over all."""
        return self.take(np.unique(np.linspace(0, len(self) - 1, count).astype(int)))

    def read_sample(self, count: int) -> tf.data.Dataset:
        """Reads the bytes of up to `count` images that stand for all."""
        return self.sample(count).read_encoded().map(lambda _, image: image, tf.data.AUTOTUNE)

    def open_sample(self, count: int) -> Iterator[str | io.BytesIO]:
        """Yields what Pillow opens, of each image of `sample`."""
        for _, image in self.sample(count).read_encoded().as_numpy_iterator():
            yield io.BytesIO(image)


@dataclass(frozen=True, eq=False)
class BytesStore(EncodedStore):
    """Files in memory: `images` is object (number,) of bytes."""

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """Returns the bytes of a batch."""
        return self.images[indices]

    def read_encoded(self) -> tf.data.Dataset:
        """Reads (index, the bytes) of each image, in order."""
        return _read_one_by_one(self)

    def count_bytes(self) -> tuple[int, str]:
        """Returns how much the encoded images take."""
        return sum(map(len, self.images)), "in memory"


@dataclass(frozen=True, eq=False)
class FileStore(EncodedStore):
    """Files on disk: `images` is str (number,), their paths."""

    @functools.cached_property
    def _paths(self) -> np.ndarray:
        """Returns the paths as `tf.io.read_file` takes them: names need not be UTF-8."""
        return np.array([os.fsencode(path) for path in self.images], object)

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """Returns the paths of a batch, as bytes."""
        return self._paths[indices]

    def load(self, stored: Any) -> Any:
        """Reads the file at a path: a scalar string tensor to the same."""
        return tf.io.read_file(stored)

    def read_encoded(self) -> tf.data.Dataset:
        """Reads (index, the bytes) of each file, in order."""
        return _read_one_by_one(self)

    def open_sample(self, count: int) -> Iterator[str | io.BytesIO]:
        """Yields the paths of `sample`: Pillow reads no more than the headers."""
        yield from map(str, self.sample(count).images)

    def name(self, index: int) -> str:
        """Returns what a message calls an image: its path."""
        return show_path(self.images[index])

    def count_bytes(self) -> tuple[int, str]:
        """Returns how much the files take."""
        return sum(os.path.getsize(path) for path in self.images), "in files"


@dataclass(frozen=True, eq=False)
class StreamStore(EncodedStore):
    """Examples of a set that does not fit into memory: `images` is int64 (number,), their places in the stream."""

    stream: Stream

    streamed = True

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """Returns the bytes at `indices`, in any order; reads all records up to the last of them."""
        images = np.empty(len(indices), object)
        order = np.argsort(self.images[indices], kind="stable")
        for index, image in self.take(indices[order]).read_encoded().as_numpy_iterator():
            images[order[index]] = image
        return images

    def hold(self) -> Store:
        """Returns the same images as bytes in memory; for a few of them."""
        return BytesStore(self.gather(np.arange(len(self))), jpeg=self.jpeg)

    def read_encoded(self) -> tf.data.Dataset:
        """Reads (index, the bytes) of each image; they must be in the order of the stream."""
        return self._parse_images(read_in_order(self.stream, self.images)).enumerate()

    def sample(self, count: int) -> Self:
        """Returns the images that come first: others are reached by reading all before them."""
        return self.take(np.arange(min(len(self), count)))

    def read_sample(self, count: int) -> tf.data.Dataset:
        """Reads the images that a shuffle by seed 0 brings first: to reach others would take as long as an epoch."""
        return self._parse_images(read_shuffled(self.stream, self.images)(0, 0).take(count))

    def check_readable(self) -> None:
        """Raises InputError naming the first record file that is damaged."""
        self.stream.check_files()

    def name(self, index: int) -> str:
        """Returns what a message calls an image: its place."""
        return f"example {self.images[index]} of {self.stream.name}"

    def count_bytes(self) -> tuple[int, str]:
        """Returns about how much the examples take."""
        return round(self.stream.bytes_per_example * len(self)), "in files"

    def _parse_images(self, records: tf.data.Dataset) -> tf.data.Dataset:
        parse = self.stream.parse
        return records.map(lambda _, record: parse(record)[0], tf.data.AUTOTUNE)


def make_store(images: Any) -> Store:
    """Turns what a user has, uint8 pixels, paths or encoded bytes, into its store; a store stays itself.

    Args:
        images: uint8 (number, height, width, channels); or a sequence or (number,) array of paths, or of the bytes of
            PNG and JPEG files.

    Raises:
        InputError: anything else.
    """
    if isinstance(images, Store):
        return images
    array = images if isinstance(images, np.ndarray) else _make_array(images)
    if array is None:
        raise InputError(f"{_ALLOWED} Received: a {type(images).__name__} of unequal items.")
    if array.ndim == 4 and array.dtype == np.uint8:
        return PixelStore(array)
    if array.ndim == 1 and array.dtype.kind == "U":
        return FileStore(array)
    if array.ndim == 1 and array.dtype.kind in "OS":
        if all(isinstance(image, bytes) for image in array):
            return BytesStore(array.astype(object))
        if all(isinstance(image, (str, os.PathLike)) for image in array):
            return FileStore(np.array([os.fspath(path) for path in array], str))
    raise InputError(f"{_ALLOWED} Received: {array.dtype}, shape {array.shape}.")


def _make_array(images: Any) -> np.ndarray | None:
    """Makes an array of a sequence, None where that is none: bytes stay objects, for NumPy cuts zeros from their end."""
    if isinstance(images, (list, tuple)) and all(isinstance(image, (bytes, str, os.PathLike)) for image in images):
        array = np.empty(len(images), object)
        array[:] = images
        return array
    try:
        array = np.asarray(images)
    except ValueError:
        return None
    return array if array.dtype.kind not in "US" else None  # NumPy makes text of numbers that stand among texts


def _read_one_by_one(store: BytesStore | FileStore) -> tf.data.Dataset:
    """Reads (int64 index, the bytes) of each image, in order, of a store that gives any image at any time."""

    def read(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        stored = tf.numpy_function(store.gather, [index], tf.string, stateful=False)
        return index, store.load(tf.ensure_shape(stored, ()))

    return tf.data.Dataset.range(len(store)).map(read, tf.data.AUTOTUNE)
