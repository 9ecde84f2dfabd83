"""Folders that one process at a time writes: a lock that tells its owner, and what is cleared away again."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

from keras_resnet.errors import InputError
from keras_resnet.files import PARTIAL
from keras_resnet.records import Record, check_types

LOCK_FILE = "running.json"


class LockTaken(Exception):
    """Another process has the folder, or had it and was stopped."""


@dataclass(frozen=True)
class Owner(Record):
    """The process that holds a folder."""

    process: int
    host: str
    started: str  # when it took the folder, ISO 8601
    # When the process began, in seconds since 1970: numbers of processes are given out again. 0.1 did not write it down.
    process_started: float | None = None

    def __post_init__(self) -> None:
        check_types(self)

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, a process of this machine."""
        return self.host == platform.node()

    @property
    def runs(self) -> bool:
        """Whether it still runs; of another machine that is not known, and taken for granted."""
        if not self.is_here:
            return True
        try:
            began = psutil.Process(self.process).create_time()
            return self.process_started is None or abs(began - self.process_started) < 1
        except psutil.Error:
            return False


class FolderLock:
    """A file in a folder that says which process has it."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / LOCK_FILE

    def read(self) -> Owner | None:
        """The owner that the file names; None where there is no file or it says nothing."""
        try:
            return Owner.from_dict(json.loads(self.path.read_text("utf-8")))
        except (OSError, ValueError, InputError):
            return None

    def take(self) -> None:
        """Writes this process as the owner.

        Raises:
            LockTaken: the file is there already.
            OSError: it cannot be written.
        """
        mine = Owner(
            os.getpid(),
            platform.node(),
            datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            psutil.Process().create_time(),
        )
        try:
            with open(self.path, "x", encoding="utf-8") as file:  # fails where another process was faster
                json.dump(mine.to_dict(), file)
        except FileExistsError as error:
            raise LockTaken(self.path) from error

    def give_back(self) -> None:
        """Removes the file, as far as that can be done."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


class NewFolders:
    """A folder to be made with all above it, and which of them were not there before."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._made: list[Path] = []  # the innermost first

    def make(self) -> None:
        """Makes the folder, if it is not there."""
        self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self.path.mkdir(parents=True, exist_ok=True)

    def remove_if_empty(self) -> None:
        """Removes what was made, from the innermost on, until one in which somebody has put something."""
        with contextlib.suppress(OSError):
            for folder in self._made:
                folder.rmdir()


def remove_partial_files(folder: Path) -> None:
    """Removes what was still being written in a folder, as far as that can be done."""
    with contextlib.suppress(OSError):
        for file in folder.glob(f"{PARTIAL}*"):
            file.unlink(missing_ok=True)
