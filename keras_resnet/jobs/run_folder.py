"""The run folder: taken by one process at a time, never overwritten, every file written beside and renamed."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from keras_resnet.data import ImageData
from keras_resnet.errors import InputError, SaveError
from keras_resnet.files import PARTIAL, dump_csv, write_beside
from keras_resnet.inputs import Preprocessing
from keras_resnet.recipes import Recipe
from keras_resnet.specs import ResNetSpec

RUN_FILE = "run.json"
MODEL_FILE = "model.keras"
CHECKPOINT_FILE = "checkpoint.weights.h5"
HISTORY_FILE = "history.csv"
CURVES_FILE = "curves.png"
CONFUSION_FILE = "confusion.png"
_LOCK_FILE = "running.json"


class RunFolder:
    """A new run folder, held by this process from `open` to `close`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._made: list[Path] = []  # folders that were not there before, the innermost first

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
        if _LOCK_FILE in names:
            raise InputError(f"{self._describe_lock()} {advice}")
        if RUN_FILE in names:
            raise InputError(f"The run folder {self.path} already holds a run{self._describe_run()}. {advice}")
        raise InputError(
            f"A run folder must be a new or an empty folder. Received: {self.path}, which holds {', '.join(names[:5])}"
            f"{', ...' if len(names) > 5 else ''}. {advice}"
        )

    def _describe_lock(self) -> str:
        try:
            lock = json.loads((self.path / _LOCK_FILE).read_text())
            process, host, started = lock["process"], lock["host"], lock["started"]
        except (OSError, ValueError, KeyError):
            return f"The run folder {self.path} is in use, or was left by a run that was stopped."
        kept = f" It left {CHECKPOINT_FILE}, its best epoch." if (self.path / CHECKPOINT_FILE).exists() else ""
        if host != platform.node():
            return f"The run folder {self.path} is in use by process {process} on {host} since {started}."
        if psutil.pid_exists(process):
            return f"The run folder {self.path} is in use by process {process} since {started}."
        return f"The run folder {self.path} was left by process {process}, started {started}, which was stopped.{kept}"

    def _describe_run(self) -> str:
        with contextlib.suppress(InputError):
            run = load_run(self.path)
            return f" ({run.spec.name} on {run.record['data']['name']}, test accuracy {run.record['test']['accuracy']:.4f})"
        return ""

    def open(self) -> None:
        """Makes the folder and takes it for this process; raises InputError where it is not free."""
        self.check_free()
        self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        lock = {
            "process": os.getpid(),
            "host": platform.node(),
            "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # "x" fails where another process was faster.
            with open(self.path / _LOCK_FILE, "x", encoding="utf-8") as file:
                json.dump(lock, file)
        except FileExistsError as error:
            raise InputError(self._describe_lock()) from error
        except OSError as error:
            self.close(finished=False)
            raise SaveError(f"The run folder {self.path} cannot be written: {error}") from error

    def close(self, *, finished: bool) -> None:
        """Gives the folder back. An unfinished run leaves its checkpoint, or without one nothing at all."""
        for child in self.path.glob(f"{PARTIAL}*"):
            child.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (self.path / _LOCK_FILE).unlink()
        checkpoint = self.path / CHECKPOINT_FILE
        if finished:
            checkpoint.unlink(missing_ok=True)
            return
        with contextlib.suppress(OSError):
            if checkpoint.exists():
                return
            for name in (RUN_FILE, MODEL_FILE, HISTORY_FILE, CURVES_FILE, CONFUSION_FILE):
                (self.path / name).unlink(missing_ok=True)
            for folder in self._made:  # until one in which somebody put a file of theirs meanwhile
                folder.rmdir()

    def write(self, name: str, writer: Callable[[Path], object]) -> None:
        """Has `writer` write a file beside, then renames it to `name`; an older `name` survives any failure.

        Raises:
            SaveError: the disk is full, the folder not writable, ...; says what is left.
        """
        left = [n for n in (name, CHECKPOINT_FILE) if (self.path / n).exists()]
        rest = f"{self.path / left[0]}, written before, is unchanged." if left else "Nothing was written before it."
        write_beside(self.path / name, writer, hint=rest)

    def write_json(self, name: str, value: object) -> None:
        """Writes `value` as indented JSON."""
        self.write(name, lambda path: path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", "utf-8"))

    def write_csv(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Writes `rows`, all with the keys of the first, under a header."""
        self.write(name, lambda path: dump_csv(rows, path))


@dataclass(frozen=True)
class Run:
    """A finished run, as its folder tells it."""

    path: Path
    spec: ResNetSpec
    preprocessing: Preprocessing
    recipe: Recipe
    class_names: tuple[str, ...]
    record: dict[str, Any]  # run.json

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
    try:
        record = json.loads((folder / RUN_FILE).read_text("utf-8"))
        lacks_preprocessing = not record.get("preprocessing")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{folder / RUN_FILE} is not the record of a run of this version: {error}") from error
    if lacks_preprocessing:
        raise InputError(
            f"A run must store its preprocessing, or images cannot be prepared as in training. Received: {folder}, "
            f"whose {RUN_FILE} has none."
        )
    try:
        return Run(
            folder,
            ResNetSpec.from_dict(record["model"]["spec"]),
            Preprocessing.from_dict(record["preprocessing"]),
            Recipe.from_dict(record["recipe"]),
            tuple(record["data"]["class_names"]),
            record,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / RUN_FILE} is not the record of a run of this version: {error}") from error


def describe_data(data: ImageData, name: str) -> dict[str, Any]:
    """What `run.json` says of the data; a path is stored whole, so that it is found from any folder."""
    stored = os.path.abspath(name) if data.origin in ("folder", "npz") else data.name
    return {"name": stored, "source": data.origin, "class_names": list(data.class_names), "channels": data.channels}
