"""One side of a benchmark, run as a module by `processes.SideProcess`: reads a job, then does a step when told to.

Its input and its output are the lines of `messages`. What libraries print goes to the log.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Callable

from keras_resnet.benchmark import messages
from keras_resnet.benchmark.messages import (
    Duration,
    Exported,
    ExportJob,
    FirstStep,
    MeasureJob,
    MemoryRequest,
    Message,
    PeakMemory,
    Ready,
    Refusal,
    Steps,
)
from keras_resnet.benchmark.sides import Side, Unavailable
from keras_resnet.benchmark.workload import MATRIX_PRODUCT, TORCH, TORCH_COMPILE


def make_side(job: MeasureJob) -> Side:
    """Builds the side that a job describes."""
    if job.side in (TORCH, TORCH_COMPILE):
        from keras_resnet.benchmark import torch_sides

        return torch_sides.make(job)
    from keras_resnet.benchmark import keras_sides

    return keras_sides.make_matrix_product(job.workload) if job.side == MATRIX_PRODUCT else keras_sides.make(job)


def measure_peak_bytes() -> int:
    """The largest resident memory of this process so far."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as file:
        # Unlike getrusage's, it does not begin with what the parent had when it started this process.
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import psutil

    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return memory.peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts in bytes


def do_job(receive: Callable[[], Message], send: Callable[[Message], object]) -> None:
    """Receives a job and does it; measuring goes on until there are no more requests."""
    job = receive()
    start = time.perf_counter()
    if isinstance(job, ExportJob):
        from keras_resnet.benchmark.keras_sides import export

        send(Exported(export(job)))
        return
    assert isinstance(job, MeasureJob)
    side = make_side(job)
    send(Ready(time.perf_counter() - start, side.device))
    while True:
        request = receive()
        if isinstance(request, MemoryRequest):
            send(PeakMemory(measure_peak_bytes()))
            continue
        start = time.perf_counter()
        if isinstance(request, FirstStep):
            side.first()
        else:
            assert isinstance(request, Steps)
            side.run(request.count)
        send(Duration(time.perf_counter() - start))


def main() -> None:
    """Reads requests in a thread of its own, so that the end of the input ends this process in the midst of a step."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what anything prints goes to the log
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()

    def send(answer: Message) -> None:
        answers.write(messages.dump(answer))
        answers.flush()

    try:
        do_job(lambda: messages.load(lines.get()), send)
    except Unavailable as error:
        send(Refusal(str(error)))


if __name__ == "__main__":
    main()
