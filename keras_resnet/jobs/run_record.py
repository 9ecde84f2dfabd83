"""`RunRecord`: what `run.json` says of a finished run, in every version's layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras_resnet.environment import Machine
from keras_resnet.errors import InputError
from keras_resnet.inputs import DataSource, InputOptions, Preprocessing
from keras_resnet.jobs.stored import DataFacts
from keras_resnet.recipes import Recipe
from keras_resnet.records import Record, check_types
from keras_resnet.specs import ResNetSpec

FORMAT = 2  # 1 was written by version 0.1


@dataclass(frozen=True)
class Figures(Record):
    """What a network came to on labelled images."""

    accuracy: float
    loss: float  # mean cross-entropy, in nats
    num_examples: int | None = None  # images; None where it was not counted

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class NetworkRecord(Record):
    """The network of a run."""

    spec: ResNetSpec
    input_shape: tuple[int, ...]  # (height, width, channels)
    classes: int
    parameters: int  # BN's statistics included
    multiply_adds: int  # of one image, forward

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class Winner(Record):
    """The trial of a search whose network a run has trained."""

    path: str  # of the search folder
    trial: str

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class RunRecord(Record):
    """A finished run: what was asked for, what was found, what it came to."""

    created: str  # ISO 8601
    interrupted: bool  # whether Ctrl-C ended the training
    model: NetworkRecord
    source: DataSource
    input: InputOptions
    data: DataFacts
    preprocessing: Preprocessing
    recipe: Recipe
    steps: int  # optimizer steps taken
    best_epoch: int  # whose weights were saved, counted from 1
    bn_reestimated_on_images: int
    validation: Figures | None  # of the best epoch
    test: Figures
    seconds: dict[str, float]  # by phase, and in all ("total")
    versions: dict[str, str]
    machine: Machine
    search: Winner | None = None

    def __post_init__(self) -> None:
        check_types(self)

    def to_json(self) -> dict[str, Any]:
        """Returns the file's values; `read` understands them."""
        return {"format": FORMAT, **self.to_dict()}

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> RunRecord:
        """Makes the record from the values of a file of this or an earlier version.

        Raises:
            InputError, KeyError, TypeError, ValueError: it is no such file.
        """
        if not values.get("preprocessing"):
            raise InputError("a run must store its preprocessing, or images cannot be prepared as in training")
        written = values.get("format")
        if written not in (1, FORMAT):
            raise InputError(f"its format must be {FORMAT} or 1. Received: {written!r}")
        known = _translate(values) if written == 1 else values
        return cls.from_dict({name: value for name, value in known.items() if name != "format"})


def _translate(old: Mapping[str, Any]) -> dict[str, Any]:
    """The values of version 0.1, under today's names."""
    data, kept = old["data"], ("steps", "best_epoch", "bn_reestimated_on_images", "validation", "test", "seconds")
    model = {name: value for name, value in old["model"].items() if name != "name"}
    return {
        **{name: old[name] for name in ("created", "interrupted", *kept, "preprocessing", "recipe", "versions")},
        "model": model,
        "machine": old["machine"],
        "search": old.get("search"),
        "source": {
            "name": data["name"],
            "data_dir": data.get("data_dir"),
            "memory_limit_bytes": data.get("memory_limit_bytes"),
            "on_error": data.get("on_error", "stop"),
        },
        "input": {
            "normalize": data.get("normalize", "dataset"),
            "train_size": data["train_size"],
            "test_size": data["test_size"],
            "prepare_on": data.get("resize", "host"),
        },
        "data": {
            "origin": data["source"],
            "streamed": data.get("streamed", False),
            "skipped_images": data.get("skipped_images", []),
            **{
                name: data[name]
                for name in ("class_names", "channels", "train_images", "validation_images", "test_images")
            },
        },
    }
