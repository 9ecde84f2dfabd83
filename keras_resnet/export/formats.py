"""The formats that are written: the file a server knows each by, and the packages each takes."""

from __future__ import annotations

from dataclasses import dataclass

from keras_resnet.errors import InputError, check_installed
from keras_resnet.records import check_choice


@dataclass(frozen=True)
class Format:
    """A format; what it takes beyond TensorFlow is an extra of this package."""

    file: str  # in the version's folder, by which a server knows it
    extra: str
    packages: tuple[str, ...]  # of the extra, by import name
    distributions: tuple[str, ...]  # the same as package registries and `export.json` call them

    def check_installed(self, what: str) -> None:
        """Raises InputError, saying what to install, where a package is missing; `what` opens the message."""
        check_installed(what, self.packages, self.extra)


_ONNX = ("tf2onnx", "onnx", "onnxruntime")
FORMATS = {
    # Writing a SavedModel takes TensorFlow alone; the extra is for its warm-up requests.
    "saved_model": Format("saved_model.pb", "serving", ("tensorflow_serving",), ("tensorflow-serving-api",)),
    "onnx": Format("model.onnx", "onnx", _ONNX, _ONNX),
    "litert": Format("model.tflite", "litert", ("ai_edge_litert",), ("ai_edge_litert",)),
    "openvino": Format("model.xml", "openvino", ("openvino",), ("openvino",)),
}
CONVERTED = tuple(name for name in FORMATS if name != "saved_model")  # by Keras' own exporters


def check_options(format: str, *, warm_up: bool | None = None, int8: bool = False) -> None:
    """Raises InputError for a format that there is not, or an option of another one."""
    check_choice("format", format, FORMATS)
    if warm_up is not None and format != "saved_model":
        raise InputError(f"Warm-up requests are of the format 'saved_model'. Received: {format!r}.")
    if int8 and format != "litert":
        raise InputError(f"int8, with images to calibrate with, is of the format 'litert'. Received: {format!r}.")
