"""The command over an export."""

from __future__ import annotations

import click

from keras_resnet.cli.options import DATA_DIR
from keras_resnet.export.formats import FORMATS


@click.command()
@click.argument("run", type=click.Path())
@click.argument("dest", type=click.Path())
@click.option("--format", default="saved_model", help=f"{', '.join(FORMATS)}.")
@click.option("--name", help="Of the model's folder in DEST.  [default: the network's]")
@click.option("--version", type=click.IntRange(min=1), help="[default: the one after the highest in DEST/NAME]")
@click.option(
    "--warm-up/--no-warm-up",
    default=None,
    help="Write TensorFlow Serving's warm-up requests.  [default: if tensorflow-serving-api is installed]",
)
@click.option("--int8", is_flag=True, help="8-bit integers inside, calibrated on training images; litert only.")
@click.option("--calibration-size", type=click.IntRange(min=1), default=256, help="Images to calibrate with.")
@DATA_DIR
def export(
    run: str,
    dest: str,
    format: str,
    name: str | None,
    version: int | None,
    warm_up: bool | None,
    int8: bool,
    calibration_size: int,
    data_dir: str | None,
) -> None:
    """Write the model of RUN to DEST/NAME/VERSION for a server, verified.

    A SavedModel is for TensorFlow Serving: images of any size, as arrays or as PNG and JPEG files. The other formats take
    images at the network's size.
    """
    from keras_resnet import jobs
    from keras_resnet.export.record import ConvertedRecord, read_export
    from keras_resnet.jobs.export_job import Int8Accuracy

    path = jobs.export_run(
        run,
        dest,
        format=format,
        name=name,
        version=version,
        warm_up=warm_up,
        int8=int8,
        calibration_size=calibration_size,
        data_dir=data_dir,
    )
    record = read_export(path)
    click.echo(f"{record.format} of {record.name}, version {record.version}, verified; in {path}")
    if isinstance(record, ConvertedRecord) and record.measured is not None:
        measured = Int8Accuracy.from_dict(record.measured)
        click.echo(
            f"test accuracy {measured.int8_accuracy:.4f} as int8, {measured.float_accuracy:.4f} as float, on "
            f"{measured.test_images} images"
        )
