"""The folder of a search: what was asked for, every trial, the results. Reading it loads neither Keras nor TensorFlow."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from keras_resnet.errors import InputError, SaveError
from keras_resnet.files import dump_csv, write_beside
from keras_resnet.inputs import Preprocessing
from keras_resnet.recipes import Recipe
from keras_resnet.search import PROGRESS_FILE, Budget, Candidates, Progress, Space
from keras_resnet.specs import ResNetSpec, count_totals

SEARCH_FILE = "search.json"
LEADERBOARD_FILE = "leaderboard.csv"
PARETO_FILE = "pareto.png"
TRIALS_FOLDER = "trials"  # KerasTuner's project: oracle.json and a folder per trial
LOGS_FOLDER = "logs"
LOCK_FILE = "running.json"
_TRIAL_FILE = "trial.json"  # KerasTuner's
_FORMAT = 1
# What may differ when a search is gone on with: more trials, and how the work is divided.
_MAY_CHANGE = ("trials",)
# Of what may not be in the record of an older search.
_DATA_DEFAULTS = {"memory_limit_bytes": None, "on_error": "stop", "normalize": "dataset"}


@dataclass(frozen=True)
class TrialResult:
    """One trial of a search, as far as it has come."""

    trial_id: str
    status: str  # "RUNNING", "COMPLETED", "FAILED"
    spec: ResNetSpec
    recipe: Recipe
    parameters: int
    multiply_adds: int
    first_epoch: int  # where it goes on from another trial (Hyperband)
    epochs: int  # that it is to have in the end
    records: tuple[dict[str, float], ...]  # one per epoch
    seconds: float
    reason: str  # why it failed

    @property
    def kept(self) -> dict[str, float] | None:
        """The record of the epoch with the lowest validation loss."""
        return min(self.records, key=lambda record: record["val_loss"], default=None)

    @property
    def epochs_done(self) -> int:
        """How many epochs the network has seen."""
        return int(self.records[-1]["epoch"]) if self.records else self.first_epoch

    def to_row(self, rank: int | None) -> dict[str, Any]:
        """The trial as a row of the leaderboard."""
        kept = self.kept or {}
        return {
            "rank": rank or "",
            "trial": self.trial_id,
            "status": self.status.lower(),
            "network": self.spec.name,
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "epochs": self.epochs_done,
            "val_accuracy": kept.get("val_accuracy", ""),
            "val_loss": kept.get("val_loss", ""),
            "learning_rate": self.recipe.learning_rate,
            "weight_decay": self.recipe.weight_decay,
            "shift_fraction": self.recipe.shift_fraction,
            "seconds": round(self.seconds, 1),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Search:
    """A search as its folder tells it, finished or not."""

    path: Path
    record: dict[str, Any]  # search.json
    trials: tuple[TrialResult, ...]  # in the order of their beginning

    @property
    def ranking(self) -> list[TrialResult]:
        """The completed trials, the best by validation first: by the objective, ties by the loss."""
        completed = [trial for trial in self.trials if trial.status == "COMPLETED" and trial.kept is not None]
        accuracy_first = self.record["request"]["objective"] == "val_accuracy"

        def key(trial: TrialResult) -> tuple[float, float]:
            kept = trial.kept or {}
            return (-kept["val_accuracy"] if accuracy_first else 0.0, kept["val_loss"])

        return sorted(completed, key=key)

    @property
    def best(self) -> TrialResult:
        """The trial that is best by validation; raises InputError where none is completed."""
        if not self.ranking:
            raise InputError(
                f"A search must have at least one completed trial. Received: {self.path}, where "
                f"{len(self.trials)} have begun."
            )
        return self.ranking[0]


class SearchFolder:
    """The files of a search, and that only one process runs it at a time."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._results: dict[str, tuple[Any, TrialResult]] = {}  # trial -> (state of its files, what they say)
        self._candidates: Candidates | None = None

    @property
    def trials_path(self) -> Path:
        """KerasTuner's project folder."""
        return self.path / TRIALS_FOLDER

    def read(self) -> dict[str, Any] | None:
        """search.json, or None where there is none."""
        try:
            record = json.loads((self.path / SEARCH_FILE).read_text("utf-8"))
            if record["format"] != _FORMAT:
                raise ValueError(f"format {record['format']}")
            return record
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.path / SEARCH_FILE} is not the record of a search of this version: {error}"
            ) from error

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes search.json beside and renames it."""
        text = json.dumps({"format": _FORMAT, **record}, indent=2, allow_nan=False) + "\n"
        write_beside(self.path / SEARCH_FILE, lambda path: path.write_text(text, "utf-8"))

    def check(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Returns the record of this same search, to go on with; None where the folder is new.

        Raises:
            InputError: a folder with something else in it, or with another search, saying how they differ.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"A search folder must be a folder. Received: {self.path}, which is a file.")
        record = self.read()
        if record is None:
            names = sorted(child.name for child in self.path.iterdir()) if self.path.is_dir() else []
            if names:
                raise InputError(
                    f"A search folder must be new, empty, or hold a search. Received: {self.path}, which holds "
                    f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}."
                )
            return None
        record["request"] = {**_DATA_DEFAULTS, **record["request"]}
        differences = list(_differences(record["request"], request))
        if differences:
            raise InputError(
                f"{self.path} holds another search. It differs in: {'; '.join(differences)}. Choose another "
                "--search-dir, or ask for the same to go on with it."
            )
        return record

    def lock(self) -> None:
        """Takes the folder for this process; raises InputError where another one runs the search."""
        lock = self.path / LOCK_FILE
        mine = {"process": os.getpid(), "host": platform.node(), "started": psutil.Process().create_time()}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if lock.exists():
                theirs = json.loads(lock.read_text("utf-8"))
                if theirs["host"] != mine["host"] or _runs(theirs["process"], theirs["started"]):
                    raise InputError(
                        f"The search in {self.path} is run by process {theirs['process']} on {theirs['host']}. If that "
                        f"is gone, remove {lock}."
                    )
                lock.unlink(missing_ok=True)
            with open(lock, "x", encoding="utf-8") as file:
                json.dump(mine, file)
        except FileExistsError as error:
            raise InputError(f"The search in {self.path} was just taken by another process.") from error
        except InputError:  # which is a ValueError
            raise
        except (OSError, ValueError, KeyError) as error:
            raise SaveError(f"The search folder {self.path} cannot be taken: {error}") from error

    def unlock(self) -> None:
        """Gives the folder back."""
        (self.path / LOCK_FILE).unlink(missing_ok=True)

    def read_trials(self, record: Mapping[str, Any]) -> tuple[TrialResult, ...]:
        """Every trial that has begun; only files that changed since the last call are read."""
        if self._candidates is None:
            self._candidates = make_candidates(record)
        results = []
        for folder in sorted(self.trials_path.glob("trial_*"), key=_trial_number):
            stamp = tuple(_stamp(folder / name) for name in (_TRIAL_FILE, PROGRESS_FILE))
            if stamp[0] is None:
                continue
            known = self._results.get(folder.name)
            if known is None or known[0] != stamp:
                known = (stamp, _read_trial(folder, self._candidates))
                self._results[folder.name] = known
            results.append(known[1])
        return tuple(results)

    def write_leaderboard(self, search: Search) -> None:
        """Writes leaderboard.csv: the completed trials by rank, then the others."""
        ranking = search.ranking
        rows = [trial.to_row(rank) for rank, trial in enumerate(ranking, start=1)]
        rows += [trial.to_row(None) for trial in search.trials if trial not in ranking]
        if rows:
            write_beside(self.path / LEADERBOARD_FILE, lambda path: dump_csv(rows, path))


def load_search(path: str | os.PathLike[str]) -> Search:
    """Reads a search, finished or not; raises InputError where the folder holds none."""
    folder = SearchFolder(path)
    record = folder.read()
    if record is None:
        raise InputError(
            f"A search folder must be one that 'keras-resnet search' wrote. Received: {path}, without {SEARCH_FILE}."
        )
    return Search(folder.path, record, folder.read_trials(record))


def absolute_data(data: str | os.PathLike[str]) -> str:
    """A path as seen from any folder; a name as it is."""
    text = os.fspath(data)
    return os.path.abspath(text) if os.path.exists(text) else text


def make_candidates(record: Mapping[str, Any]) -> Candidates:
    """The candidates that a record speaks of."""
    request, plan = record["request"], record["plan"]
    return Candidates(
        tuple(plan["input_shape"]),
        len(plan["class_names"]),
        space=Space.from_dict(request["space"]),
        recipe=Recipe.from_dict(plan["recipe"]),
        budget=Budget.from_dict(plan["budget"]),
        augment=True,
    )


def get_data_options(record: Mapping[str, Any]) -> dict[str, Any]:
    """How the data of a search is read: `data_dir`, `memory_limit_bytes`, `on_error`, and `normalize`."""
    request = {**_DATA_DEFAULTS, **record["request"]}
    return {name: request[name] for name in ("data_dir", *_DATA_DEFAULTS)}


def get_preprocessing(record: Mapping[str, Any]) -> Preprocessing:
    """The preprocessing that all trials of a search share."""
    return Preprocessing.from_dict(record["plan"]["preprocessing"])


def _read_trial(folder: Path, candidates: Candidates) -> TrialResult:
    state = json.loads((folder / _TRIAL_FILE).read_text("utf-8"))
    progress = Progress(folder)
    values = state["hyperparameters"]["values"]
    spec, recipe = candidates.make(values)
    totals = count_totals(spec, candidates.input_shape, candidates.classes)
    status = state["status"] if state["status"] in ("COMPLETED", "FAILED") else "RUNNING"
    return TrialResult(
        trial_id=state["trial_id"],
        status=status,
        spec=spec,
        recipe=recipe,
        parameters=totals.parameters,
        multiply_adds=totals.multiply_adds,
        first_epoch=values.get("tuner/initial_epoch", 0),
        epochs=values.get("tuner/epochs", recipe.epochs),
        records=tuple(progress.records),
        seconds=progress.seconds,
        reason=(state["message"] or "") if status == "FAILED" else "",
    )


def _trial_number(folder: Path) -> int:
    """The number in `trial_07`; KerasTuner writes more digits where more trials were asked for."""
    return int(folder.name.removeprefix("trial_"))


def _runs(process: int, started: float) -> bool:
    """Whether the process is still the one that began then: numbers of processes are given out again."""
    try:
        return psutil.Process(process).create_time() == started
    except psutil.Error:
        return False


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return state.st_mtime_ns, state.st_ino


def _differences(there: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Sequence[str]:
    found: list[str] = []
    now = json.loads(json.dumps(now))  # tuples as the file has them
    for name in dict.fromkeys((*there, *now)):
        if name in _MAY_CHANGE:
            continue
        old, new = there.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name} {old!r} there, {new!r} now")
    return found
