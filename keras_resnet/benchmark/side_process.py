"""One side of a benchmark, run as a module by `processes.SideProcess`: reads a job, then does a step when told to.

The first line of its input is the job, each further one a request, each line of its output an answer; all are JSON:
"first" does the first step, "round" further ones, "report" tells the largest memory. What libraries print goes to the log.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from keras_resnet.benchmark.sides import Side, Unavailable


def make_side(job: dict[str, Any]) -> Side:
    """Builds the side that a job describes."""
    name = job["side"]
    if name == "matrix product":
        from keras_resnet.benchmark.keras_sides import make_matrix_product

        return make_matrix_product(job)
    if name in ("torch", "torch-compile"):
        from keras_resnet.benchmark import torch_sides

        return torch_sides.make(job)
    from keras_resnet.benchmark import keras_sides

    return keras_sides.make(job)


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


def answer_requests(job: dict[str, Any], receive: Callable[[], dict[str, Any]], send: Callable[..., None]) -> None:
    """Does the job, until there are no more requests; `send` takes the fields of an answer."""
    start = time.perf_counter()
    if job["side"] == "export":
        from keras_resnet.benchmark.keras_sides import export

        send(folder=export(job))
        return
    side = make_side(job)
    send(ready_seconds=time.perf_counter() - start, device=side.device)
    while True:
        request = receive()
        start = time.perf_counter()
        if request["do"] == "report":
            send(peak_bytes=measure_peak_bytes())
            continue
        if request["do"] == "first":
            side.first()
        else:
            side.run(request["steps"])
        send(seconds=time.perf_counter() - start)


def main() -> None:
    """Reads requests in a thread of its own, so that the end of the input ends this process in the midst of a step."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what anything prints goes to the log
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            requests.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()

    def send(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        answer_requests(requests.get(), requests.get, send)
    except Unavailable as error:
        send(unavailable=str(error))


if __name__ == "__main__":
    main()
