"""ONNX, LiteRT and OpenVINO through Keras' own exporters, each proved by its own runtime."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet.environment import describe_versions
from keras_resnet.errors import ExportFailed, InputError, check_installed
from keras_resnet.export import runtimes, verify
from keras_resnet.export.check import compare
from keras_resnet.export.fold import as_functional, rewrite
from keras_resnet.export.folders import LABELS_FILE, MODEL_FILES, new_version
from keras_resnet.export.heads import cut_head
from keras_resnet.export.saved_model import (
    check_class_names,
    check_images,
    check_preprocessing,
    choose_name,
    write_labels,
)
from keras_resnet.inputs import Preprocessing
from keras_resnet.models import deep_graph
from keras_resnet.records import check_choice


def export_format(
    model: keras.Model,
    path: str | os.PathLike[str],
    format: str,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    *,
    name: str | None = None,
    version: int | None = None,
    calibration: Any = None,
    images: Any = None,
    measure: Callable[[runtimes.Runner], dict[str, Any]] | None = None,
) -> Path:
    """`softmax(network(normalize(images)))` as `path/name/version/model.onnx`, `.tflite` or `.xml`, verified by its runtime.

    The file takes float32 images, pixel values 0-255, *at the network's size* (batch, height, width, channels), of any
    batch; what resizes with pad is before it, in the client. It gives `probabilities` and `logits`, (batch, classes).
    `labels.txt` and `export.json` lie beside it. The folders are those that NVIDIA's and OpenVINO's model servers read.

    Args:
        model: ends in logits or a softmax; it is left as it is.
        path: the folder over all models.
        format: "onnx", "litert" or "openvino"; each is an extra of this package of the same name.
        preprocessing: what the network saw in training, of which the normalization becomes part of the file; None
            scales nothing.
        class_names: of the outputs, by default "0", "1", ...
        name: of the model's folder, by default the model's.
        version: of the model, by default the one after the highest there.
        calibration: images as the file takes them, (count, height, width, channels) float32 or a list: makes
            weights and activations int8, scaled by what these images cause; "litert" only. Jacob et al. 2018.
        images: uint8 (at least 7, height, width, channels) to verify with; by default crops of photographs.
        measure: called with the loaded file, a function from a float32 batch to outputs by name; what it returns is
            written into `export.json`.

    Returns:
        The version's folder.

    Raises:
        InputError: an unknown format, one whose packages are not installed, a calibration of another format, ...
        ExportFailed: the file cannot be run or differs from the model; nothing is left of it.
        SaveError: no permission, a full disk; nothing is left.
    """
    import tensorflow as tf

    check_choice("format", format, runtimes.PACKAGES)
    check_installed(f"The format {format!r}", runtimes.PACKAGES[format], format)
    model = as_functional(model)
    check_preprocessing(model, preprocessing)
    check_images(images, model)
    reference = verify.Reference(model, preprocessing)
    whole = _make_whole(model, preprocessing)
    names = check_class_names(class_names, whole.output["logits"].shape[-1])
    signature = tf.TensorSpec(whole.input.shape, tf.float32, whole.input.name)
    options = {} if calibration is None else _quantise(format, calibration, whole)
    with new_version(path, choose_name(model, name), version, format) as new:
        write_labels(new.partial / LABELS_FILE, names)
        file = str(new.partial / MODEL_FILES[format])
        with deep_graph(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the converters, about NumPy and themselves
            try:
                whole.export(file, format=format, verbose=False, input_signature=[signature], **options)
            except OSError:
                raise
            except Exception as error:  # converters raise what they like
                raise ExportFailed(f"{model.name} could not be converted to {format}: {error}") from error
        try:
            run = runtimes.load(new.partial, format)
        except Exception as error:  # runtimes raise what they like
            raise ExportFailed(f"The exported {format} file could not be run: {error}") from error
        differences = _verify(run, format, reference, images)
        tolerance = verify.choose_tolerance(model) if calibration is None else None
        if tolerance is not None:
            verify.check_differences(differences, tolerance, format)
        new.write_record(
            {
                "input_shape": list(whole.input_shape[1:]),
                "class_names": names,
                "preprocessing": None if preprocessing is None else preprocessing.to_dict(),
                "int8": calibration is not None,
                "measured": None if measure is None else measure(run),
                "verified": {
                    "batch_sizes": list(verify.BATCH_SIZES),
                    "tolerance": tolerance,
                    "differences": differences,
                },
                "versions": describe_versions(*runtimes.PACKAGES[format]),
            }
        )
    return new.path


def _make_whole(model: keras.Model, preprocessing: Preprocessing | None) -> keras.Model:
    """Normalization, folded network and softmax as one functional model with named outputs."""
    network = cut_head(rewrite(model, native_groups=True))
    shape = network.input_shape[1:]
    inputs = keras.Input(shape, name="images" if len(shape) == 3 else "sequences")
    x = inputs
    if preprocessing is not None:
        x = keras.layers.Rescaling(preprocessing.scale, preprocessing.offset, name="normalize")(x)
    logits, _ = network(x)
    probabilities = keras.layers.Softmax(name="probabilities", dtype="float32")(logits)
    return keras.Model(inputs, {"probabilities": probabilities, "logits": logits}, name=model.name)


def _quantise(format: str, calibration: Any, whole: keras.Model) -> dict[str, Any]:
    """Arguments of the LiteRT converter for 8-bit integers inside and float32 outside."""
    import tensorflow as tf

    if format != "litert":
        raise InputError(f"Only the format 'litert' can be made int8 with a calibration set. Received: {format!r}.")
    shape = tuple(whole.input_shape[1:])
    received = f"{type(calibration).__name__}, no array of numbers"
    try:
        images: np.ndarray = np.asarray(calibration, np.float32)
        received = f"shape {images.shape}" + ("" if np.isfinite(images).all() else ", not all of it numbers")
    except (ValueError, TypeError):  # of several sizes, or no numbers
        images = np.empty((0,), np.float32)
    if images.ndim != len(shape) + 1 or not len(images) or images.shape[1:] != shape or not np.isfinite(images).all():
        raise InputError(
            f"calibration must be finite images as the file takes them, (at least 1, {', '.join(map(str, shape))}). "
            f"Received: {received}."
        )
    return {
        "optimizations": [tf.lite.Optimize.DEFAULT],
        "representative_dataset": lambda: ([image[None]] for image in images),
        "target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
    }


def _verify(run: runtimes.Runner, format: str, reference: verify.Reference, images: Any) -> dict[str, dict[str, float]]:
    """Largest differences from the Keras model by batch and output."""
    try:
        differences = {}
        for batch in verify.make_batches(reference, images):
            prepared = reference.resize(batch)
            found, want = run(prepared), reference.compute(batch)
            differences[f"batch {len(batch)}"] = {
                name: compare(found[name], name, want[name]) for name in ("logits", "probabilities")
            }
    except (RuntimeError, ValueError, KeyError) as error:
        raise ExportFailed(f"The exported {format} file could not be run: {error}") from error
    return differences
