"""The run folder: taken by one process at a time, never overwritten, every file written beside and renamed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_resnet.errors import InputError, SaveError
from keras_resnet.files import dump_csv, write_beside
from keras_resnet.folders import FolderLock, LockTaken, NewFolders, remove_partial_files
from keras_resnet.inputs import Preprocessing
from keras_resnet.jobs.run_record import RunRecord
from keras_resnet.recipes import Recipe
from keras_resnet.records import read_stored
from keras_resnet.specs import ResNetSpec

RUN_FILE = "run.json"
MODEL_FILE = "model.keras"
CHECKPOINT_FILE = "checkpoint.weights.h5"
HISTORY_FILE = "history.csv"
CURVES_FILE = "curves.png"
CONFUSION_FILE = "confusion.png"
_RESULTS = (RUN_FILE, MODEL_FILE, HISTORY_FILE, CURVES_FILE, CONFUSION_FILE)


class RunFolder:
    """A new run folder, held by this process from `open` to `close`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock, self._folders = FolderLock(path), NewFolders(path)

    def check_free(self) -> None:
        """Raises InputError, saying what is there, unless the folder is missing or empty."""
        try:
            if not self.path.exists():
                return
            if not self.path.is_dir():
                raise InputError(
                    f"A run folder must be a new or an empty folder. Received: {self.path}, which is a file."
                )
            names = sorted(child.name for child in self.path.iterdir())
        except OSError as error:
            raise SaveError(f"The run folder {self.path} cannot be looked at: {error}") from error
        if not names:
            return
        advice = "Choose another --run-dir, or remove this one."
        if self._lock.path.name in names:
            raise InputError(f"{self._describe_owner()} {advice}")
        if RUN_FILE in names:
            raise InputError(f"The run folder {self.path} already holds a run{self._describe_run()}. {advice}")
        raise InputError(
            f"A run folder must be a new or an empty folder. Received: {self.path}, which holds {', '.join(names[:5])}"
            f"{', ...' if len(names) > 5 else ''}. {advice}"
        )

    def _describe_owner(self) -> str:
        owner = self._lock.read()
        if owner is None:
            return f"The run folder {self.path} is in use, or was left by a run that was stopped."
        if not owner.is_here:
            return f"The run folder {self.path} is in use by process {owner.process} on {owner.host} since {owner.started}."
        if owner.runs:
            return f"The run folder {self.path} is in use by process {owner.process} since {owner.started}."
        kept = f" It left {CHECKPOINT_FILE}, its best epoch." if (self.path / CHECKPOINT_FILE).exists() else ""
        return (
            f"The run folder {self.path} was left by process {owner.process}, started {owner.started}, which was "
            f"stopped.{kept}"
        )

    def _describe_run(self) -> str:
        with contextlib.suppress(InputError):
            record = load_run(self.path).record
            return f" ({record.model.spec.name} on {record.source.name}, test accuracy {record.test.accuracy:.4f})"
        return ""

    def open(self) -> None:
        """Makes the folder and takes it for this process; raises InputError where it is not free."""
        self.check_free()
        try:
            self._folders.make()
            self._lock.take()
        except LockTaken as error:
            raise InputError(self._describe_owner()) from error
        except OSError as error:
            self.close(finished=False)
            raise SaveError(f"The run folder {self.path} cannot be written: {error}") from error

    def close(self, *, finished: bool) -> None:
        """Gives the folder back. An unfinished run leaves its checkpoint, or without one nothing at all."""
        remove_partial_files(self.path)
        self._lock.give_back()
        checkpoint = self.path / CHECKPOINT_FILE
        with contextlib.suppress(OSError):
            if finished:
                checkpoint.unlink(missing_ok=True)
            elif not checkpoint.exists():
                for name in _RESULTS:
                    (self.path / name).unlink(missing_ok=True)
                self._folders.remove_if_empty()

    def write(self, name: str, writer: Callable[[Path], object]) -> None:
        """Has `writer` write a file beside, then renames it to `name`; an older `name` survives any failure.

        Raises:
            SaveError: the disk is full, the folder not writable, ...; says what is left.
        """
        left = [n for n in (name, CHECKPOINT_FILE) if (self.path / n).exists()]
        rest = f"{self.path / left[0]}, written before, is unchanged." if left else "Nothing was written before it."
        write_beside(self.path / name, writer, hint=rest)

    def write_record(self, record: RunRecord) -> None:
        """Writes `run.json`."""
        text = json.dumps(record.to_json(), indent=2, allow_nan=False) + "\n"
        self.write(RUN_FILE, lambda path: path.write_text(text, "utf-8"))

    def write_csv(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Writes `rows`, all with the keys of the first, under a header."""
        self.write(name, lambda path: dump_csv(rows, path))


@dataclass(frozen=True)
class Run:
    """A finished run, as its folder tells it."""

    path: Path
    record: RunRecord

    @property
    def spec(self) -> ResNetSpec:
        """The network."""
        return self.record.model.spec

    @property
    def preprocessing(self) -> Preprocessing:
        """What the network saw in training."""
        return self.record.preprocessing

    @property
    def recipe(self) -> Recipe:
        """How the network was trained."""
        return self.record.recipe

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the network's outputs mean."""
        return self.record.data.class_names

    @property
    def model_path(self) -> Path:
        """The saved model, which ends in logits."""
        return self.path / MODEL_FILE


def load_run(path: str | os.PathLike[str]) -> Run:
    """Reads a finished run; raises InputError where the folder holds none."""
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(
            f"A run folder must be a folder that 'keras-resnet train' wrote. Received: {folder}, which is none."
        )
    missing = [name for name in (RUN_FILE, MODEL_FILE) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"A run folder must hold {RUN_FILE} and {MODEL_FILE}. Received: {folder}, without {' and '.join(missing)}."
        )
    return Run(folder, read_stored(folder / RUN_FILE, "a run", RunRecord.read))
