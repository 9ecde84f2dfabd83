"""Options and kinds of values that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import click

from keras_resnet import recipes

COUNT = "0*[1-9][0-9]{0,8}"  # a number of at least 1, as people write it


class ImageSize(click.ParamType):
    """An image size: `96`, or `96x128` for height and width."""

    name = "N|HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """(height, width); click's usage error otherwise."""
        match = re.fullmatch(rf"({COUNT})(?:x({COUNT}))?", str(value))
        if not match:
            raise click.BadParameter(
                f"an image size must be N or HEIGHTxWIDTH, in pixels of at least 1. Received: {value!r}.", ctx, param
            )
        return int(match[1]), int(match[2] or match[1])


class CountOrAll(click.ParamType):
    """A number of images, or `all`."""

    name = "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """The number, or "all"; click's usage error otherwise."""
        if value == "all":
            return value
        if not re.fullmatch(COUNT, str(value)):
            self.fail(f"must be a number of images of at least 1, or 'all'. Received: {value!r}.", param, ctx)
        return int(value)


class Amount(click.ParamType):
    """A count as people write it: `300k`, `2.3M`, `4G`."""

    name = "N[k|M|G]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The count; click's usage error otherwise."""
        match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)([kKMG]?)", str(value), re.ASCII)
        amount = round(float(match[1]) * {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}[match[2].upper()]) if match else 0
        if amount < 1:
            self.fail(f"must be a number of at least 1, such as 300k, 2.3M or 4G. Received: {value!r}.", param, ctx)
        return amount


_AUGMENTATION_OPTIONS = {
    "resized_crop": click.option(
        "--resized-crop", type=float, nargs=2, metavar="LEAST GREATEST", help="Random crop, shares of the area."
    ),
    "shift_fraction": click.option(
        "--shift-fraction", type=float, help="Random shift, part of a side.  [default: by data]"
    ),
    "horizontal_flip": click.option(
        "--flip/--no-flip", "horizontal_flip", default=None, help="Mirror half of the images.  [default: by data]"
    ),
    "randaugment_ops": click.option("--randaugment-ops", type=int, help="RandAugment operations per image, usually 2."),
    "randaugment_magnitude": click.option("--randaugment-magnitude", type=float, help="0 to 10.  [default: 7]"),
    "randaugment_magnitude_std": click.option(
        "--randaugment-magnitude-std", type=float, help="Noise on the magnitude.  [default: 0.5]"
    ),
    "brightness": click.option("--brightness", type=float, help="Colour jitter: factor 1 - x to 1 + x."),
    "contrast": click.option("--contrast", type=float, help="Colour jitter: factor 1 - x to 1 + x."),
    "saturation": click.option("--saturation", type=float, help="Colour jitter: factor 1 - x to 1 + x; not on gray."),
    "hue": click.option("--hue", type=float, help="Colour jitter: up to this part of the circle, 0.5; not on gray."),
    "cutout_fraction": click.option("--cutout-fraction", type=float, help="Side of a black square, part of a side."),
    "erasing_probability": click.option(
        "--erasing-probability", type=float, help="Images of which a rectangle becomes noise."
    ),
    "mixup_alpha": click.option("--mixup-alpha", type=float, help="Mixup, weights from Beta(alpha, alpha)."),
    "cutmix_alpha": click.option("--cutmix-alpha", type=float, help="Cutmix, areas from Beta(alpha, alpha)."),
    "label_smoothing": click.option("--label-smoothing", type=float, help="Share of a label spread over all classes."),
}
_RECIPE_OPTIONS = {
    "epochs": click.option(
        "--epochs", type=int, help="Passes over the training images.  [default: 20 below 10,000 images, else 10]"
    ),
    "max_steps": click.option("--steps", "max_steps", type=int, help="Stop after this many steps in all."),
    "batch_size": click.option("--batch-size", type=int, help="Images per step.  [default: 64]"),
    "optimizer": click.option("--optimizer", help=f"{', '.join(recipes.OPTIMIZERS)}.  [default: sgd]"),
    "learning_rate": click.option(
        "--learning-rate", type=float, help="Peak.  [default: sgd 0.02 per 32 images, adam 0.001]"
    ),
    "momentum": click.option("--momentum", type=float, help="Of sgd.  [default: 0.9]"),
    "weight_decay": click.option(
        "--weight-decay", type=float, help="Decoupled; not on BN and biases.  [default: 0.005]"
    ),
    "schedule": click.option("--schedule", help=f"{', '.join(recipes.SCHEDULES)}.  [default: cosine]"),
    "warmup_fraction": click.option("--warmup-fraction", type=float, help="Of all steps, linear.  [default: 0.1]"),
    "clip_norm": click.option("--clip-norm", type=float, help="Largest global norm of the gradient."),
    **_AUGMENTATION_OPTIONS,
    "class_balance": click.option(
        "--class-balance",
        help=f"Uneven classes: {', '.join(recipes.CLASS_BALANCES)}.  [default: as they come]",
    ),
    "validation_split": click.option(
        "--validation-split", type=float, help="Part of the training images that picks the epoch.  [default: 0.1]"
    ),
    "dtype": click.option(
        "--dtype", help=f"Of the arithmetic: {', '.join(recipes.DTYPES)}; the head stays float32.  [default: float32]"
    ),
    "steps_per_execution": click.option(
        "--steps-per-execution",
        type=int,
        help="Steps between two returns to Python.  [default: 8 where a step is small, else 1]",
    ),
    "reestimate_bn": click.option(
        "--reestimate-bn/--no-reestimate-bn",
        default=None,
        help=f"Re-estimate BN after training.  [default: below {recipes.SHORT_TRAINING_STEPS} steps]",
    ),
    "seed": click.option("--seed", type=int, help="Of weights, order, splits, augmentation.  [default: 0]"),
}
RECIPE_NAMES = tuple(_RECIPE_OPTIONS)  # the fields of a recipe that a command may be given


def recipe_options(command: Callable[..., Any], leave_out: tuple[str, ...] = ()) -> Callable[..., Any]:
    """Gives a command an option for each field of a recipe, but those in `leave_out`."""
    return _give(command, {name: option for name, option in _RECIPE_OPTIONS.items() if name not in leave_out})


def augmentation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command an option for each field of an augmentation."""
    return _give(command, _AUGMENTATION_OPTIONS)


def _give(command: Callable[..., Any], options: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    for option in reversed(list(options.values())):
        command = option(command)
    return command


def search_recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """As `recipe_options`, without what is searched and without a number of steps: trials have whole epochs."""
    searched = ("learning_rate", "weight_decay", "shift_fraction")
    return recipe_options(command, leave_out=(*searched, "max_steps", "validation_split"))


IMAGE_SIZE = click.option(
    "--image-size", type=ImageSize(), help="Input of the network.  [default: the images' own, else 224]"
)
TRAIN_SIZE = click.option("--train-size", type=CountOrAll(), default="all", help="Training images, drawn by the seed.")
DATA_DIR = click.option(
    "--data-dir", type=click.Path(), help="Where TFDS sets are.  [default: TFDS_DATA_DIR or TFDS' own folder]"
)

MEMORY_LIMIT = click.option(
    "--memory-limit",
    "memory_limit_bytes",
    type=Amount(),
    help="Bytes that the images may take; above, a TFDS set is streamed from its files.  [default: 8 GiB]",
)
ON_ERROR = click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    help="Images that cannot be decoded: stop there, or decode all once first and skip and count those.  [default: stop]",
)
NORMALIZE = click.option(
    "--normalize", type=click.Choice(recipes.NORMALIZATIONS), help="Whose mean and std.  [default: dataset]"
)

RESIZE = click.option(
    "--resize",
    type=click.Choice(recipes.RESIZES),
    default="host",
    help="Where training images are finished; 'device' sends arrays as they are stored and files as decoded bytes.",
)


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options of how data is read, as arguments of the jobs; None where not given."""
    return DATA_DIR(MEMORY_LIMIT(ON_ERROR(NORMALIZE(command))))


def take_data_options(options: dict[str, Any]) -> dict[str, Any]:
    """Takes what `data_options` gave out of a command's options and returns it for a job, whose defaults stay its own."""
    given = {name: options.pop(name) for name in ("memory_limit_bytes", "on_error", "normalize")}
    return {"data_dir": options.pop("data_dir"), **{k: value for k, value in given.items() if value is not None}}


class InputShape(click.ParamType):
    """The shape of an input: `32x32x3`, or `1024x1` for sequences."""

    name = "HxWxC|STEPSxC"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The shape as integers; click's usage error otherwise."""
        sizes = str(value).split("x")
        if not 2 <= len(sizes) <= 3 or not all(re.fullmatch(COUNT, size) for size in sizes):
            self.fail(
                f"must be HEIGHTxWIDTHxCHANNELS or STEPSxCHANNELS, each at least 1. Received: {value!r}.", param, ctx
            )
        return tuple(map(int, sizes))


class PngPath(click.ParamType):
    """The name of a PNG file to write."""

    name = "FILE.png"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name; click's usage error otherwise."""
        if not str(value).lower().endswith(".png"):
            self.fail(f"must be the name of a .png file. Received: {value!r}.", param, ctx)
        return str(value)
