"""`Preprocessing` and `Recipe`: how images reach a network and how it is trained, as frozen data with JSON both ways."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from keras_resnet.errors import InputError, check_choice, suggest

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("cosine", "step", "constant")

# Default peak learning rates. For sgd it is proportional to the batch (Goyal et al. 2017), here 0.02 at 32.
SGD_RATE_PER_IMAGE = 0.02 / 32
ADAM_RATE = 1e-3

# Steps below which a training counts as short: BN's moving statistics then still lag behind the weights.
SHORT_TRAINING_STEPS = 2000


class Record:
    """JSON both ways for a frozen dataclass whose fields are plain values and tuples."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain JSON values; `from_dict` reads them back to an equal record."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the record from what `to_dict` returned; raises InputError on an unknown or missing field."""
        fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        for name in values:
            if name not in fields:
                raise InputError(
                    f"A {cls.__name__} has the fields {', '.join(sorted(fields))}. Received: {name!r}."
                    + suggest(name, fields)
                )
        for name, field in fields.items():
            if name not in values and field.default is dataclasses.MISSING:
                raise InputError(f"A {cls.__name__} needs the field {name!r}. Received: {', '.join(values)}.")
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


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
        """`1 / (255 std)` per channel: the normalisation is `pixel * scale + offset`, one multiply-add."""
        return [1.0 / (255.0 * std) for std in self.std]

    @property
    def offset(self) -> list[float]:
        """`-mean / std` per channel."""
        return [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]


@dataclass(frozen=True)
class Recipe(Record):
    """How a network is trained. Steps are optimizer updates; `learning_rate` is the schedule's peak."""

    epochs: int = 10
    batch_size: int = 64
    max_steps: int | None = None  # stop after this many steps in all, even within an epoch
    optimizer: str = "sgd"
    learning_rate: float | None = None  # None: for sgd 0.02 * batch_size / 32, for adam and adamw 0.001
    momentum: float = 0.9  # sgd only, Nesterov's
    weight_decay: float = 5e-3  # per step and learning rate (decoupled); not on BN and biases
    schedule: str = "cosine"  # after the warm-up: "cosine" to 0, "step" / 10 at 1/2 and 3/4 (He et al.), "constant"
    warmup_fraction: float = 0.1  # of all steps, linear from 0
    clip_norm: float | None = None  # largest global norm of the gradient
    shift_fraction: float = 0.0  # random shift by up to this part of a side, zeros move in (pad and crop)
    horizontal_flip: bool = False  # mirror a random half of the images
    validation_split: float = 0.1  # stratified part of the training images that picks the best epoch
    reestimate_bn: bool | None = None  # after training; None: where it had fewer than SHORT_TRAINING_STEPS steps
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            _check_integer(name, getattr(self, name), 1)
        if self.max_steps is not None:
            _check_integer("max_steps", self.max_steps, 1)
        _check_integer("seed", self.seed, 0)
        if self.seed >= 2**32:
            raise InputError(f"seed must be below 2**32. Received: {self.seed}.")
        for name, allowed in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            check_choice(name, getattr(self, name), allowed)
        if self.learning_rate is not None:
            _check_number("learning_rate", self.learning_rate, low=0, low_open=True)
        _check_number("momentum", self.momentum, low=0, high=1)
        _check_number("weight_decay", self.weight_decay, low=0)
        _check_number("warmup_fraction", self.warmup_fraction, low=0, high=1)
        _check_number("shift_fraction", self.shift_fraction, low=0, high=1)
        _check_number("validation_split", self.validation_split, low=0, high=1)
        if self.clip_norm is not None:
            _check_number("clip_norm", self.clip_norm, low=0, low_open=True)

    @property
    def peak_learning_rate(self) -> float:
        """The schedule's peak: `learning_rate`, or its default for this optimizer and batch size."""
        if self.learning_rate is not None:
            return self.learning_rate
        return SGD_RATE_PER_IMAGE * self.batch_size if self.optimizer == "sgd" else ADAM_RATE


def _check_integer(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be an integer of at least {least}. Received: {value!r}.")


def _check_number(name: str, value: Any, *, low: float, high: float | None = None, low_open: bool = False) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not (value > low or (value == low and not low_open)) or (high is not None and not value < high):
        bound = f"above {low}" if low_open else f"at least {low}"
        raise InputError(
            f"{name} must be {bound}{f' and below {high}' if high is not None else ''}. Received: {value!r}."
        )


# What images of these sets may look like without changing their class: shifts of 1/8 of a side everywhere, mirror
# images only where a mirrored object is the same object. Sets not named here are not augmented.
_AUGMENTATION: dict[str, dict[str, Any]] = {
    "digits": {"shift_fraction": 0.125},
    "fashion_mnist": {"shift_fraction": 0.125, "horizontal_flip": True},
    "cifar10": {"shift_fraction": 0.125, "horizontal_flip": True},
    "cifar100": {"shift_fraction": 0.125, "horizontal_flip": True},
}
_SMALL_SET = 10_000  # training images below which a set gets more epochs


def default_recipe(data_name: str, train_images: int) -> Recipe:
    """Returns the recipe for a data set: more epochs for small sets, augmentation for the sets known by name.

    Args:
        data_name: as for `load_data`.
        train_images: how many there are.
    """
    return Recipe(epochs=20 if train_images < _SMALL_SET else 10, **_AUGMENTATION.get(data_name, {}))


def default_model(image_size_pixels: tuple[int, int]) -> str:
    """Returns the name of the network for an input size: a CIFAR form up to 64 pixels, an ImageNet form above."""
    return "resnet20_cifar" if max(image_size_pixels) <= 64 else "resnet18"
