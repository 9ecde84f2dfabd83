"""The folder of a search: its record, every trial, the leaderboard. Reading it loads neither Keras nor TensorFlow."""

from __future__ import annotations

import json
import os
from pathlib import Path

from keras_resnet.errors import InputError, SaveError
from keras_resnet.files import dump_csv, write_beside
from keras_resnet.folders import FolderLock, LockTaken
from keras_resnet.jobs.searches.record import SearchRecord, SearchRequest, read_record
from keras_resnet.jobs.searches.results import Search, TrialResult
from keras_resnet.records import read_stored
from keras_resnet.search import PROGRESS_FILE, Candidates, Progress
from keras_resnet.specs import count_totals

SEARCH_FILE = "search.json"
LEADERBOARD_FILE = "leaderboard.csv"
PARETO_FILE = "pareto.png"
TRIALS_FOLDER = "trials"  # KerasTuner's project: oracle.json and a folder per trial
LOGS_FOLDER = "logs"
_TRIAL_FILE = "trial.json"  # KerasTuner's

_Stamps = tuple[tuple[int, int] | None, ...]


class SearchFolder:
    """The files of a search, and that only one process runs it at a time."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = FolderLock(self.path)
        self._results: dict[str, tuple[_Stamps, TrialResult]] = {}  # by folder: state of the files, what they say
        self._candidates: Candidates | None = None

    @property
    def trials_path(self) -> Path:
        """KerasTuner's project folder."""
        return self.path / TRIALS_FOLDER

    def trial_path(self, trial_id: str) -> Path:
        """The folder of a trial."""
        return self.trials_path / f"trial_{trial_id}"

    def read(self) -> SearchRecord | None:
        """Reads search.json; None where there is none. Raises InputError where it is of another kind."""
        path = self.path / SEARCH_FILE
        try:
            return read_stored(path, "a search", read_record)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"{path}, the record of a search, cannot be read: {error}.") from error

    def write(self, record: SearchRecord) -> None:
        """Writes search.json beside and renames it."""
        text = json.dumps(record.to_json(), indent=2, allow_nan=False) + "\n"
        write_beside(self.path / SEARCH_FILE, lambda path: path.write_text(text, "utf-8"))

    def check(self, request: SearchRequest) -> SearchRecord | None:
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
        differences = record.request.find_differences(request)
        if differences:
            raise InputError(
                f"{self.path} holds another search. It differs in: {'; '.join(differences)}. Choose another "
                "--search-dir, or ask for the same to go on with it."
            )
        return record

    def lock(self) -> None:
        """Takes the folder for this process, also from one that is gone.

        Raises:
            InputError: another process runs the search.
            SaveError: the folder cannot be written, or holds a lock that names no process.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self._lock.path.exists():
                owner = self._lock.read()
                if owner is None:
                    raise SaveError(
                        f"The search folder {self.path} cannot be taken: {self._lock.path} names no process that this "
                        "version can look for. If no process runs the search, remove that file."
                    )
                if owner.runs:
                    raise InputError(
                        f"The search in {self.path} is run by process {owner.process} on {owner.host}. If that is gone, "
                        f"remove {self._lock.path}."
                    )
                self._lock.give_back()
            self._lock.take()
        except LockTaken as error:
            raise InputError(f"The search in {self.path} was just taken by another process.") from error
        except SaveError:  # which is an OSError
            raise
        except OSError as error:
            raise SaveError(f"The search folder {self.path} cannot be taken: {error}.") from error

    def unlock(self) -> None:
        """Gives the folder back."""
        self._lock.give_back()

    def read_trials(self, record: SearchRecord) -> tuple[TrialResult, ...]:
        """Reads every trial that has begun; of those read before, only files that changed since."""
        if self._candidates is None:
            self._candidates = record.plan.make_candidates()
        results = []
        for folder in sorted(self.trials_path.glob("trial_*"), key=_trial_number):
            stamps = tuple(_stamp(folder / name) for name in (_TRIAL_FILE, PROGRESS_FILE))
            if stamps[0] is None:
                continue
            known = self._results.get(folder.name)
            if known is None or known[0] != stamps:
                known = (stamps, _read_trial(folder, self._candidates))
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


def _read_trial(folder: Path, candidates: Candidates) -> TrialResult:
    """Reads KerasTuner's file of a trial, and the trial's epochs beside it."""
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
        history=tuple(progress.epochs),
        seconds=progress.seconds,
        reason=(state["message"] or "") if status == "FAILED" else "",
    )


def _trial_number(folder: Path) -> int:
    """The number in `trial_07`; KerasTuner writes more digits where more trials were asked for."""
    return int(folder.name.removeprefix("trial_"))


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes whenever a file is written anew; None where there is none."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return state.st_mtime_ns, state.st_ino
