"""Options and kinds of values that several commands share."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

import click

from keras_resnet import inputs, recipes
from keras_resnet.records import Record, get_plain_type, list_options

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


def _make_option(field: dataclasses.Field[Any], kind: Any) -> Callable[..., Any]:
    """The option of a field that `records.option` made: what it says there is what `--help` says."""
    facts = field.metadata
    flag = facts.get("flag", "--" + field.name.replace("_", "-"))
    plain = get_plain_type(kind)
    arguments: dict[str, Any] = {"type": plain}
    if plain is bool:
        flag = flag if "/" in flag else f"{flag}/--no-{flag.removeprefix('--')}"
        arguments = {}
    elif typing.get_origin(plain) is tuple:
        arguments = {"type": typing.get_args(plain)[0], "nargs": len(typing.get_args(plain))}
    if "metavar" in facts:
        arguments["metavar"] = facts["metavar"]
    text = facts["help"]
    if "choices" in facts:
        text += f" One of {', '.join(facts['choices'])}."
    default = facts.get("shown", "off" if field.default in (None, 0, False) and kind is not int else field.default)
    return click.option(flag, field.name, default=None, help=f"{text}  [default: {default}]", **arguments)


def _make_options(record: type[Record]) -> dict[str, Callable[..., Any]]:
    return {field.name: _make_option(field, kind) for field, kind in list_options(record)}


_AUGMENTATION_OPTIONS = _make_options(recipes.Augmentation)
# How a network is trained comes before how its images are changed.
_RECIPE_OPTIONS = dict(sorted(_make_options(recipes.Recipe).items(), key=lambda item: item[0] in _AUGMENTATION_OPTIONS))
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
    type=click.Choice(inputs.ON_ERROR),
    help="Images that cannot be decoded: stop there, or decode all once first and skip and count those.  [default: stop]",
)
NORMALIZE = click.option(
    "--normalize", type=click.Choice(inputs.NORMALIZATIONS), help="Whose mean and std.  [default: dataset]"
)

PREPARE_ON = click.option(
    "--prepare-on",
    type=click.Choice(inputs.PREPARE_ON),
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
