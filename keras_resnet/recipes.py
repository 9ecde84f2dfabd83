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
DTYPES = ("float32", "mixed_bfloat16", "mixed_float16")  # Keras' dtype policies
NORMALIZATIONS = ("dataset", "imagenet", "cifar10", "mnist")  # whose mean and std images are normalised with
CLASS_BALANCES = ("weights", "sampling")
RESIZES = ("host", "device")  # where training images come to the network's size

# Default peak learning rates. For sgd it is proportional to the batch (Goyal et al. 2017), here 0.02 at 32.
SGD_RATE_PER_IMAGE = 0.02 / 32
ADAM_RATE = 1e-3

# Steps below which a training counts as short: BN's moving statistics then still lag behind the weights.
SHORT_TRAINING_STEPS = 2000


def _check_integer(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be an integer of at least {least}. Received: {value!r}.")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_number(
    name: str, value: Any, *, low: float, high: float | None = None, most: float | None = None, low_open: bool = False
) -> None:
    """Raises InputError unless `value` is at least `low` (above it for `low_open`), below `high`, at most `most`."""
    inside = (
        _is_number(value)
        and (value > low or (value == low and not low_open))
        and (high is None or value < high)
        and (most is None or value <= most)
    )
    if not inside:
        bounds = [f"above {low}" if low_open else f"at least {low}"]
        bounds += [f"below {high}"] if high is not None else []
        bounds += [f"at most {most}"] if most is not None else []
        raise InputError(f"{name} must be {' and '.join(bounds)}. Received: {value!r}.")


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


@dataclass(frozen=True, kw_only=True)
class Augmentation(Record):
    """How training images and labels are changed at random, in the order of the fields; all off by default.

    Each image has draws of its own. Lengths are parts of the image's sides, so they hold at any size.
    """

    resized_crop: tuple[float, float] | None = None  # least and greatest share of the area that a crop takes
    shift_fraction: float = 0.0  # random shift by up to this part of a side, zeros move in (pad and crop)
    horizontal_flip: bool = False  # mirror a random half of the images
    randaugment_ops: int = 0  # RandAugment: operations drawn for each image; 2 is usual
    randaugment_magnitude: float = 7.0  # 0 to 10, where 10 is the greatest that the paper's operations have
    randaugment_magnitude_std: float = 0.5  # of each operation's own magnitude around it, in the same units
    brightness: float = 0.0  # colour jitter: factor in [1 - x, 1 + x], not below 0, as in torchvision
    contrast: float = 0.0  # the same
    saturation: float = 0.0  # the same; grayscale has none
    hue: float = 0.0  # rotation in [-x, x] of the circle, x at most 0.5; grayscale has none
    cutout_fraction: float = 0.0  # side of a square of zeros, part of the shorter side, anywhere, cut at the border
    erasing_probability: float = 0.0  # random erasing: share of images of which a rectangle becomes noise
    mixup_alpha: float = 0.0  # mixup: weight of the image from Beta(alpha, alpha)
    cutmix_alpha: float = 0.0  # cutmix: area of the image from Beta(alpha, alpha); with mixup, half of the images each
    label_smoothing: float = 0.0  # share of each label that is spread evenly over all classes

    def __post_init__(self) -> None:
        self._check_resized_crop()
        if not isinstance(self.horizontal_flip, bool):
            raise InputError(f"horizontal_flip must be True or False. Received: {self.horizontal_flip!r}.")
        _check_integer("randaugment_ops", self.randaugment_ops, 0)
        for name in ("shift_fraction", "label_smoothing"):
            _check_number(name, getattr(self, name), low=0, high=1)
        for name in ("brightness", "contrast", "saturation", "mixup_alpha", "cutmix_alpha"):
            _check_number(name, getattr(self, name), low=0)
        for name, most in (
            ("cutout_fraction", 1),
            ("erasing_probability", 1),
            ("hue", 0.5),
            ("randaugment_magnitude", 10),
            ("randaugment_magnitude_std", 10),
        ):
            _check_number(name, getattr(self, name), low=0, most=most)

    def _check_resized_crop(self) -> None:
        if self.resized_crop is None:
            return
        shares = self.resized_crop
        if not (isinstance(shares, tuple) and len(shares) == 2 and all(map(_is_number, shares))) or not (
            0 < shares[0] <= shares[1] <= 1
        ):
            raise InputError(
                "resized_crop must be (least, greatest) share of the image's area, 0 < least <= greatest <= 1, "
                f"or None. Received: {shares!r}."
            )

    @property
    def soft_labels(self) -> bool:
        """Whether labels become a weight for each class instead of one class."""
        return bool(self.mixup_alpha or self.cutmix_alpha or self.label_smoothing)


NO_AUGMENTATION = Augmentation()


@dataclass(frozen=True)
class Recipe(Augmentation):
    """How a network is trained: an augmentation, and what follows.

    Steps are optimizer updates; `learning_rate` is the schedule's peak.
    """

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
    class_balance: str | None = None  # uneven classes: "weights" in the loss, or "sampling" each equally often
    validation_split: float = 0.1  # stratified part of the training images that picks the best epoch
    dtype: str = "float32"  # of the arithmetic; in a mixed policy weights, BN's statistics and the head stay float32
    steps_per_execution: int | None = None  # as Keras' compile has it; None: 8 where a step is small, else 1
    reestimate_bn: bool | None = None  # after training; None: where it had fewer than SHORT_TRAINING_STEPS steps
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "batch_size"):
            _check_integer(name, getattr(self, name), 1)
        for name in ("max_steps", "steps_per_execution"):
            if getattr(self, name) is not None:
                _check_integer(name, getattr(self, name), 1)
        _check_integer("seed", self.seed, 0)
        if self.seed >= 2**32:
            raise InputError(f"seed must be below 2**32. Received: {self.seed}.")
        for name, allowed in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("dtype", DTYPES)):
            check_choice(name, getattr(self, name), allowed)
        if self.class_balance is not None:
            check_choice("class_balance", self.class_balance, CLASS_BALANCES)
        if self.learning_rate is not None:
            _check_number("learning_rate", self.learning_rate, low=0, low_open=True)
        _check_number("momentum", self.momentum, low=0, high=1)
        _check_number("weight_decay", self.weight_decay, low=0)
        _check_number("warmup_fraction", self.warmup_fraction, low=0, high=1)
        _check_number("validation_split", self.validation_split, low=0, high=1)
        if self.clip_norm is not None:
            _check_number("clip_norm", self.clip_norm, low=0, low_open=True)

    @property
    def augmentation(self) -> Augmentation:
        """The part of the recipe that is about images and labels, alone."""
        return Augmentation(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Augmentation)})

    @property
    def sampling(self) -> str:
        """`sampling` of `make_train_dataset`."""
        return "balanced" if self.class_balance == "sampling" else "uniform"

    @property
    def peak_learning_rate(self) -> float:
        """The schedule's peak: `learning_rate`, or its default for this optimizer and batch size."""
        if self.learning_rate is not None:
            return self.learning_rate
        return SGD_RATE_PER_IMAGE * self.batch_size if self.optimizer == "sgd" else ADAM_RATE


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
