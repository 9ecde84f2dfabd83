"""`Augmentation` and `Recipe`: how a network is trained, as frozen data with JSON both ways.

Each field says once what it is for, what it may be and how the command line calls it; options and checks are made of
that.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from keras_resnet.errors import InputError
from keras_resnet.records import Record, check_options, is_number, option

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("cosine", "step", "constant")
DTYPES = ("float32", "mixed_bfloat16", "mixed_float16")  # Keras' dtype policies
CLASS_BALANCES = ("weights", "sampling")

# Default peak learning rates. For sgd it is proportional to the batch (Goyal et al. 2017), here 0.02 at 32.
SGD_RATE_PER_IMAGE = 0.02 / 32
ADAM_RATE = 1e-3

# Steps below which a training counts as short: BN's moving statistics then still lag behind the weights.
SHORT_TRAINING_STEPS = 2000


@dataclass(frozen=True, kw_only=True)
class Augmentation(Record):
    """How training images and labels are changed at random, in the order of the fields; all off by default.

    Each image has draws of its own. Lengths are parts of the image's sides, so they hold at any size.
    """

    resized_crop: tuple[float, float] | None = option(
        None, "Random crop that takes between these shares of the area.", metavar="LEAST GREATEST"
    )
    shift_fraction: float = option(
        0.0, "Random shift by up to this part of a side; zeros move in (pad and crop).", high=1, shown="by data"
    )
    horizontal_flip: bool = option(
        False, "Mirror a random half of the images.", flag="--flip/--no-flip", shown="by data"
    )
    randaugment_ops: int = option(0, "RandAugment: operations drawn for each image; 2 is usual.")
    randaugment_magnitude: float = option(
        7.0, "RandAugment: strength, 0 to 10, where 10 is the greatest that the paper has.", most=10
    )
    randaugment_magnitude_std: float = option(
        0.5, "RandAugment: spread of each operation's own strength, in the same units.", most=10
    )
    brightness: float = option(0.0, "Colour jitter: factor in [1 - x, 1 + x], not below 0, as in torchvision.")
    contrast: float = option(0.0, "Colour jitter: factor in [1 - x, 1 + x].")
    saturation: float = option(0.0, "Colour jitter: factor in [1 - x, 1 + x]; grayscale has none.")
    hue: float = option(
        0.0, "Colour jitter: rotation in [-x, x] of the circle, x at most 0.5; grayscale has none.", most=0.5
    )
    cutout_fraction: float = option(
        0.0, "Side of a square of zeros, part of the shorter side, anywhere, cut at the border.", most=1
    )
    erasing_probability: float = option(
        0.0, "Random erasing: share of images of which a rectangle becomes noise.", most=1
    )
    mixup_alpha: float = option(0.0, "Mixup: the weight of an image comes from Beta(alpha, alpha).")
    cutmix_alpha: float = option(
        0.0, "Cutmix: the area of an image comes from Beta(alpha, alpha); with mixup, half of the images each."
    )
    label_smoothing: float = option(0.0, "Share of each label that is spread evenly over all classes.", high=1)

    def __post_init__(self) -> None:
        check_options(self)
        shares = self.resized_crop
        if shares is not None and (
            not (isinstance(shares, tuple) and len(shares) == 2 and all(map(is_number, shares)))
            or not (0 < shares[0] <= shares[1] <= 1)
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


@dataclass(frozen=True, kw_only=True)
class Recipe(Augmentation):
    """How a network is trained: an augmentation, and what follows.

    Steps are optimizer updates; `learning_rate` is the schedule's peak.
    """

    epochs: int = option(10, "Passes over the training images.", low=1, shown="20 below 10,000 images, else 10")
    batch_size: int = option(64, "Images in a step.", low=1)
    max_steps: int | None = option(
        None, "Stop after this many steps in all, even within an epoch.", low=1, flag="--steps", shown="no limit"
    )
    optimizer: str = option("sgd", "What moves the weights.", choices=OPTIMIZERS)
    learning_rate: float | None = option(
        None, "The schedule's peak.", low_open=True, shown="for sgd 0.02 per 32 images of a batch, else 0.001"
    )
    momentum: float = option(0.9, "Nesterov's, of sgd.", high=1)
    weight_decay: float = option(5e-3, "Per step and learning rate (decoupled); not on BN and biases.")
    schedule: str = option(
        "cosine",
        "After the warm-up: cosine to 0, step (a tenth at 1/2 and at 3/4, as He et al.), or constant.",
        choices=SCHEDULES,
    )
    warmup_fraction: float = option(0.1, "Part of all steps in which the rate rises from 0 to its peak.", high=1)
    clip_norm: float | None = option(None, "Largest global norm of the gradient.", low_open=True, shown="no limit")
    class_balance: str | None = option(
        None,
        "Uneven classes: weights in the loss, or sampling of each equally often.",
        choices=CLASS_BALANCES,
        shown="as they come",
    )
    validation_split: float = option(0.1, "Stratified part of the training images that picks the best epoch.", high=1)
    dtype: str = option(
        "float32",
        "Of the arithmetic; in a mixed policy weights, BN's statistics and the head stay float32.",
        choices=DTYPES,
    )
    steps_per_execution: int | None = option(
        None, "Steps between two returns to Python.", low=1, shown="8 where a step is small, else 1"
    )
    reestimate_bn: bool | None = option(
        None, "Re-estimate BN after training.", shown=f"where it had fewer than {SHORT_TRAINING_STEPS} steps"
    )
    seed: int = option(0, "Of weights, order, splits and augmentation.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed >= 2**32:
            raise InputError(f"seed must be below 2**32. Received: {self.seed}.")

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
