"""What `run.json` and `search.json` have in common: the facts about data, and the one way in which they are read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from keras_resnet.errors import InputError
from keras_resnet.records import Record, check_types

T = TypeVar("T")


@dataclass(frozen=True)
class DataFacts(Record):
    """What was found where the data was read."""

    origin: str  # "tfds mnist 3.0.1", "scikit-learn load_digits", "folder", "npz"
    class_names: tuple[str, ...]
    channels: int
    streamed: bool | None  # whether training images are read from their files while used; None: 0.1 did not say
    skipped_images: tuple[str, ...]  # that could not be decoded
    train_images: int
    validation_images: int
    test_images: int

    def __post_init__(self) -> None:
        check_types(self)


def read_stored(path: str | os.PathLike[str], what: str, translate: Callable[[Mapping[str, Any]], T]) -> T:
    """Reads a JSON file into a record, by `translate`, which knows the layouts of all versions.

    Args:
        path: the file.
        what: "a run" or "a search", for the message.
        translate: from the file's mapping to the record.

    Raises:
        InputError: the file is no JSON, or not such a record.
        OSError: it cannot be read.
    """
    try:
        values = json.loads(Path(path).read_text("utf-8"))
        if not isinstance(values, dict):
            raise InputError(f"it holds {type(values).__name__}")
        return translate(values)
    except KeyError as error:
        raise InputError(f"{path} is not the record of {what} of this version: it has no {error}") from error
    except (ValueError, TypeError, AttributeError) as error:  # InputError is a ValueError
        raise InputError(f"{path} is not the record of {what} of this version: {error}") from error
