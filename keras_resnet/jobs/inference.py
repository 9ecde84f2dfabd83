"""What a finished run is used for: evaluate it again, classify images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_resnet import data as data_module
from keras_resnet import training
from keras_resnet.data import ImageData, Split
from keras_resnet.data.encoded import naming_undecodable
from keras_resnet.data.folders import UPRIGHT, read_header, warn_turned
from keras_resnet.errors import InputError
from keras_resnet.jobs.run_folder import Run, load_run
from keras_resnet.jobs.train_plan import draw_test
from keras_resnet.models import load_model


def evaluate(
    run_dir: str | os.PathLike[str],
    *,
    test_size: int | str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    batch_size: int | None = None,
    verbose: int | str = "auto",
) -> training.Evaluation:
    """Evaluates the model of a run on its test split.

    Args:
        run_dir: a finished run.
        test_size: a number of test images drawn by the run's seed, "all", or None for what the run itself used.
        data_dir: where TFDS sets are; by default where the run found them.
        batch_size: images at a time; by default the run's.
        verbose: of Keras' progress bar.

    Returns:
        Accuracy, mean cross-entropy, number of images, confusion matrix.

    Raises:
        InputError: no run there, its data is gone, comes from elsewhere or has other classes now.
    """
    run = load_run(run_dir)
    if isinstance(test_size, str) and test_size != "all":
        raise InputError(f"test-size must be a number of images or 'all'. Received: {test_size!r}.")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size must be at least 1. Received: {batch_size}.")
    images = load_run_data(run, data_dir)
    test = draw_run_test(run, images, test_size)
    return evaluate_split(run, load_model(run.model_path), test, batch_size=batch_size, verbose=verbose)


def evaluate_split(
    run: Run, model: Any, split: Split, *, batch_size: int | None = None, verbose: int | str = 0
) -> training.Evaluation:
    """Evaluates the loaded model of a run on images, prepared as the run did."""
    dataset = data_module.make_eval_dataset(split, run.preprocessing, batch_size=batch_size or run.recipe.batch_size)
    with naming_undecodable(split):
        return training.evaluate(model, dataset, split.labels, verbose=verbose)


def load_run_data(run: Run, data_dir: str | os.PathLike[str] | None = None) -> ImageData:
    """Loads the data that a run was trained on; raises InputError where it is gone or has become another."""
    recorded = run.record["data"]
    images = data_module.load_data(
        recorded["name"],
        data_dir=data_dir or recorded.get("data_dir"),
        memory_limit_bytes=recorded.get("memory_limit_bytes"),
        on_error=recorded.get("on_error", "stop"),
    )
    if images.origin != recorded["source"]:
        raise InputError(
            f"{run.path} was trained on {recorded['name']} from {recorded['source']}. Received: {images.origin}."
        )
    if images.class_names != run.class_names:
        raise InputError(
            f"The data must have the classes that {run.path} was trained on, {', '.join(run.class_names)}. "
            f"Received: {', '.join(images.class_names)}."
        )
    return images


def draw_run_test(run: Run, images: ImageData, test_size: int | str | None = None) -> Split:
    """The test images of a run: those it used, "all", or a number drawn by its seed."""
    size = run.record["data"]["test_size"] if test_size is None else None if test_size == "all" else int(test_size)
    return draw_test(images, size, run.recipe.seed)


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, by falling probability."""

    path: str
    class_names: tuple[str, ...]
    probabilities: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the prediction as JSON values."""
        return {"path": self.path, "class_names": list(self.class_names), "probabilities": list(self.probabilities)}


def predict(
    run_dir: str | os.PathLike[str], paths: Sequence[str | os.PathLike[str]], *, top_k: int = 5, batch_size: int = 32
) -> list[Prediction]:
    """Classifies PNG and JPEG files of any size with the model of a run.

    Args:
        run_dir: a finished run.
        paths: image files; resized with pad and normalized as in training.
        top_k: how many classes to return for each, at most all.
        batch_size: images at a time.

    Returns:
        One prediction per path, in order.

    Raises:
        InputError: no run there, no image, or a file that is not a PNG or JPEG image (its path).
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    if not paths:
        raise InputError("predict needs at least one image. Received: none.")
    if top_k < 1:
        raise InputError(f"top_k must be at least 1. Received: {top_k}.")
    run = load_run(run_dir)
    if run.preprocessing.channels not in (1, 3):
        raise InputError(
            "predict decodes images to 1 or 3 channels; with arrays call the model itself. "
            f"Received: a run with {run.preprocessing.channels} channels."
        )
    names = [os.fspath(path) for path in paths]
    warn_turned("predict", [name for name in names if read_header(name).orientation != UPRIGHT], len(names))
    model = load_model(run.model_path)
    split = Split(np.array(names), np.zeros(len(names), np.int64))
    dataset = data_module.make_eval_dataset(split, run.preprocessing, batch_size=batch_size)
    with naming_undecodable(split):
        logits = np.asarray(model.predict(dataset, verbose=0), np.float64)
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = exponentials / exponentials.sum(-1, keepdims=True)
    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top_k]
    return [
        Prediction(name, tuple(run.class_names[index] for index in row), tuple(float(values[index]) for index in row))
        for name, row, values in zip(names, order, probabilities, strict=True)
    ]
