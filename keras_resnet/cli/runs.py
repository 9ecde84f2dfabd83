"""Commands over a run folder: train, evaluate, predict."""

from __future__ import annotations

import json
from typing import Any

import click

from keras_resnet import recipes, specs
from keras_resnet.cli.options import (
    DATA_DIR,
    IMAGE_SIZE,
    PREPARE_ON,
    TRAIN_SIZE,
    CountOrAll,
    data_options,
    recipe_options,
    take_data_options,
)
from keras_resnet.errors import InputError


@click.command()
@click.argument("data")
@click.option("--model", help="See 'keras-resnet models'.  [default: resnet20_cifar up to 64 pixels, else resnet18]")
@click.option("--from", "search_dir", type=click.Path(), help="A search: train its winner, by its recipe, on its data.")
@click.option("--run-dir", type=click.Path(), help="New folder.  [default: runs/MODEL_DATA_seedSEED]")
@IMAGE_SIZE
@TRAIN_SIZE
@click.option("--test-size", type=CountOrAll(), default="all", help="Test images, drawn by the seed.")
@data_options
@PREPARE_ON
@recipe_options
def train(
    data: str,
    model: str | None,
    search_dir: str | None,
    run_dir: str | None,
    image_size: tuple[int, int] | None,
    train_size: int | str,
    test_size: int | str,
    prepare_on: str,
    **options: Any,
) -> None:
    """Train a network on DATA and leave a run folder.

    DATA is 'digits' (comes along), a TFDS name such as 'mnist' or 'cifar10', a folder with one sub-folder per
    class, or an .npz file.
    """
    if model is not None and search_dir is not None:
        raise InputError(f"--from brings its own network, so --model must be left out. Received: {model!r}.")
    if model is not None:
        specs.get_spec(model)  # a misspelt name fails before TensorFlow loads
    how = take_data_options(options)
    given = {name: value for name, value in options.items() if value is not None}
    recipes.Recipe(**given)
    from keras_resnet import jobs

    run = jobs.train(
        data,
        model=model,
        search_dir=search_dir,
        run_dir=run_dir,
        image_size_pixels=image_size,
        train_size=None if train_size == "all" else int(train_size),
        test_size=None if test_size == "all" else int(test_size),
        prepare_on=prepare_on,
        recipe=given,
        verbose=1,
        **how,
    )
    record = run.record
    click.echo(
        f"{run.spec.name} on {data}: test accuracy {record.test.accuracy:.4f}, loss {record.test.loss:.4f} on "
        f"{record.test.num_examples} images; {record.steps} steps, {record.seconds['total']:.0f} s; in {run.path}"
    )


@click.command()
@click.argument("run", type=click.Path())
@click.option("--test-size", type=CountOrAll(), help="Test images, drawn by the run's seed.  [default: as in the run]")
@click.option("--batch-size", type=click.IntRange(min=1), help="Images at a time.  [default: the run's]")
@DATA_DIR
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


@click.command()
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
        name = click.format_filename(prediction.path)  # which need not be UTF-8
        click.echo(f"{name}: " + ", ".join(f"{label} {probability:.4f}" for label, probability in pairs))
