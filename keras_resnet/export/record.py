"""`export.json`: what an exported version is and what was found when it was verified."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_resnet.inputs import Preprocessing
from keras_resnet.records import Record, check_types, read_stored

EXPORT_FILE = "export.json"


@dataclass(frozen=True)
class Verified(Record):
    """How near an exported file comes to the Keras model."""

    batch_sizes: tuple[int, ...]
    tolerance: float | None  # of the differences; None where 8-bit integers make another network of it
    # By output, the largest difference as a share of the scale. Of a SavedModel by process and "signature/batch", of
    # the other formats by "batch N".
    differences: dict[str, Any]

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, kw_only=True)
class ExportRecord(Record):
    """What every exported version has in its `export.json`."""

    format: str
    name: str
    version: int
    input_shape: tuple[int | None, ...]  # of the network, without the batch
    class_names: tuple[str, ...]
    preprocessing: Preprocessing | None
    verified: Verified
    versions: dict[str, str]  # of packages

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, kw_only=True)
class SavedModelRecord(ExportRecord):
    """`export.json` of a SavedModel."""

    signatures: tuple[str, ...]
    max_pixels: int  # above which an encoded image is refused
    warm_up_requests: int


@dataclass(frozen=True, kw_only=True)
class ConvertedRecord(ExportRecord):
    """`export.json` of the other formats."""

    int8: bool
    measured: Any  # what `export_format(measure=...)` returned


def read_export(folder: str | os.PathLike[str]) -> ExportRecord:
    """Reads the record of an exported version from its folder.

    Raises:
        InputError: `export.json` there is none of this version's.
        OSError: it cannot be read.
    """
    return read_stored(Path(folder) / EXPORT_FILE, "an export", _read)


def _read(values: Mapping[str, Any]) -> ExportRecord:
    return (SavedModelRecord if "signatures" in values else ConvertedRecord).from_dict(values)
