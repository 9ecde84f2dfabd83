"""The supervisor of a search on this machine: it keeps chief and workers running. It loads no TensorFlow."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

import psutil

from keras_resnet.errors import SearchFailed
from keras_resnet.jobs.options import RunOptions
from keras_resnet.jobs.searches.children import ChildProcess, make_environment
from keras_resnet.jobs.searches.folder import LOGS_FOLDER, SearchFolder
from keras_resnet.jobs.searches.record import ProcessFacts, SearchRecord
from keras_resnet.jobs.searches.results import Search, TrialResult
from keras_resnet.jobs.searches.service import Service
from keras_resnet.jobs.searches.tasks import BUG, DONE, INPUT_ERROR, REPLACE, ChiefTask, WorkerTask

OnChange = Callable[[tuple[TrialResult, ...]], object]

_CHIEF_START_SECONDS = 120  # KerasTuner and gRPC load in 3 to 10
_POLL_SECONDS = 0.5
_GRACE_SECONDS = 30  # for workers elsewhere to hear that the search is over
_MOST_DEATHS = 5  # of one worker in a row without an epoch between them

log = logging.getLogger(__name__)


class Supervisor:
    """Chief, where it runs here, and workers of a search, with what they have come to.

    Args:
        folder: of the search, held by this process where the chief runs here.
        record: of the search.
        service: where the chief is.
        options: with threads and memory of a worker decided.
    """

    def __init__(self, folder: SearchFolder, record: SearchRecord, service: Service, options: RunOptions) -> None:
        assert options.threads is not None
        assert options.worker_memory_bytes is not None
        self.folder, self.record, self.service = folder, record, service
        self.trials: tuple[TrialResult, ...] = ()
        self.finished = False
        self._started = time.monotonic()
        self._logs = folder.path / LOGS_FOLDER
        self._logs.mkdir(parents=True, exist_ok=True)
        self.chief: ChildProcess | None = None
        if service.runs_chief:
            task = ChiefTask(error_path=self._error_path("chief"), folder=str(folder.path))
            self.chief = self._make_child("chief", task, CUDA_VISIBLE_DEVICES="")  # the oracle needs no GPU
        self.workers = []
        for index in range(options.workers):
            name = f"{service.worker_prefix}{index}"
            worker_task = WorkerTask(
                error_path=self._error_path(name),
                folder=str(folder.path),
                index=index,
                threads=options.threads,
                memory_limit_bytes=options.worker_memory_bytes,
                chief_timeout_seconds=options.chief_timeout_seconds,
            )
            self.workers.append(self._make_child(name, worker_task, OMP_NUM_THREADS=str(options.threads)))

    def _error_path(self, name: str) -> str:
        return str(self._logs / f"{name}.error.json")

    def _make_child(self, name: str, task: ChiefTask | WorkerTask, **environment: str) -> ChildProcess:
        variables = self.service.make_variables(name)
        return ChildProcess(name, self._logs / f"{name}.log", task, make_environment(**variables, **environment))

    @property
    def children(self) -> list[ChildProcess]:
        """The chief, where it runs here, and the workers."""
        return [*([self.chief] if self.chief is not None else ()), *self.workers]

    @property
    def seconds(self) -> float:
        """The time since this was made."""
        return time.monotonic() - self._started

    def describe_processes(self) -> tuple[ProcessFacts, ...]:
        """What the processes took, this one first."""
        own = ProcessFacts("supervisor", 1, psutil.Process().memory_info().rss)
        return (own, *(ProcessFacts(child.name, child.starts, child.peak_bytes) for child in self.children))

    def run(self, on_change: OnChange | None) -> None:
        """Runs chief and workers until the search is over; whatever ends it, no child is left.

        Raises:
            InputError: a child could not use what it was given.
            SearchFailed: a child met a bug, or dies again and again.
        """
        try:
            for child in self.children:  # workers load TensorFlow while the chief comes up
                child.start()
            self._await_chief()
            over_since: float | None = None
            while not self.finished:
                time.sleep(_POLL_SECONDS)
                for worker in self.workers:
                    self._look_after(worker)
                self._tell_changes(on_change)
                workers_done = all(worker.finished for worker in self.workers)
                if self.chief is None:
                    self.finished = workers_done
                elif (code := self.chief.poll()) is not None:
                    if code != DONE:
                        self.chief.raise_problem()
                    self.finished = workers_done
                elif self.workers and workers_done and not self._any_trial_runs():
                    # KerasTuner's chief asks itself only every 20 seconds whether it is done; workers elsewhere need
                    # it until they have heard that they are.
                    over_since = over_since or time.monotonic()
                    self.finished = not self.service.shared or time.monotonic() - over_since > _GRACE_SECONDS
        finally:
            for child in reversed(self.children):  # the chief last
                child.stop()

    def _await_chief(self) -> None:
        if self.chief is None:
            return
        end = time.monotonic() + _CHIEF_START_SECONDS
        while time.monotonic() < end:
            if self.chief.wait(0.1) is not None:
                self.chief.raise_problem()
            if self.service.answers():
                return
        raise SearchFailed(
            f"The chief did not listen at {self.service.address}:{self.service.port} within {_CHIEF_START_SECONDS} s; "
            f"see {self.chief.log_path}."
        )

    def _tell_changes(self, on_change: OnChange | None) -> None:
        trials = self.folder.read_trials(self.record)
        if trials == self.trials:
            return
        self.trials = trials
        if self.chief is not None:
            self.folder.write_leaderboard(Search(self.folder.path, self.record, trials))
        if on_change is not None:
            on_change(trials)

    def _look_after(self, worker: ChildProcess) -> None:
        """Starts a worker again that died or is to be replaced; raises what is no trial's own fault."""
        if worker.finished:
            return
        code = worker.poll()
        if code is None:
            return
        if code == DONE:
            worker.finished = True
            return
        if code in (INPUT_ERROR, BUG):
            worker.raise_problem()
        if code != REPLACE:
            self._count_death(worker, code)
        worker.start()

    def _count_death(self, worker: ChildProcess, code: int) -> None:
        epochs = sum(len(trial.history) for trial in self.folder.read_trials(self.record))
        worker.deaths = worker.deaths + 1 if epochs == worker.epochs_at_death else 1
        worker.epochs_at_death = epochs
        if worker.deaths >= _MOST_DEATHS:
            raise SearchFailed(
                f"{worker.name} died {worker.deaths} times without finishing an epoch between; the end of "
                f"{worker.log_path}:\n{worker.read_problem().traceback}"
            )
        log.warning("%s ended with code %d; it is started again and goes on with its trial", worker.name, code)

    def _any_trial_runs(self) -> bool:
        """Whether any worker, here or elsewhere, has a trial."""
        state = json.loads((self.folder.trials_path / "oracle.json").read_text("utf-8"))
        return bool(state["ongoing_trials"] or state["retry_queue"])
