"""Runs a plan: the sides of each case take turns, one at a time. It loads neither TensorFlow nor PyTorch."""

from __future__ import annotations

import contextlib
import functools
import logging
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_resnet.benchmark.plan import APPLICATIONS, OURS, PRODUCT_SIZE, STOCK, Case, Plan
from keras_resnet.benchmark.processes import SideFailed, SideProcess, SideUnavailable, make_environment

MATRIX_PRODUCT = "matrix product"
_WARM_UP_STEPS = 2  # behind the first, which is told apart
_MOST_STEPS = 10_000  # in a turn
_PRODUCT_SECONDS = 0.5  # of a turn of the matrix product, at most

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """What was measured of one side in one case; figures are None where it could not be measured."""

    network: str
    task: str
    batch_size: int
    input: str
    side: str
    dtype: str
    threads: int
    milliseconds: float | None = None  # of a step: the median over rounds
    milliseconds_min: float | None = None
    milliseconds_max: float | None = None
    images_per_second: float | None = None
    gflops: float | None = None  # 10^9 operations a second, two for each multiply-add; see `plan.PASSES`
    peak_gflops: float | None = None  # of a matrix product, in its fastest turn of the case
    peak_share: float | None = None
    memory_mib: float | None = None  # the most that the side's process held, libraries included
    first_step_seconds: float | None = None  # tracing and compiling included
    ready_seconds: float | None = None  # before it: imports, building or loading the network
    ours_ratio: float | None = None  # time of "ours" / time of this side: the median over rounds
    rounds: int = 0
    steps: int = 0  # in each round
    device: str = ""  # "cpu" or "gpu"
    note: str = ""  # why there are no figures
    failed: bool = False  # unlike what was left out, an error


@dataclass
class _Turns:
    """A side that takes part, with what it has shown."""

    name: str
    process: SideProcess
    ready_seconds: float = 0.0
    device: str = ""
    first_step_seconds: float = 0.0
    steps: int = 1  # of a turn
    seconds: list[float] = field(default_factory=list)  # of a step, by round

    def run(self, steps: int) -> float:
        """Seconds of a step, over so many of them."""
        return self.process.ask("round", steps=steps)["seconds"] / steps

    def warm_up(self, round_seconds: float) -> None:
        """The first step, a few more, and from these how many make a round."""
        ready = self.process.receive()
        self.ready_seconds, self.device = ready["ready_seconds"], ready["device"]
        self.first_step_seconds = self.process.ask("first")["seconds"]
        self._choose_steps(round_seconds, min(self.run(1) for _ in range(_WARM_UP_STEPS)))
        if self.steps > 1:  # short steps go on getting faster for a while
            self._choose_steps(round_seconds, self.run(self.steps))

    def _choose_steps(self, round_seconds: float, step_seconds: float) -> None:
        self.steps = min(max(1, round(round_seconds / max(step_seconds, 1e-6))), _MOST_STEPS)

    def take_turn(self) -> float:
        """One round; where steps are short, one more that is not counted, since others had the caches meanwhile."""
        if self.steps > 1:
            self.run(1)
        self.seconds.append(self.run(self.steps))
        return self.seconds[-1]


def measure(
    plan: Plan,
    *,
    on_progress: Callable[[str], object] = lambda text: None,
    on_rows: Callable[[Sequence[Row]], object] = lambda rows: None,
) -> list[Row]:
    """Measures every case of a plan and returns a row for each side, those left out included.

    The sides of a case are started and warmed up one after the other, then each takes a turn in every round, and a
    matrix product between them; a round goes through them forwards, the next one backwards. Whatever ends this, no
    child process is left.

    Args:
        plan: from `make_plan`.
        on_progress: called with a line on what is being done.
        on_rows: called with all rows so far after each case.

    Raises:
        SideFailed: the process of the matrix product died; what befalls a side is in its row.
    """
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="keras_resnet_benchmark_") as folder:
        exports: dict[tuple[str, str], str] = {}  # of (network, side)
        for number, case in enumerate(plan.cases, start=1):
            title = f"{case.title} ({number} of {len(plan.cases)})" if len(plan.cases) > 1 else case.title
            runner = _CaseRunner(plan, case, Path(folder), exports, functools.partial(_say, on_progress, title))
            rows += runner.measure()
            on_rows(rows)
    return rows


def _say(on_progress: Callable[[str], object], title: str, text: str) -> None:
    on_progress(f"{title}: {text}")


class _CaseRunner:
    """One case while it runs."""

    def __init__(
        self,
        plan: Plan,
        case: Case,
        scratch: Path,
        exports: dict[tuple[str, str], str],
        say: Callable[[str], object],
    ) -> None:
        self.plan, self.case, self.scratch, self.exports, self.say = plan, case, scratch, exports, say
        self.notes: dict[str, tuple[str, bool]] = {side: (reason, False) for side, reason in case.left_out}
        self.memory: dict[str, int] = {}
        self.product_seconds: list[float] = []

    def measure(self) -> list[Row]:
        """A row for each side, in the order of the case."""
        turns: dict[str, _Turns] = {}
        with contextlib.ExitStack() as stack:
            product = _Turns(MATRIX_PRODUCT, stack.enter_context(self._start(MATRIX_PRODUCT)))
            product.warm_up(min(self.plan.round_seconds, _PRODUCT_SECONDS))
            for side in self.case.sides:
                with self._noting(side):
                    turns[side] = self._warm_up(side, stack)
            for number in range(self.plan.rounds):
                self.say(f"round {number + 1} of {self.plan.rounds}")
                order = [side for side in turns if side not in self.notes]
                for side in order if number % 2 == 0 else reversed(order):
                    with self._noting(side):
                        turns[side].take_turn()
                product.take_turn()
            for side, turn in turns.items():
                if side not in self.notes:
                    with self._noting(side):
                        self.memory[side] = turn.process.ask("report")["peak_bytes"]
            self.product_seconds = product.seconds
        measured = {side: turn for side, turn in turns.items() if side not in self.notes}
        everyone = (*self.case.sides, *(side for side, _ in self.case.left_out))
        return [self._make_row(side, measured.get(side), measured.get(OURS)) for side in everyone]

    @contextlib.contextmanager
    def _noting(self, side: str) -> Iterator[None]:
        """What befalls one side is noted in its row; the others go on."""
        try:
            yield
        except SideUnavailable as error:
            self.notes[side] = (str(error), False)
            self.say(f"{side} left out: {error}")
        except SideFailed as error:
            self.notes[side] = (str(error).splitlines()[0], True)
            log.error("%s: %s", self.case.title, error)

    def _warm_up(self, side: str, stack: contextlib.ExitStack) -> _Turns:
        job: dict[str, Any] = {}
        if self.case.task == "infer" and side in (OURS, STOCK, APPLICATIONS):
            job["folder"] = self._export(side)
        self.say(f"{side}: starting")
        turns = _Turns(side, stack.enter_context(self._start(side, **job)))
        turns.warm_up(self.plan.round_seconds)
        self.say(f"{side}: first step {turns.first_step_seconds:.2f} s")
        return turns

    def _export(self, side: str) -> str:
        """The SavedModel of a side, written once, in a process that ends: it would count as memory of the other."""
        key = (self.case.network, side)
        if key not in self.exports:
            self.say(f"{side}: exporting")
            folder = self.scratch / f"{self.case.network}_{side}"
            with self._start("export", **{"for": side, "folder": str(folder)}) as process:
                self.exports[key] = process.receive()["folder"]
        return self.exports[key]

    def _start(self, side: str, **job: Any) -> SideProcess:
        case, plan = self.case, self.plan
        job = {
            "side": side,
            "network": case.network,
            "task": case.task,
            "batch_size": case.batch_size,
            "input_shape": case.input_shape,
            "classes": case.classes,
            "threads": plan.threads,
            "dtype": plan.dtype,
            **job,
        }
        environment = make_environment(plan.threads, self.scratch)
        return SideProcess(f"The process of {side!r}", job, self.scratch / f"{side}.log", environment)

    def _make_row(self, side: str, turns: _Turns | None, ours: _Turns | None) -> Row:
        case, plan = self.case, self.plan
        common: dict[str, Any] = {
            "network": case.network,
            "task": case.task,
            "batch_size": case.batch_size,
            "input": case.input_text,
            "side": side,
            "dtype": plan.dtype,
            "threads": plan.threads,
        }
        if turns is None:
            note, failed = self.notes[side]
            return Row(**common, note=note, failed=failed)
        seconds = statistics.median(turns.seconds)
        gflops = case.count_flops(side) / seconds / 1e9
        peak = 2 * PRODUCT_SIZE**3 / min(self.product_seconds) / 1e9  # what disturbs it only makes it slower
        ratio = None
        if ours is not None:  # by round: what slows the machine down for a while is in both
            ratio = statistics.median(a / b for a, b in zip(ours.seconds, turns.seconds, strict=True))
        return Row(
            **common,
            milliseconds=1000 * seconds,
            milliseconds_min=1000 * min(turns.seconds),
            milliseconds_max=1000 * max(turns.seconds),
            images_per_second=case.batch_size / seconds,
            gflops=gflops,
            peak_gflops=peak,
            peak_share=gflops / peak,
            memory_mib=self.memory[side] / 2**20,
            first_step_seconds=turns.first_step_seconds,
            ready_seconds=turns.ready_seconds,
            device=turns.device,
            ours_ratio=ratio,
            rounds=len(turns.seconds),
            steps=turns.steps,
        )
