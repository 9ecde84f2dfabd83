"""Child processes: started, watched, started again, stopped. Nothing here loads TensorFlow."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import psutil

from keras_resnet.errors import InputError, SearchFailed
from keras_resnet.jobs.searches.tasks import Problem, Task

_LOG_LINES = 15  # of a child that ended without a word, in the message


@dataclass
class ChildProcess:
    """One child, its log and what has become of it."""

    name: str
    log_path: Path
    task: Task
    environment: dict[str, str]
    child: subprocess.Popen[bytes] | None = None
    starts: int = 0
    peak_bytes: int = 0  # the most resident memory seen by `poll`
    finished: bool = False
    deaths: int = 0  # in a row without an epoch between them
    epochs_at_death: int = -1  # of all trials, at the last of those

    def start(self) -> None:
        """Starts the child, or starts it again."""
        self.starts += 1
        Path(self.task.error_path).unlink(missing_ok=True)
        command = [sys.executable, "-m", "keras_resnet.jobs.searches.process"]
        with open(self.log_path, "ab") as output:
            # A session of its own: Ctrl-C is the supervisor's, who lets each child end between two writes.
            self.child = subprocess.Popen(
                [*command, self.task.role, json.dumps(self.task.to_dict())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """Returns the exit code, or None while it runs; looks how large it is."""
        assert self.child is not None
        code = self.child.poll()
        if code is None:
            with contextlib.suppress(psutil.Error):  # ended in between
                self.peak_bytes = max(self.peak_bytes, psutil.Process(self.child.pid).memory_info().rss)
        return code

    def wait(self, seconds: float) -> int | None:
        """Returns the exit code as soon as there is one, or None after `seconds`."""
        assert self.child is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(seconds)
        return self.poll()

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

    def read_problem(self) -> Problem:
        """Reads what the child left in its error file; without one, the end of its log."""
        try:
            return Problem.from_dict(json.loads(Path(self.task.error_path).read_text("utf-8")))
        except (OSError, ValueError):
            lines = self.log_path.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:]
            return Problem("bug", f"{self.name} ended without a word", "\n".join(lines))

    def raise_problem(self) -> NoReturn:
        """Raises what the child left: InputError, or SearchFailed with its traceback."""
        problem = self.read_problem()
        if problem.kind == "input":
            raise InputError(problem.message)
        raise SearchFailed(f"{self.name}: {problem.message}\n{problem.traceback}")


def make_environment(**changes: str) -> dict[str, str]:
    """Returns the environment of a child: this one's, with `changes`; training is on Keras' TensorFlow backend."""
    fixed = {"KERAS_BACKEND": "tensorflow", "PYTHONUNBUFFERED": "1"}
    return {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, **fixed, **changes}
