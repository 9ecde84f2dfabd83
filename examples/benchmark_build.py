"""How long building takes, beside the same network of keras.applications, in alternating rounds.

    python examples/benchmark_build.py [--rounds 12]

Measured on 2 cores of an AMD EPYC, medians of 12 rounds: resnet152 1.90 s, resnet152_keras 2.00 s,
keras.applications.ResNet152 1.94 s; rounds of one network spread by 0.4 s and more, so that this is a tie.
"""

import argparse
import gc
import statistics
import time

import keras_resnet

import keras
from rich.console import Console
from rich.table import Table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--smoke", action="store_true", help="one round of a small network alone")
    args = parser.parse_args()
    builders = {
        "resnet152": keras_resnet.resnet152,
        "resnet152_keras": keras_resnet.resnet152_keras,
        "keras.applications.ResNet152": lambda: keras.applications.ResNet152(weights=None),
    }
    if args.smoke:
        args.rounds, builders = 1, {"resnet20_cifar": keras_resnet.resnet20_cifar}
    seconds: dict[str, list[float]] = {name: [] for name in builders}
    for round_number in range(args.rounds + 1):  # the first one warms up
        # Each goes first in turn, and nobody pays for what was built before.
        order = list(builders.items())
        for name, build in order[round_number % len(order) :] + order[: round_number % len(order)]:
            keras.utils.clear_session()
            gc.collect()
            start = time.perf_counter()
            build()
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    table = Table("network", "median seconds", "least", "most")
    for name, times in seconds.items():
        table.add_row(name, *(f"{value:.2f}" for value in (statistics.median(times), min(times), max(times))))
    Console().print(table)


if __name__ == "__main__":
    main()
