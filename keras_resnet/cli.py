"""The command line: parse, one call, report. Heavy imports happen inside the commands."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click

from keras_resnet import recipes, specs
from keras_resnet.errors import InputError, SaveError
from keras_resnet.files import write_beside

_COUNT = "0*[1-9][0-9]{0,8}"  # a number of at least 1, as people write it


class _ImageSize(click.ParamType):
    name = "N|HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        match = re.fullmatch(rf"({_COUNT})(?:x({_COUNT}))?", str(value))
        if not match:
            raise click.BadParameter(
                f"an image size must be N or HEIGHTxWIDTH, in pixels of at least 1. Received: {value!r}.", ctx, param
            )
        return int(match[1]), int(match[2] or match[1])


class _CountOrAll(click.ParamType):
    name = "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == "all":
            return value
        if not re.fullmatch(_COUNT, str(value)):
            self.fail(f"must be a number of images of at least 1, or 'all'. Received: {value!r}.", param, ctx)
        return int(value)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110})
@click.version_option(package_name="keras-native-resnet", prog_name="keras-resnet")
def cli() -> None:
    """Residual networks for Keras: train, evaluate, use."""


def main() -> None:
    """Entry point of the console script: errors of use become one line and exit status 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("keras_resnet").setLevel(logging.INFO)
    try:
        cli.main(prog_name="keras-resnet", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (InputError, SaveError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Stopped.", err=True)
        sys.exit(130)


_RECIPE_OPTIONS = (
    click.option(
        "--epochs", type=int, help="Passes over the training images.  [default: 20 below 10,000 images, else 10]"
    ),
    click.option("--steps", "max_steps", type=int, help="Stop after this many steps in all."),
    click.option("--batch-size", type=int, help="Images per step.  [default: 64]"),
    click.option("--optimizer", help=f"{', '.join(recipes.OPTIMIZERS)}.  [default: sgd]"),
    click.option("--learning-rate", type=float, help="Peak.  [default: sgd 0.02 per 32 images, adam 0.001]"),
    click.option("--momentum", type=float, help="Of sgd.  [default: 0.9]"),
    click.option("--weight-decay", type=float, help="Decoupled; not on BN and biases.  [default: 0.005]"),
    click.option("--schedule", help=f"{', '.join(recipes.SCHEDULES)}.  [default: cosine]"),
    click.option("--warmup-fraction", type=float, help="Of all steps, linear.  [default: 0.1]"),
    click.option("--clip-norm", type=float, help="Largest global norm of the gradient."),
    click.option("--shift-fraction", type=float, help="Random shift, part of a side.  [default: by data]"),
    click.option(
        "--flip/--no-flip", "horizontal_flip", default=None, help="Mirror half of the images.  [default: by data]"
    ),
    click.option(
        "--validation-split", type=float, help="Part of the training images that picks the epoch.  [default: 0.1]"
    ),
    click.option(
        "--reestimate-bn/--no-reestimate-bn",
        default=None,
        help=f"Re-estimate BN after training.  [default: below {recipes.SHORT_TRAINING_STEPS} steps]",
    ),
    click.option("--seed", type=int, help="Of weights, order, splits, augmentation.  [default: 0]"),
)


def _recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_RECIPE_OPTIONS):
        command = option(command)
    return command


_DATA_DIR = click.option(
    "--data-dir", type=click.Path(), help="Where TFDS sets are.  [default: TFDS_DATA_DIR or TFDS' own folder]"
)


@cli.command()
@click.argument("data")
@click.option("--model", help="See 'keras-resnet models'.  [default: resnet20_cifar up to 64 pixels, else resnet18]")
@click.option("--run-dir", type=click.Path(), help="New folder.  [default: runs/MODEL_DATA_seedSEED]")
@click.option("--image-size", type=_ImageSize(), help="Input of the network.  [default: the images' own, else 224]")
@click.option("--train-size", type=_CountOrAll(), default="all", help="Training images, drawn by the seed.")
@click.option("--test-size", type=_CountOrAll(), default="all", help="Test images, drawn by the seed.")
@_DATA_DIR
@_recipe_options
def train(
    data: str,
    model: str | None,
    run_dir: str | None,
    image_size: tuple[int, int] | None,
    train_size: int | str,
    test_size: int | str,
    data_dir: str | None,
    **recipe: Any,
) -> None:
    """Train a network on DATA and leave a run folder.

    DATA is 'digits' (comes along), a TFDS name such as 'mnist' or 'cifar10', a folder with one sub-folder per
    class, or an .npz file.
    """
    if model is not None:
        specs.get_spec(model)  # a misspelt name fails before TensorFlow loads
    given = {name: value for name, value in recipe.items() if value is not None}
    recipes.Recipe(**given)
    from keras_resnet import jobs

    run = jobs.train(
        data,
        model=model,
        run_dir=run_dir,
        image_size_pixels=image_size,
        train_size=None if train_size == "all" else int(train_size),
        test_size=None if test_size == "all" else int(test_size),
        data_dir=data_dir,
        recipe=given,
        verbose=1,
    )
    test, seconds = run.record["test"], run.record["seconds"]["total"]
    click.echo(
        f"{run.spec.name} on {data}: test accuracy {test['accuracy']:.4f}, loss {test['loss']:.4f} on "
        f"{test['num_examples']} images; {run.record['steps']} steps, {seconds:.0f} s; in {run.path}"
    )


@cli.command()
@click.argument("run", type=click.Path())
@click.option("--test-size", type=_CountOrAll(), help="Test images, drawn by the run's seed.  [default: as in the run]")
@click.option("--batch-size", type=click.IntRange(min=1), help="Images at a time.  [default: the run's]")
@_DATA_DIR
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(
    run: str, test_size: int | str | None, batch_size: int | None, data_dir: str | None, as_json: bool
) -> None:
    """Evaluate the model of RUN on its test split."""
    from keras_resnet import jobs

    evaluation = jobs.evaluate(
        run, test_size=test_size, batch_size=batch_size, data_dir=data_dir, verbose=0 if as_json else 1
    )
    if as_json:
        click.echo(json.dumps(evaluation.to_dict()))
    else:
        click.echo(
            f"test accuracy {evaluation.accuracy:.4f}, loss {evaluation.loss:.4f} on {evaluation.num_examples} images"
        )


@cli.command()
@click.argument("run", type=click.Path())
@click.argument("images", type=click.Path(), nargs=-1, required=True)
@click.option("--top-k", type=click.IntRange(min=1), default=5, help="Classes to print for each image.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line per image.")
def predict(run: str, images: tuple[str, ...], top_k: int, as_json: bool) -> None:
    """Classify PNG and JPEG IMAGES of any size with the model of RUN."""
    from keras_resnet import jobs

    for prediction in jobs.predict(run, images, top_k=top_k):
        if as_json:
            click.echo(json.dumps(prediction.to_dict()))
            continue
        pairs = zip(prediction.class_names, prediction.probabilities, strict=True)
        click.echo(f"{prediction.path}: " + ", ".join(f"{name} {probability:.4f}" for name, probability in pairs))


@cli.command()
@click.argument("pattern", default="*")
def models(pattern: str) -> None:
    """List the networks whose name matches PATTERN, such as 'resnet*_cifar'."""
    names = specs.list_models(pattern)
    if not names:
        specs.get_row(pattern)  # a member of a family that is not listed, or an error that names the nearest
        names = [pattern]
    table = _table("name", "parameters", "trainable", "multiply-adds", "input", last="paper")
    for name in names:
        row = specs.get_row(name)
        table.add_row(
            name,
            f"{specs.count_params(name):,}",
            f"{specs.count_params(name, trainable_only=True):,}",
            f"{specs.count_macs(name):,}",
            "x".join(map(str, row.input_shape)) + f" -> {row.classes}",
            row.source,
        )
    _print(table)
    _print(f"and {', '.join(specs.list_families())}, for any n >= 1, groups and width")


class _InputShape(click.ParamType):
    name = "HxWxC|STEPSxC"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        sizes = str(value).split("x")
        if not 2 <= len(sizes) <= 3 or not all(re.fullmatch(_COUNT, size) for size in sizes):
            self.fail(
                f"must be HEIGHTxWIDTHxCHANNELS or STEPSxCHANNELS, each at least 1. Received: {value!r}.", param, ctx
            )
        return tuple(map(int, sizes))


class _PngPath(click.ParamType):
    name = "FILE.png"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not str(value).lower().endswith(".png"):
            self.fail(f"must be the name of a .png file. Received: {value!r}.", param, ctx)
        return str(value)


@cli.command()
@click.argument("name")
@click.option("--input-shape", type=_InputShape(), help="Of images or sequences.  [default: of the network's source]")
@click.option("--classes", type=click.IntRange(min=1), help="Outputs.  [default: of the network's source]")
@click.option("--output-stride", type=int, help="8 or 16: strides beyond it become dilations.")
@click.option("--plot", type=_PngPath(), help="Draw the network into this PNG file.")
def show(
    name: str, input_shape: tuple[int, ...] | None, classes: int | None, output_stride: int | None, plot: str | None
) -> None:
    """Show the network NAME by stages, as a table and as a picture."""
    row = specs.get_row(name)
    spec = replace(row.spec, output_stride=output_stride)
    shape, classes = input_shape or row.input_shape, classes or row.classes
    sections = specs.summarize(spec, shape, classes)
    parameters, multiply_adds = (sum(getattr(s, key) for s in sections) for key in ("parameters", "multiply_adds"))
    heading = f"{name}: {parameters:,} parameters, {multiply_adds:,} multiply-adds at {'x'.join(map(str, shape))}"
    conventions = specs.describe_conventions(spec)
    if plot is not None:
        from keras_resnet import plots

        figure = plots.plot_network(sections, shape, title=heading, subtitle=conventions)
        write_beside(plot, lambda path: plots.save_figure(figure, path))
    table = _table("section", "output", "parameters", "multiply-adds", last="what")
    for section in sections:
        output = "x".join(map(str, section.output_shape))
        table.add_row(section.name, output, f"{section.parameters:,}", f"{section.multiply_adds:,}", section.text)
    _print(heading, f"{conventions}; {row.source}", "", table)


def _table(*headings: str, last: str) -> Any:
    """A table whose first column is a name, whose last is text, and between them figures."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(headings[0], no_wrap=True)
    for heading in headings[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(last)
    return table


def _print(*parts: Any) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160, markup=False)
    for part in parts:
        console.print(part, highlight=False)


if __name__ == "__main__":
    main()
