"""Trained models as files for servers: SavedModel for TensorFlow Serving, ONNX, LiteRT, OpenVINO."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Loaded on first use: folding BN needs no TensorFlow.
_HOMES = {"fold_batchnorm": "fold", "export_format": "formats", "export_saved_model": "saved_model"}
__all__ = ["export_format", "export_saved_model", "fold_batchnorm"]

if TYPE_CHECKING:
    from keras_resnet.export.fold import fold_batchnorm
    from keras_resnet.export.formats import export_format
    from keras_resnet.export.saved_model import export_saved_model


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'keras_resnet.export' has no attribute {name!r}")
    return getattr(importlib.import_module(f"keras_resnet.export.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
