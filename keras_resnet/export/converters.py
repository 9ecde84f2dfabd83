"""ONNX, LiteRT and OpenVINO through Keras' own exporters, each verified by its own runtime."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_resnet.errors import ExportFailed
from keras_resnet.export import runtimes, verify
from keras_resnet.export.fold import rewrite
from keras_resnet.export.folders import LABELS_FILE
from keras_resnet.export.formats import CONVERTED, FORMATS
from keras_resnet.export.heads import cut_head
from keras_resnet.export.record import ConvertedRecord, ExportRecord, Verified
from keras_resnet.export.reference import choose_tolerance
from keras_resnet.export.request import BATCH_SIZES, Request, Runner
from keras_resnet.export.writing import Writer, write_version
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
    measure: Callable[[Runner], dict[str, Any]] | None = None,
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
    check_choice("format", format, CONVERTED)
    request = Request(
        model,
        path,
        format,
        preprocessing,
        class_names,
        name=name,
        version=version,
        images=images,
        calibration=calibration,
        measure=measure,
    )
    writers = {"onnx": ConvertedWriter, "litert": LiteRTWriter, "openvino": ConvertedWriter}
    return write_version(writers[format](request))


class ConvertedWriter(Writer):
    """Normalization, folded network and head as one functional model that Keras converts: ONNX and OpenVINO."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        network = cut_head(rewrite(request.model, native_groups=True))
        inputs = keras.Input(request.input_shape, name="images" if len(request.input_shape) == 3 else "sequences")
        x = inputs
        if request.preprocessing is not None:
            scale, offset = request.preprocessing.scale, request.preprocessing.offset
            x = keras.layers.Rescaling(scale, offset, name="normalize")(x)
        logits, _ = network(x)
        self._whole = keras.Model(inputs, request.head.build(logits), name=request.model.name)

    def write(self, folder: Path) -> None:
        """Writes the class names and the converted file."""
        import tensorflow as tf

        format, whole = self.request.format, self._whole
        self.request.write_labels(folder / LABELS_FILE)
        file = str(folder / FORMATS[format].file)
        signature = tf.TensorSpec(whole.input.shape, tf.float32, whole.input.name)
        with deep_graph(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the converters, about NumPy and themselves
            try:
                whole.export(file, format=format, verbose=False, input_signature=[signature], **self._options())
            except OSError:
                raise
            except Exception as error:  # converters raise what they like
                raise ExportFailed(f"{whole.name} could not be converted to {format}: {error}") from error

    def _options(self) -> dict[str, Any]:
        """Arguments of the converter."""
        return {}

    def verify(self, folder: Path, **common: Any) -> ExportRecord:
        """Has the format's runtime run the file."""
        request = self.request
        try:
            run = runtimes.load(folder, request.format)
        except Exception as error:  # runtimes raise what they like
            raise ExportFailed(f"The exported {request.format} file could not be run: {error}") from error
        int8 = request.calibration is not None
        tolerance = None if int8 else choose_tolerance(request.model)
        differences = verify.verify_runner(run, self.reference, tolerance)
        return ConvertedRecord(
            **common,
            int8=int8,
            measured=None if request.measure is None else request.measure(run),
            verified=Verified(BATCH_SIZES, tolerance, differences),
        )


class LiteRTWriter(ConvertedWriter):
    """LiteRT, in float32 or, with images to calibrate with, in 8-bit integers inside and float32 outside."""

    def _options(self) -> dict[str, Any]:
        import tensorflow as tf

        images = self.request.calibration
        if images is None:
            return {}
        return {
            "optimizations": [tf.lite.Optimize.DEFAULT],
            "representative_dataset": lambda: ([image[None]] for image in images),
            "target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
        }
