"""What the process of a side and the one that runs it tell each other: a record a line, as JSON.

The first message is a job, `MeasureJob` or `ExportJob`. An export is answered with `Exported`. A side that is measured
says `Ready`, then answers `FirstStep` and `Steps` with `Duration`, and `MemoryRequest` with `PeakMemory`. Any answer may
be a `Refusal` instead.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from keras_resnet.benchmark.workload import Workload
from keras_resnet.records import Record, check_choice, check_types


class Message(Record):
    """What every message is."""

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class MeasureJob(Message):
    """Be a side, and do its steps when asked."""

    side: str  # one of `workload.SIDES`, or MATRIX_PRODUCT
    workload: Workload
    saved_model: str | None = None  # folder of what a side on TensorFlow infers with


@dataclass(frozen=True)
class ExportJob(Message):
    """Write the SavedModel of a side, and end."""

    side: str
    workload: Workload
    folder: str  # to write into


@dataclass(frozen=True)
class FirstStep(Message):
    """Do the first step, with all that has to be traced or compiled."""


@dataclass(frozen=True)
class Steps(Message):
    """Do so many further steps."""

    count: int


@dataclass(frozen=True)
class MemoryRequest(Message):
    """Say how much memory the process has taken at most."""


@dataclass(frozen=True)
class Exported(Message):
    """A SavedModel is written."""

    folder: str


@dataclass(frozen=True)
class Ready(Message):
    """A side waits for its first step."""

    seconds: float  # that imports, building or loading took
    device: str  # "cpu" or "gpu"


@dataclass(frozen=True)
class Duration(Message):
    """The steps asked for are done."""

    seconds: float  # of all of them


@dataclass(frozen=True)
class PeakMemory(Message):
    """The largest resident memory so far."""

    size_bytes: int


@dataclass(frozen=True)
class Refusal(Message):
    """The side cannot be measured here."""

    reason: str


_REQUESTS = (MeasureJob, ExportJob, FirstStep, Steps, MemoryRequest)
_ANSWERS = (Exported, Ready, Duration, PeakMemory, Refusal)
_KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in (*_REQUESTS, *_ANSWERS)}


def dump(message: Message) -> str:
    """Returns the message as a line of JSON, which `load` reads."""
    return json.dumps({"kind": type(message).__name__, **message.to_dict()}) + "\n"


def load(line: str) -> Message:
    """Reads what `dump` wrote; raises InputError on what is no message."""
    values = json.loads(line)
    kind = values.pop("kind", None)
    check_choice("The kind of a message", kind, _KINDS)
    return _KINDS[kind].from_dict(values)
