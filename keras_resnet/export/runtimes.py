"""Running an exported file by its own runtime: onnxruntime, LiteRT or OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.export.formats import FORMATS
from keras_resnet.export.request import Runner


def load(folder: Path, format: str, *, threads: int | None = None) -> Runner:
    """Loads the model file of `format` in `folder`; returns a function from a float32 batch to outputs by name."""
    path = str(folder / FORMATS[format].file)
    return {"onnx": _load_onnx, "litert": _load_litert, "openvino": _load_openvino}[format](path, threads)


def _load_onnx(path: str, threads: int | None) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    outputs = [output.name for output in session.get_outputs()]
    return lambda batch: dict(zip(outputs, session.run(outputs, {name: batch}), strict=True))


def _load_litert(path: str, threads: int | None) -> Runner:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=threads)
    runner = interpreter.get_signature_runner()
    (name,) = runner.get_input_details()
    return lambda batch: runner(**{name: batch})


def _load_openvino(path: str, threads: int | None) -> Runner:
    import openvino

    # On processors with bfloat16 instructions OpenVINO would use them.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(path, "CPU", settings)

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        result = compiled(batch)
        return {name: np.array(result[output]) for output in compiled.outputs for name in output.names}

    return run
