"""The sides of a benchmark as child processes that work only when asked. It loads neither TensorFlow nor PyTorch.

TensorFlow and PyTorch would fight over threads in one process. So each side has one of its own, which sleeps in a read
until a line of JSON tells it what to do, does it, and answers with a line of JSON; only one is asked at a time. When its
input ends, whatever ended the parent, it ends at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self, TypeVar

from keras_resnet.benchmark import messages
from keras_resnet.benchmark.messages import ExportJob, MeasureJob, Message, Refusal
from keras_resnet.errors import BenchmarkFailed

Answer = TypeVar("Answer", bound=Message)

_LAST_LINES = 15  # of a log, in an error
_END_SECONDS = 10
COMMAND = (sys.executable, "-m", "keras_resnet.benchmark.side_process")  # of a child


class SideFailed(BenchmarkFailed):
    """A child ended when it should have answered; the message has the end of its log."""


class SideUnavailable(RuntimeError):
    """A child cannot do what it is for, such as compile; the message says why."""


class SideProcess:
    """One child process and its log; a context manager that leaves none behind.

    Args:
        name: for messages.
        job: what it is for.
        log_path: where its output goes.
        environment: of the child.
    """

    def __init__(self, name: str, job: MeasureJob | ExportJob, log_path: Path, environment: dict[str, str]) -> None:
        self.name, self.log_path = name, log_path
        with open(log_path, "wb") as log:
            # A session of its own: Ctrl-C is the parent's, who ends all children and whatever they have started.
            self._child = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                start_new_session=True,
            )
        self._send(job)

    @property
    def process_id(self) -> int:
        """The child's process id."""
        return self._child.pid

    def ask(self, request: Message, answer: type[Answer]) -> Answer:
        """Has the child do something and returns its answer; errors as `receive`."""
        self._send(request)
        return self.receive(answer)

    def _send(self, message: Message) -> None:
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, as the missing answer will show
            self._child.stdin.write(messages.dump(message))
            self._child.stdin.flush()

    def receive(self, answer: type[Answer]) -> Answer:
        """Waits for the next answer.

        Raises:
            SideFailed: the child ended instead.
            SideUnavailable: the child says that it cannot.
        """
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            code = self._child.wait()
            ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            hint = ", as the system does where memory runs out" if code == -signal.SIGKILL else ""
            lines = self.log_path.read_text("utf-8", "replace").strip().splitlines()[-_LAST_LINES:]
            raise SideFailed("\n".join([f"{self.name} {ended}{hint}. The end of its log:", *(lines or ["(empty)"])]))
        received = messages.load(line)
        if isinstance(received, Refusal):
            raise SideUnavailable(received.reason)
        assert isinstance(received, answer), f"{received} is not what was asked for, {answer.__name__}"
        return received

    def close(self) -> None:
        """Ends the child and what it has started."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.close()  # the child ends itself
        try:
            self._child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
        finally:
            if hasattr(os, "killpg"):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._child.pid, signal.SIGKILL)  # such as a compiler that it had started
            self._child.wait()
            self._child.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_environment(threads: int, scratch: Path) -> dict[str, str]:
    """The environment of a child; what this process has (oneDNN's switch among it) goes on."""
    fixed = {
        "KERAS_BACKEND": "tensorflow",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(threads),
        # Compiled kernels of an earlier run would hide what the first step costs, and a pool of compiling processes
        # would outlive it.
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "torchinductor"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }
    # Each side on a GPU takes what it needs instead of everything.
    defaults = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    return {**defaults, **os.environ, **fixed}
