"""What a search costs: checking candidates against budgets, one worker against two, memory of its processes.

    python examples/benchmark_search.py [--case candidates|workers|memory|all] [--rounds 2]

* candidates: 100,000 different specs, made beforehand, each counted against a parameter and a multiply-add budget.
* workers: the same 12 trials on digits by one worker of one thread and by two, in turns.
* memory: resident memory of supervisor and chief after 2 trials and after 20, and the largest of any worker beside its
  limit, in a search of 20 trials whose workers are replaced once they are above 1.3 GB, 100 MB more than they need to start.

Measured on 2 cores of an AMD EPYC with AVX-512: 3.3 s for 100,000 candidates; one round, 129 s by one worker and 86 s by
two (0.67); chief 661 MiB after 2 trials and after 20, supervisor 28 MiB, workers at most 1,068 MB.
"""

import argparse
import contextlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from keras_resnet import ResNetSpec, count_totals, load_search

import psutil
from smoke_data import make_smoke_data

INPUT_SHAPE, CLASSES = (32, 32, 3), 10
MAX_PARAMS, MAX_MACS = 300_000, 40_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=("candidates", "workers", "memory", "all"), default="all")
    parser.add_argument("--rounds", type=int, default=2, help="of workers")
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--smoke", action="store_true", help="few candidates, no search but a tiny one")
    args = parser.parse_args()
    data, count = "digits", args.candidates
    if args.smoke:
        data, count, args.case = str(make_smoke_data(8, 8, 1)), 500, "candidates"
    if args.case in ("candidates", "all"):
        check_candidates(count)
    if args.case in ("workers", "all"):
        compare_workers(data, args.rounds)
    if args.case in ("memory", "all"):
        watch_memory(data)


def check_candidates(count: int) -> None:
    specs = draw_specs(count)
    start = time.perf_counter()
    inside = 0
    for spec in specs:
        totals = count_totals(spec, INPUT_SHAPE, CLASSES)
        inside += totals.parameters <= MAX_PARAMS and totals.multiply_adds <= MAX_MACS
    seconds = time.perf_counter() - start
    print(f"{count:,} different specs checked against both budgets in {seconds:.2f} s; {inside:,} inside")


def draw_specs(count: int) -> list[ResNetSpec]:
    """Different networks of two to four stages, as a search proposes them."""
    generator, found = random.Random(0), {}
    while len(found) < count:
        stages, width = generator.randint(2, 4), generator.choice((8, 16, 24, 32, 48, 64))
        block, groups, width_per_group = generator.choice(
            (("basic", 1, 64), ("bottleneck", 1, 64), ("bottleneck", generator.choice((2, 4, 8, 16)), 16))
        )
        spec = ResNetSpec(
            "candidate",
            block=block,
            depths=tuple(generator.randint(1, 6) for _ in range(stages)),
            filters=tuple(width * generator.choice((1, 2)) * 2**stage for stage in range(stages)),
            strides=(1, *(2,) * (stages - 1)),
            stem=generator.choice(("cifar", "imagenet")),
            stem_filters=width,
            groups=groups,
            width_per_group=width_per_group,
        )
        found[spec] = None
    return list(found)


def compare_workers(data: str, rounds: int) -> None:
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for workers in seconds:
            folder = tempfile.mkdtemp()
            start = time.monotonic()
            child = start_search(data, folder, workers=workers, threads=1, trials=12, epochs=10)
            assert child.wait() == 0
            seconds[workers].append(time.monotonic() - start)
            print(f"12 trials, {workers} worker(s) of one thread: {seconds[workers][-1]:.0f} s", flush=True)
    one, two = (statistics.median(seconds[workers]) for workers in (1, 2))
    print(f"medians {one:.0f} s and {two:.0f} s: two workers take {two / one:.2f} of the time of one")


def watch_memory(data: str) -> None:
    folder = tempfile.mkdtemp()
    limit = 1_300_000_000
    child = start_search(data, folder, workers=2, threads=1, trials=20, epochs=5, worker_memory=limit)
    supervisor, sizes = psutil.Process(child.pid), {}
    while child.poll() is None:
        time.sleep(0.2)
        table = Path(folder) / "leaderboard.csv"
        finished = table.read_text().count(",completed,") if table.exists() else 0
        for name, process in (("supervisor", supervisor), ("chief", find_chief(supervisor))):
            if process is not None:
                with contextlib.suppress(psutil.Error):  # ended in between
                    # The first at each count: at the end the supervisor draws a picture, for which it loads a library.
                    sizes[name, finished] = sizes.get((name, finished)) or process.memory_info().rss / 2**20
    for name in ("supervisor", "chief"):
        counts = [finished for other, finished in sizes if other == name and finished >= 2 and sizes[other, finished]]
        early, late = sizes[name, min(counts)], sizes[name, max(counts)]
        print(
            f"{name}: {early:.0f} MiB after {min(counts)} trials, {late:.0f} MiB after {max(counts)} "
            f"({100 * (late / early - 1):+.1f} %)"
        )
    for process in load_search(folder).record.processes:
        if process.name.startswith("worker"):
            print(
                f"{process.name}: started {process.starts} times, at most {process.peak_bytes / 1e6:.0f} MB of "
                f"{limit / 1e6:.0f}"
            )


def start_search(data: str, folder: str, **options: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "keras_resnet.cli", "search", data, "--tuner", "random", "--max-params", "100k"]
    command += ["--search-dir", folder]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def find_chief(supervisor: psutil.Process) -> psutil.Process | None:
    try:
        return next((child for child in supervisor.children() if "chief" in child.cmdline()), None)
    except psutil.Error:
        return None


if __name__ == "__main__":
    main()
