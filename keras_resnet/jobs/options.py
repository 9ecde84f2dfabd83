"""`RunOptions`: where a job leaves its folder, and how much of the machine it takes."""

from __future__ import annotations

import os
from dataclasses import dataclass

from keras_resnet.errors import InputError
from keras_resnet.records import Record, check_choice, check_count, check_number, take_counts

VERBOSE = ("auto", 0, 1, 2)  # as for Keras' `fit`


@dataclass(frozen=True)
class RunOptions(Record):
    """Where and how a job runs; no result depends on it."""

    folder: str | None = None  # None: a name of the job's own choice
    workers: int = 1  # processes that train; 0 only beside workers of other machines
    threads: int | None = None  # of each worker; None: the cores divided among the workers
    worker_memory_bytes: int | None = None  # resident memory above which a worker is replaced; None: its share
    chief_timeout_seconds: float = 60.0  # to wait for an answer of the chief
    verbose: int | str = "auto"  # of Keras' progress bars

    def __post_init__(self) -> None:
        if isinstance(self.folder, os.PathLike):
            object.__setattr__(self, "folder", os.fspath(self.folder))
        if self.folder is not None and (not isinstance(self.folder, str) or not self.folder):
            raise InputError(f"A folder must be a path, or None. Received: {self.folder!r}.")
        take_counts(self, ("workers",), 0)
        # The messages have the names that users type: units are in the names of fields alone.
        check_count("threads", self.threads, optional=True)
        check_count("worker_memory", self.worker_memory_bytes, optional=True)
        take_counts(self, ("threads", "worker_memory_bytes"), optional=True)
        check_number("chief_timeout", self.chief_timeout_seconds, low=0, low_open=True)
        check_choice("verbose", self.verbose, VERBOSE)
