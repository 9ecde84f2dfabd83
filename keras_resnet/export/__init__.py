"""Trained models as files for servers: SavedModel for TensorFlow Serving, ONNX, LiteRT, OpenVINO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_resnet import lazy

# Folding BN needs no TensorFlow.
__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "converters": ("export_format",),
        "fold": ("fold_batchnorm",),
        "record": ("read_export",),
        "saved_model": ("export_saved_model",),
    },
)

if TYPE_CHECKING:
    from keras_resnet.export.converters import export_format
    from keras_resnet.export.fold import fold_batchnorm
    from keras_resnet.export.record import read_export
    from keras_resnet.export.saved_model import export_saved_model
