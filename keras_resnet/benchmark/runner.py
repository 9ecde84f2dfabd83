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

from keras_resnet.benchmark.measurements import Figures, Measurement
from keras_resnet.benchmark.messages import (
    Duration,
    Exported,
    ExportJob,
    FirstStep,
    MeasureJob,
    MemoryRequest,
    PeakMemory,
    Ready,
    Steps,
)
from keras_resnet.benchmark.plan import BenchmarkPlan, Case
from keras_resnet.benchmark.processes import SideFailed, SideProcess, SideUnavailable, make_environment
from keras_resnet.benchmark.workload import APPLICATIONS, MATRIX_PRODUCT, OURS, PRODUCT_SIZE, STOCK

_WARM_UP_STEPS = 2  # behind the first, which is told apart
_MOST_STEPS = 10_000  # in a turn
_PRODUCT_SECONDS = 0.5  # of a turn of the matrix product, at most

log = logging.getLogger(__name__)


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
        return self.process.ask(Steps(steps), Duration).seconds / steps

    def warm_up(self, round_seconds: float) -> None:
        """The first step, a few more, and from these how many make a round."""
        ready = self.process.receive(Ready)
        self.ready_seconds, self.device = ready.seconds, ready.device
        self.first_step_seconds = self.process.ask(FirstStep(), Duration).seconds
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
    plan: BenchmarkPlan,
    *,
    on_progress: Callable[[str], object] = lambda text: None,
    on_measurements: Callable[[Sequence[Measurement]], object] = lambda measurements: None,
) -> list[Measurement]:
    """Measures every case of a plan and returns a measurement for each side, those left out included.

    The sides of a case are started and warmed up one after the other, then each takes a turn in every round, and a
    matrix product between them; a round goes through them forwards, the next one backwards. Whatever ends this, no
    child process is left.

    Args:
        plan: from `make_plan`.
        on_progress: called with a line on what is being done.
        on_measurements: called with all of them so far after each case.

    Raises:
        SideFailed: the process of the matrix product died; what befalls a side is in its measurement.
    """
    measurements: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix="keras_resnet_benchmark_") as folder:
        exports: dict[tuple[str, str], str] = {}  # of (network, side)
        for number, case in enumerate(plan.cases, start=1):
            counted = f" ({number} of {len(plan.cases)})" if len(plan.cases) > 1 else ""
            say = functools.partial(_say, on_progress, case.workload.title + counted)
            runner = _CaseRunner(plan, case, Path(folder), exports, say)
            measurements += runner.measure()
            on_measurements(measurements)
    return measurements


def _say(on_progress: Callable[[str], object], title: str, text: str) -> None:
    on_progress(f"{title}: {text}")


class _CaseRunner:
    """One case while it runs."""

    def __init__(
        self,
        plan: BenchmarkPlan,
        case: Case,
        scratch: Path,
        exports: dict[tuple[str, str], str],
        say: Callable[[str], object],
    ) -> None:
        self.plan, self.case, self.scratch, self.exports, self.say = plan, case, scratch, exports, say
        self.notes: dict[str, tuple[str, bool]] = {side: (reason, False) for side, reason in case.left_out}
        self.memory: dict[str, int] = {}
        self.product_seconds: list[float] = []

    def measure(self) -> list[Measurement]:
        """A measurement for each side, in the order of the case."""
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
                        self.memory[side] = turn.process.ask(MemoryRequest(), PeakMemory).size_bytes
            self.product_seconds = product.seconds
        measured = {side: turn for side, turn in turns.items() if side not in self.notes}
        everyone = (*self.case.sides, *(side for side, _ in self.case.left_out))
        return [self._summarize(side, measured.get(side), measured.get(OURS)) for side in everyone]

    @contextlib.contextmanager
    def _noting(self, side: str) -> Iterator[None]:
        """What befalls one side is noted in its measurement; the others go on."""
        try:
            yield
        except SideUnavailable as error:
            self.notes[side] = (str(error), False)
            self.say(f"{side} left out: {error}")
        except SideFailed as error:
            self.notes[side] = (str(error).splitlines()[0], True)
            log.error("%s: %s", self.case.workload.title, error)

    def _warm_up(self, side: str, stack: contextlib.ExitStack) -> _Turns:
        exports = self.case.workload.task == "infer" and side in (OURS, STOCK, APPLICATIONS)
        saved_model = self._export(side) if exports else None
        self.say(f"{side}: starting")
        turns = _Turns(side, stack.enter_context(self._start(side, saved_model)))
        turns.warm_up(self.plan.round_seconds)
        self.say(f"{side}: first step {turns.first_step_seconds:.2f} s")
        return turns

    def _export(self, side: str) -> str:
        """The SavedModel of a side, written once, in a process that ends: it would count as memory of the other."""
        network = self.case.workload.network
        if (network, side) not in self.exports:
            self.say(f"{side}: exporting")
            job = ExportJob(side, self.case.workload, str(self.scratch / f"{network}_{side}"))
            with self._start_process(f"The process that exports {side!r}", job) as process:
                self.exports[network, side] = process.receive(Exported).folder
        return self.exports[network, side]

    def _start(self, side: str, saved_model: str | None = None) -> SideProcess:
        return self._start_process(f"The process of {side!r}", MeasureJob(side, self.case.workload, saved_model))

    def _start_process(self, name: str, job: MeasureJob | ExportJob) -> SideProcess:
        log_path = self.scratch / f"{type(job).__name__}_{job.side}.log"
        return SideProcess(name, job, log_path, make_environment(job.workload.threads, self.scratch))

    def _summarize(self, side: str, turns: _Turns | None, ours: _Turns | None) -> Measurement:
        work = self.case.workload
        if turns is None:
            note, failed = self.notes[side]
            return Measurement(work, side, note=note, failed=failed)
        seconds = statistics.median(turns.seconds)
        gflops = work.count_flops(side) / seconds / 1e9
        peak = 2 * PRODUCT_SIZE**3 / min(self.product_seconds) / 1e9  # what disturbs it only makes it slower
        ratio = None
        if ours is not None:  # by round: what slows the machine down for a while is in both
            ratio = statistics.median(a / b for a, b in zip(ours.seconds, turns.seconds, strict=True))
        figures = Figures(
            milliseconds=1000 * seconds,
            milliseconds_min=1000 * min(turns.seconds),
            milliseconds_max=1000 * max(turns.seconds),
            images_per_second=work.batch_size / seconds,
            gflops=gflops,
            peak_gflops=peak,
            peak_share=gflops / peak,
            memory_mib=self.memory[side] / 2**20,
            first_step_seconds=turns.first_step_seconds,
            ready_seconds=turns.ready_seconds,
            ours_ratio=ratio,
        )
        return Measurement(work, side, figures, len(turns.seconds), turns.steps, turns.device)
