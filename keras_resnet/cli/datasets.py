"""The command data: what is in a data set."""

from __future__ import annotations

import json
from typing import Any

import click

from keras_resnet import recipes
from keras_resnet.cli.options import IMAGE_SIZE, PngPath, augmentation_options, data_options, take_data_options
from keras_resnet.cli.tables import make_table, print_all


@click.command()
@click.argument("data")
@IMAGE_SIZE
@data_options
@click.option(
    "--plot", type=PngPath(), help="Draw images of each class, as they are and augmented, into this PNG file."
)
@augmentation_options
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the images drawn and their augmentation.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def data(
    data: str,
    image_size: tuple[int, int] | None,
    plot: str | None,
    seed: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Show what is in DATA: images per class, sizes, mean and std, and how a training would change them.

    DATA is as for 'train'.
    """
    how = take_data_options(options)
    normalize = how.get("normalize", "dataset")
    given = {name: value for name, value in options.items() if value is not None}
    recipes.Augmentation(**given)  # a mistake fails before TensorFlow loads
    from keras_resnet import jobs

    report = jobs.inspect_data(
        data,
        image_size_pixels=image_size,
        augmentation=given,
        seed=seed,
        plot=plot,
        **how,
    )
    if as_json:
        click.echo(json.dumps(report.to_dict()))
        return
    rows = (("training", report.train_counts), ("test", report.test_counts))
    table = make_table("class", "training", "test", last="")
    for name, *counts in zip(report.class_names, report.train_counts, report.test_counts, strict=True):
        table.add_row(name, *(f"{count:,}" for count in counts), "")
    small, large = (f"{height}x{width}" for height, width in (report.smallest, report.largest))
    height, width, channels = report.preprocessing.input_shape
    most, least = max(report.train_counts), min(report.train_counts)
    uneven = f"; {most / least:.1f} times as many of one class as of another" if least and most > 1.5 * least else ""
    changes = {
        name: value
        for name, value in report.augmentation.to_dict().items()
        if value != getattr(recipes.NO_AUGMENTATION, name)
    }
    print_all(
        f"{report.name} ({report.origin}): "
        + ", ".join(f"{sum(counts):,} {part}" for part, counts in rows)
        + " images",
        table,
        f"{len(report.class_names)} classes{uneven}",
        f"sizes: {small if small == large else f'{small} to {large}'}, {channels} channels; "
        f"{report.stored_bytes / 2**20:,.1f} MiB {report.stored}",
        f"network's input: {height}x{width}x{channels}, {height * width * channels * 4 / 2**10:,.1f} KiB an image",
        "mean "
        + ", ".join(f"{value:.4f}" for value in report.preprocessing.mean)
        + "; std "
        + ", ".join(f"{value:.4f}" for value in report.preprocessing.std)
        + " of pixel / 255, "
        + ("over the training images" if normalize == "dataset" else f"the usual constants of {normalize}"),
        *_describe_turned(*report.turned),
        "augmentation: " + (", ".join(f"{name}={value}" for name, value in changes.items()) or "none"),
    )


def _describe_turned(turned: int, looked_at: int) -> tuple[str, ...]:
    if not turned:
        return ()
    return (
        f"EXIF: {turned:,} of {looked_at:,} files looked at say that they are to be turned or mirrored for display, which "
        "training and serving ignore: turn their pixels first (PIL.ImageOps.exif_transpose)",
    )
