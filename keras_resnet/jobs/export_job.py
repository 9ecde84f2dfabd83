"""A finished run as files for a server."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet import data as data_module
from keras_resnet import export
from keras_resnet.data import Split, draw_subset
from keras_resnet.data.encoded import naming_undecodable
from keras_resnet.errors import InputError
from keras_resnet.export.formats import check_options
from keras_resnet.jobs.inference import draw_run_test, evaluate_split, load_run_data
from keras_resnet.jobs.run_folder import Run, load_run
from keras_resnet.models import load_model
from keras_resnet.records import Record, check_types, is_count

CALIBRATION_SIZE = 256  # images; Jacob et al. 2018 and LiteRT's guide use some hundred


@dataclass(frozen=True)
class Int8Accuracy(Record):
    """What 8-bit integers cost: `measured` in the `export.json` of a run that was exported with `int8`."""

    test_images: int
    float_accuracy: float
    int8_accuracy: float
    calibration_images: int

    def __post_init__(self) -> None:
        check_types(self)


def export_run(
    run_dir: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    format: str = "saved_model",
    name: str | None = None,
    version: int | None = None,
    warm_up: bool | None = None,
    int8: bool = False,
    calibration_size: int = CALIBRATION_SIZE,
    data_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """`softmax(network(preprocess(images)))` of a run as `path/name/version/`, verified before it is there.

    Args:
        run_dir: a finished run; its preprocessing and class names go with the network.
        path: the folder over all models.
        format: "saved_model" (see `export_saved_model`), "onnx", "litert" or "openvino" (see `export_format`).
        name: of the model's folder, by default the network's.
        version: by default the one after the highest there.
        warm_up: whether a SavedModel gets warm-up requests; by default where tensorflow-serving-api is installed.
        int8: weights and activations of a LiteRT file as 8-bit integers. Needs the run's data: training images to
            calibrate with, test images for both accuracies in `export.json`.
        calibration_size: training images to calibrate with, drawn by the run's seed.
        data_dir: where TFDS sets are; by default where the run found them.

    Returns:
        The version's folder.

    Raises:
        InputError: no run there, an unknown format, an option of another format, a version that exists.
        ExportFailed: what was written cannot be run or differs from the model; nothing is left of it.
        SaveError: no permission, a full disk; nothing is left.
    """
    check_options(format, warm_up=warm_up, int8=int8)  # before a run is read for nothing
    if not is_count(calibration_size):
        raise InputError(f"calibration_size must be a number of images of at least 1. Received: {calibration_size!r}.")
    run = load_run(run_dir)
    model = load_model(run.model_path, compile=False)
    options: dict[str, Any] = {"name": name, "version": version}
    if format == "saved_model":
        return export.export_saved_model(model, path, run.preprocessing, run.class_names, warm_up=warm_up, **options)
    if int8:
        images = load_run_data(run, data_dir)
        calibration = draw_subset(
            images.train, min(calibration_size, len(images.train)), seed=run.recipe.seed, what="calibration"
        )
        test = draw_run_test(run, images)
        options["calibration"] = np.concatenate(list(_make_pixels(run, calibration)))
        options["measure"] = lambda runner: Int8Accuracy(
            test_images=len(test),
            float_accuracy=evaluate_split(run, model, test).accuracy,
            int8_accuracy=_measure(run, runner, test),
            calibration_images=len(calibration),
        ).to_dict()
    return export.export_format(model, path, format, run.preprocessing, run.class_names, **options)


def _make_pixels(run: Run, split: Split) -> Any:
    """Batches of images at the network's size, pixel values 0-255: what an exported file takes."""
    channels = run.preprocessing.channels
    unscaled = dataclasses.replace(run.preprocessing, mean=(0.0,) * channels, std=(1 / 255,) * channels)
    dataset = data_module.make_eval_dataset(split, unscaled, batch_size=run.recipe.batch_size)
    with naming_undecodable(split):
        for batch in dataset:
            yield np.asarray(batch[0] if isinstance(batch, tuple) else batch)


def _measure(run: Run, runner: Any, test: Split) -> float:
    """The share of test images that an exported file, loaded by its runtime, classifies right."""
    found = [np.asarray(runner(batch)["logits"]).argmax(-1) for batch in _make_pixels(run, test)]
    return float((np.concatenate(found) == test.labels).mean())
