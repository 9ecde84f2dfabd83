"""SavedModels for TensorFlow Serving: written beside, proved, renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet.data.preprocess import MAX_PIXELS
from keras_resnet.environment import describe_versions
from keras_resnet.errors import ExportFailed, InputError
from keras_resnet.export import verify, warmup
from keras_resnet.export.fold import as_functional, rewrite
from keras_resnet.export.folders import LABELS_FILE, new_version
from keras_resnet.export.heads import cut_head
from keras_resnet.inputs import Preprocessing
from keras_resnet.records import is_count


def export_saved_model(
    model: keras.Model,
    path: str | os.PathLike[str],
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    *,
    name: str | None = None,
    version: int | None = None,
    warm_up: bool | None = None,
    images: Any = None,
    max_pixels: int = MAX_PIXELS,
) -> Path:
    """`softmax(network(preprocess(images)))` as `path/name/version/`, a SavedModel that TensorFlow Serving loads.

    Signatures, all of dynamic batch: `serving_default` (uint8 `images`, (batch, height, width, channels), any size),
    `serve_float` (the same, float32) and `serve_bytes` (`image_bytes`, PNG or JPEG files; for 1 and 3 channels) give
    `probabilities` and `logits`, (batch, classes), `class_ids` and `class_names`, (batch, min(5, classes)), by falling
    probability; `features` gives the pooled embedding of uint8 `images`. A network of sequences has `serving_default` and
    `features` of float32 `sequences`, (batch, steps, channels). BN is folded (`fold_batchnorm`), weights are constants.
    Without preprocessing, a network with an open side takes images as large as they come: of its fixed side, and all
    files of a `serve_bytes` batch of one size; others are an error.

    What was written is run before it gets its name: in fresh processes with TensorFlow alone, with oneDNN and without,
    every signature at batch 1 and 7 against the Keras model, and every warm-up request.

    Args:
        model: ends in logits or a softmax; it is left as it is.
        path: the folder over all models.
        preprocessing: what the network saw in training; None resizes with pad to the network's input and scales
            nothing.
        class_names: of the outputs, by default "0", "1", ...; also stored in `assets/labels.txt`, one per line.
        name: of the model's folder, by default the model's.
        version: of the model, by default the one after the highest there.
        warm_up: whether to write warm-up requests, which takes tensorflow-serving-api (extra "serving"); by default where
            it is installed.
        images: uint8 (at least 7, height, width, channels) to verify with; by default crops of photographs.
        max_pixels: height times width above which `serve_bytes` refuses an image.

    Returns:
        The version's folder; what was verified is in its `export.json`.

    Raises:
        InputError: a version that exists, class names that do not fit, a model without logits, ...
        ExportFailed: what was written cannot be served or differs from the model; nothing is left of it.
        SaveError: no permission, a full disk; nothing is left.
    """
    import tensorflow as tf

    from keras_resnet.export.signatures import ServedModel

    model = as_functional(model)
    check_preprocessing(model, preprocessing)
    reference = verify.Reference(model, preprocessing)
    network = cut_head(rewrite(model, native_groups=True, pair_groups=True, slice_pools=True))
    names = check_class_names(class_names, network.output_shape[0][-1])
    check_images(images, model)
    if not is_count(max_pixels):
        raise InputError(f"max_pixels must be a whole number of at least 1. Received: {max_pixels!r}.")
    warm_up = warmup.choose_warm_up(warm_up)
    with new_version(path, choose_name(model, name), version) as new:
        with tempfile.TemporaryDirectory() as scratch:
            labels = Path(scratch) / LABELS_FILE  # TensorFlow copies it
            write_labels(labels, names)
            served = ServedModel(network, preprocessing, names, labels, max_pixels)
            signatures = served.make_signatures()
            tf.saved_model.save(served, str(new.partial), signatures=signatures)
        cases = verify.make_cases(reference, signatures, images, max_pixels)
        requests = warmup.write_warmup(new.partial, new.name, cases) if warm_up else 0
        tolerance = verify.choose_tolerance(model)
        results = verify.verify_saved_model(new.partial, cases, names, tolerance)
        answered = [result["warmup"] for result in results.values()]
        if any(count != requests for count in answered):
            raise ExportFailed(f"All {requests} warm-up requests must be answered. Received: {answered} answers.")
        new.write_record(
            {
                "input_shape": list(network.input_shape[1:]),
                "class_names": names,
                "preprocessing": None if preprocessing is None else preprocessing.to_dict(),
                "signatures": sorted(signatures),
                "max_pixels": int(max_pixels),
                "warm_up_requests": requests,
                "verified": {
                    "batch_sizes": list(verify.BATCH_SIZES),
                    "tolerance": tolerance,
                    "differences": {setting: result["differences"] for setting, result in results.items()},
                },
                "versions": describe_versions("tensorflow-serving-api"),
            }
        )
    return new.path


def choose_name(model: keras.Model, name: str | None) -> str:
    """The name given, else the model's."""
    return model.name if name is None else name


def write_labels(path: Path, names: Sequence[str]) -> None:
    """Writes the class names, a line each, in the order of the outputs."""
    path.write_text("".join(f"{name}\n" for name in names), "utf-8")


def check_preprocessing(model: keras.Model, preprocessing: Preprocessing | None) -> None:
    """Raises InputError unless `preprocessing` gives what `model` takes."""
    if preprocessing is None:
        return
    if not isinstance(preprocessing, Preprocessing):
        raise InputError(f"preprocessing must be a keras_resnet.Preprocessing or None. Received: {preprocessing!r}.")
    shape = tuple(model.input_shape[1:])
    fits = len(shape) == 3 and all(
        side in (None, given) for side, given in zip(shape, preprocessing.input_shape, strict=True)
    )
    if not fits:
        raise InputError(
            f"{model.name}: preprocessing must give the network's input, {shape}. Received: one that gives "
            f"{preprocessing.input_shape}."
        )


def check_class_names(class_names: Sequence[str] | None, classes: int) -> list[str]:
    """The names as a list, by default numbers; raises InputError unless there is one line of text for each class."""
    if class_names is None:
        return [str(index) for index in range(classes)]
    names = list(class_names) if isinstance(class_names, Iterable) else [class_names]
    odd = [name for name in names if not _is_line(name)]
    if isinstance(class_names, str) or len(names) != classes or odd:
        received = f"{odd[0]!r}" if odd else f"{len(names)} names"
        raise InputError(f"class_names must be {classes} strings of one line each. Received: {received}.")
    return names


def _is_line(name: Any) -> bool:
    if not isinstance(name, str) or name.splitlines() != [name]:
        return False
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:  # half of a pair of surrogates
        return False
    return True


def check_images(images: Any, model: keras.Model) -> None:
    """Raises InputError unless `images` is None or can be verified with."""
    if images is None:
        return
    count, channels = max(verify.BATCH_SIZES), model.input_shape[-1]
    shape: Any = getattr(images, "shape", ())
    if len(shape) != 4 or shape[0] < count or shape[3] != channels or np.asarray(images).dtype != np.uint8:
        raise InputError(
            f"images must be uint8, (at least {count}, height, width, {channels}). Received: "
            f"{getattr(images, 'dtype', type(images).__name__)}, shape {tuple(shape)}."
        )
