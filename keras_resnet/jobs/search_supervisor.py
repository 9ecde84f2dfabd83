"""Child processes of a search: started, watched, started again, stopped. It loads no TensorFlow."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import psutil

from keras_resnet.errors import InputError, SearchFailed
from keras_resnet.jobs.search_folder import Search, SearchFolder, TrialResult
from keras_resnet.jobs.search_process import BUG, DONE, INPUT_ERROR, REPLACE

_CHIEF_START_SECONDS = 120  # KerasTuner and gRPC load in 3 to 10
POLL_SECONDS = 0.5
_GRACE_SECONDS = 30  # for workers elsewhere to hear that the search is over
_MOST_DEATHS = 5  # of one worker in a row without an epoch between them

log = logging.getLogger(__name__)


@dataclass
class ChildProcess:
    """One child, its log and what has become of it."""

    name: str
    log_path: Path
    error_path: Path
    arguments: tuple[str, ...]
    environment: dict[str, str]
    child: subprocess.Popen[bytes] | None = None
    deaths: int = 0  # in a row without progress
    starts: int = 0
    peak_bytes: int = 0
    finished: bool = False
    epochs_at_death: int = -1

    def start(self) -> None:
        """Starts the child, or starts it again."""
        self.starts += 1
        self.error_path.unlink(missing_ok=True)
        role, *rest = self.arguments
        command = [sys.executable, "-m", "keras_resnet.jobs.search_process", str(os.getpid()), role]
        with open(self.log_path, "ab") as output:
            # A session of its own: Ctrl-C is the supervisor's, who lets each child end between two writes.
            self.child = subprocess.Popen(
                [*command, str(self.error_path), *rest],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """The exit code, or None while it runs; looks how large it is."""
        assert self.child is not None
        code = self.child.poll()
        if code is None:
            with contextlib.suppress(psutil.Error):  # ended in between
                self.peak_bytes = max(self.peak_bytes, psutil.Process(self.child.pid).memory_info().rss)
        return code

    def stop(self) -> None:
        """Ends the child, if it runs."""
        if self.child is None or self.child.poll() is not None:
            return
        self.child.terminate()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def problem(self) -> dict[str, str]:
        """What the child left in its error file, or the end of its log."""
        try:
            return json.loads(self.error_path.read_text("utf-8"))
        except (OSError, ValueError):
            lines = self.log_path.read_text("utf-8", "replace").splitlines()[-15:]
            return {"kind": "bug", "message": f"{self.name} ended without a word", "traceback": "\n".join(lines)}


@dataclass(frozen=True)
class Service:
    """Where the chief is and what this process runs of the search."""

    address: str
    port: int
    runs_chief: bool
    worker_prefix: str
    shared: bool  # other machines may take part


@dataclass
class SearchRun:
    """A search while it runs here."""

    folder: SearchFolder
    record: dict[str, Any]
    service: Service
    chief: ChildProcess | None
    workers: list[ChildProcess] = field(default_factory=list)
    trials: tuple[TrialResult, ...] = ()
    finished: bool = False
    started: float = field(default_factory=time.monotonic)

    @property
    def children(self) -> list[ChildProcess]:
        """The chief, where it runs here, and the workers."""
        return [*([self.chief] if self.chief is not None else ()), *self.workers]


def make_environment(**changes: str) -> dict[str, str]:
    """The environment of a child: this one's, with `changes`; training is on Keras' TensorFlow backend."""
    fixed = {"KERAS_BACKEND": "tensorflow", "PYTHONUNBUFFERED": "1"}
    return {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, **fixed, **changes}


def supervise(run: SearchRun, on_change: Callable[[tuple[TrialResult, ...]], object] | None) -> None:
    """Runs chief and workers until the search is over; whatever ends it, no child is left.

    Raises:
        InputError: a child could not use what it was given.
        SearchFailed: a child met a bug, or dies again and again.
    """
    try:
        for child in run.children:  # workers load TensorFlow while the chief comes up
            child.start()
        _await_chief(run)
        over_since: float | None = None
        while not run.finished:
            time.sleep(POLL_SECONDS)
            for worker in run.workers:
                _look_after(worker, run)
            trials = run.folder.read_trials(run.record)
            if trials != run.trials:
                run.trials = trials
                if run.chief is not None:
                    run.folder.write_leaderboard(Search(run.folder.path, run.record, trials))
                if on_change is not None:
                    on_change(trials)
            workers_done = all(worker.finished for worker in run.workers)
            if run.chief is None or run.chief.poll() is not None:
                if run.chief is not None and run.chief.poll() != DONE:
                    raise_problem(run.chief)
                run.finished = workers_done
            elif run.workers and workers_done and not _ongoing(run.folder):
                # KerasTuner's chief asks itself only every 20 seconds whether it is done; workers elsewhere need it
                # until they have heard that they are.
                over_since = over_since or time.monotonic()
                run.finished = not run.service.shared or time.monotonic() - over_since > _GRACE_SECONDS
    finally:
        for child in reversed(run.children):  # the chief last
            child.stop()


def _await_chief(run: SearchRun) -> None:
    if run.chief is None:
        return
    end = time.monotonic() + _CHIEF_START_SECONDS
    while time.monotonic() < end:
        if run.chief.poll() is not None:
            raise_problem(run.chief)
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((run.service.address, run.service.port)) == 0:
                return
        time.sleep(0.1)
    raise SearchFailed(
        f"The chief did not listen at {run.service.address}:{run.service.port} within {_CHIEF_START_SECONDS} s; see "
        f"{run.chief.log_path}."
    )


def _look_after(worker: ChildProcess, run: SearchRun) -> None:
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
        raise_problem(worker)
    if code != REPLACE:
        epochs = sum(len(trial.records) for trial in run.folder.read_trials(run.record))
        worker.deaths = worker.deaths + 1 if epochs == worker.epochs_at_death else 1
        worker.epochs_at_death = epochs
        log.warning("%s ended with code %d; it is started again and goes on with its trial", worker.name, code)
        if worker.deaths >= _MOST_DEATHS:
            raise SearchFailed(
                f"{worker.name} died {worker.deaths} times without finishing an epoch between; the end of "
                f"{worker.log_path}:\n{worker.problem()['traceback']}"
            )
    worker.start()


def raise_problem(process: ChildProcess) -> NoReturn:
    """Raises what a child has left in its error file."""
    problem = process.problem()
    if problem["kind"] == "input":
        raise InputError(problem["message"])
    raise SearchFailed(f"{process.name}: {problem['message']}\n{problem['traceback']}")


def _ongoing(folder: SearchFolder) -> bool:
    """Whether any worker, here or elsewhere, has a trial."""
    state = json.loads((folder.trials_path / "oracle.json").read_text("utf-8"))
    return bool(state["ongoing_trials"] or state["retry_queue"])
