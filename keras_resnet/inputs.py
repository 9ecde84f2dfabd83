"""What a network is fed: which images (`DataSource`), how they come to it (`InputOptions`), what is done to each pixel."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Self

from keras_resnet.errors import InputError
from keras_resnet.records import Record, check_choice, is_count, take_counts

ON_ERROR = ("stop", "skip")  # at an image that cannot be decoded
NORMALIZATIONS = ("dataset", "imagenet", "cifar10", "mnist")  # whose mean and std images are normalized with
PREPARE_ON = ("host", "device")  # where training images come to the network's size
MEMORY_LIMIT_BYTES = 8 * 2**30  # what a data set may take in memory unless told otherwise


@dataclass(frozen=True)
class DataSource(Record):
    """Which images: a name or a path, and how it is read."""

    name: str  # "digits", a TFDS name, the path of a folder or of an .npz file
    data_dir: str | None = None  # where TFDS sets are; None: TFDS_DATA_DIR, or TFDS' own folder
    memory_limit_bytes: int | None = None  # what the images may take in memory; None: 8 GiB
    on_error: str = "stop"  # at an image that cannot be decoded: "stop", or "skip" it

    def __post_init__(self) -> None:
        for name in ("name", "data_dir"):
            value = getattr(self, name)
            if isinstance(value, os.PathLike):
                object.__setattr__(self, name, os.fspath(value))
            elif not isinstance(value, str) and (value is not None or name == "name"):
                raise InputError(f"{name} must be a name or a path. Received: {value!r}.")
        if not self.name:
            raise InputError("A data set must have a name or a path. Received: ''.")
        check_choice("on_error", self.on_error, ON_ERROR)
        if self.memory_limit_bytes is not None and not is_count(self.memory_limit_bytes):
            raise InputError(
                "memory_limit_bytes must be a number of bytes of at least 1, or None. Received: "
                f"{self.memory_limit_bytes!r}."
            )
        take_counts(self, ("memory_limit_bytes",), optional=True)

    @property
    def limit_bytes(self) -> int:
        """What the images may take in memory."""
        return MEMORY_LIMIT_BYTES if self.memory_limit_bytes is None else self.memory_limit_bytes

    @classmethod
    def of(cls, data: str | os.PathLike[str] | Self, **given: Any) -> Self:
        """Returns what a user typed, a name or a path and how it is read, as a record; or the record that was given.

        Raises:
            InputError: a record, and beside it fields that differ from the defaults.
        """
        if not isinstance(data, DataSource):
            return cls(data, **given)  # type: ignore[arg-type]  # the record makes a path a string
        plain = cls(data.name)
        also = [name for name, value in given.items() if value != getattr(plain, name)]
        if also:
            raise InputError(
                f"A DataSource says itself how the data is read. Received: one, and {', '.join(also)}; set that in the "
                "record."
            )
        return data

    def absolute(self) -> Self:
        """The same source as seen from any folder: paths that exist become absolute."""
        name = os.path.abspath(self.name) if os.path.exists(self.name) else self.name
        data_dir = None if self.data_dir is None else os.path.abspath(self.data_dir)
        return type(self)(name, data_dir, self.memory_limit_bytes, self.on_error)


@dataclass(frozen=True)
class InputOptions(Record):
    """How images come to the network: at which size, normalized by what, how many of them, prepared where."""

    image_size_pixels: tuple[int, int] | None = None  # (height, width); None: the images' own, 224x224 if they differ
    normalize: str = "dataset"  # whose mean and std: measured on the training images, or usual constants
    train_size: int | None = None  # training images drawn by the seed; None: all
    test_size: int | None = None  # test images drawn by the seed; None: all
    prepare_on: str = "host"  # "device": training images travel as uint8 and are finished beside the network

    def __post_init__(self) -> None:
        size = self.image_size_pixels
        if size is not None:
            if not isinstance(size, tuple) or len(size) != 2 or not all(map(is_count, size)):
                raise InputError(f"image_size_pixels must be (height, width), both at least 1. Received: {size!r}.")
            object.__setattr__(self, "image_size_pixels", (int(size[0]), int(size[1])))
        check_choice("normalize", self.normalize, NORMALIZATIONS)
        check_choice("prepare_on", self.prepare_on, PREPARE_ON)
        take_counts(self, ("train_size", "test_size"), optional=True)


@dataclass(frozen=True)
class Preprocessing(Record):
    """Resize with pad to `image_size_pixels`, then `(pixel / 255 - mean) / std` per channel."""

    image_size_pixels: tuple[int, int]  # (height, width) of the network's input
    channels: int  # 1 (grayscale) or 3 (RGB) for encoded images; any number for arrays
    mean: tuple[float, ...]  # per channel, of pixel / 255
    std: tuple[float, ...]  # per channel, of pixel / 255

    def __post_init__(self) -> None:
        size = self.image_size_pixels
        if len(size) != 2 or any(not isinstance(side, int) or isinstance(side, bool) or side < 1 for side in size):
            raise InputError(f"image_size_pixels must be (height, width), both at least 1. Received: {size!r}.")
        if not isinstance(self.channels, int) or self.channels < 1:
            raise InputError(f"channels must be an integer of at least 1. Received: {self.channels!r}.")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise InputError(
                f"mean and std must have one value per channel, {self.channels}. Received: {self.mean!r}, {self.std!r}."
            )
        if not all(value > 0 for value in self.std):
            raise InputError(f"std must be positive in every channel. Received: {self.std!r}.")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the network's input."""
        return (*self.image_size_pixels, self.channels)

    @property
    def scale(self) -> list[float]:
        """`1 / (255 std)` per channel: the normalization is `pixel * scale + offset`, one multiply-add."""
        return [1.0 / (255.0 * std) for std in self.std]

    @property
    def offset(self) -> list[float]:
        """`-mean / std` per channel."""
        return [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]
