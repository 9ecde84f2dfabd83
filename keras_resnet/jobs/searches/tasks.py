"""What each process of a search is started for: frozen records that travel on its command line as JSON."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import ClassVar

from keras_resnet.jobs.searches.record import SearchRequest
from keras_resnet.records import Record, check_types

# Exit codes, by which the supervisor decides what to do.
DONE, INPUT_ERROR, BUG, REPLACE = 0, 2, 70, 75


@dataclass(frozen=True, kw_only=True)
class Task(Record):
    """What all of them have."""

    role: ClassVar[str]
    error_path: str  # where the process leaves a `Problem`
    parent: int = field(default_factory=os.getpid)  # the supervisor's process id: when it is gone, so is the process

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, kw_only=True)
class PlanTask(Task):
    """To load the data and decide what all trials share."""

    role = "plan"
    request: SearchRequest
    memory_limit_bytes: int | None  # of a training step, where the request sets no limit
    plan_path: str  # where the plan is to be written


@dataclass(frozen=True, kw_only=True)
class ChiefTask(Task):
    """To hand out trials."""

    role = "chief"
    folder: str


@dataclass(frozen=True, kw_only=True)
class WorkerTask(Task):
    """To train trials."""

    role = "worker"
    folder: str
    index: int  # from 0; decides which GPU it takes
    threads: int
    memory_limit_bytes: int  # resident memory above which it ends, to be replaced
    chief_timeout_seconds: float


@dataclass(frozen=True)
class Problem(Record):
    """Why a process ended."""

    kind: str  # "input": what it was given cannot be used; "bug": anything else
    message: str
    traceback: str = ""

    def __post_init__(self) -> None:
        check_types(self)
