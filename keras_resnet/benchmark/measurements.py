"""What a benchmark returns."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from keras_resnet.benchmark.workload import Workload
from keras_resnet.records import Record


@dataclass(frozen=True)
class Figures(Record):
    """How fast a side was."""

    milliseconds: float  # of a step: the median over rounds
    milliseconds_min: float
    milliseconds_max: float
    images_per_second: float
    gflops: float  # 10^9 operations a second, two for each multiply-add; see `workload.PASSES`
    peak_gflops: float  # of a matrix product, in its fastest turn beside these
    peak_share: float
    memory_mib: float  # the most that the side's process held, libraries included
    first_step_seconds: float  # tracing and compiling included
    ready_seconds: float  # before it: imports, building or loading the network
    ours_ratio: float | None  # time of "ours" / time of this side: the median over rounds; None where ours has none


@dataclass(frozen=True)
class Measurement(Record):
    """What was measured of one side at one workload."""

    workload: Workload
    side: str
    figures: Figures | None = None  # None where it could not be measured
    rounds: int = 0
    steps: int = 0  # in each round
    device: str = ""  # "cpu" or "gpu"
    note: str = ""  # why there are no figures
    failed: bool = False  # unlike what was left out, an error

    def to_columns(self) -> dict[str, object]:
        """Everything in one level, as the CSV file has it; figures that are not there are None."""
        work = self.workload
        absent = dict.fromkeys(field.name for field in dataclasses.fields(Figures))
        return {
            "network": work.network,
            "task": work.task,
            "batch_size": work.batch_size,
            "input": work.input_text,
            "side": self.side,
            "dtype": work.dtype,
            "threads": work.threads,
            **(absent if self.figures is None else self.figures.to_dict()),
            "rounds": self.rounds,
            "steps": self.steps,
            "device": self.device,
            "note": self.note,
            "failed": self.failed,
        }
