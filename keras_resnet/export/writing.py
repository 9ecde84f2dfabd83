"""The one way in which a version comes to be: written beside, verified, recorded, renamed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from keras_resnet.environment import describe_versions
from keras_resnet.export.folders import new_version
from keras_resnet.export.formats import FORMATS
from keras_resnet.export.record import ExportRecord
from keras_resnet.export.reference import Reference
from keras_resnet.export.request import Request


class Writer(ABC):
    """Writes and verifies one format; made of a request, it refuses a network that cannot be rewritten.

    Args:
        request: what is exported.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.reference = Reference(request)

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Writes the model's files into the folder."""

    @abstractmethod
    def verify(self, folder: Path, **common: Any) -> ExportRecord:
        """Runs what was written and returns the record of it, of which `common` are the fields every record has.

        Raises:
            ExportFailed: it cannot be run or differs from the Keras model.
        """


def write_version(writer: Writer) -> Path:
    """Writes, verifies and publishes a version; returns its folder.

    Raises:
        InputError: a version that exists, or a model whose versions are of another format.
        ExportFailed: what was written cannot be run or differs from the model; nothing is left of it.
        SaveError: no permission, a full disk; nothing is left.
    """
    request = writer.request
    with new_version(request.folder, request.version, request.format) as new:
        writer.write(new.partial)
        record = writer.verify(
            new.partial,
            format=request.format,
            name=request.name,
            version=new.version,
            input_shape=request.input_shape,
            class_names=request.head.class_names,
            preprocessing=request.preprocessing,
            versions=describe_versions(*FORMATS[request.format].distributions),
        )
        new.write_record(record)
    return new.path
