"""Our folded SavedModel beside Keras' own `model.export` of the same network, in alternating calls of one process.

    python examples/benchmark_export.py [--models resnet18 resnet50 ...] [--batch-sizes 1 32] [--rounds 15]

Both are loaded as TensorFlow Serving loads them, into a session, and are given float32 images of the network's size; ours
also checks the pixels, resizes (nothing to do) and sorts the classes. Each network runs in a process with oneDNN and in
one without. Stock grouped convolutions need XLA, which a process has here, and TensorFlow Serving has not.

Measured: see docs/measured.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

NETWORKS = ("resnet18", "resnet50", "resnext50_32x4d", "resnet20_cifar")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=NETWORKS)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=(1, 32))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folders", nargs="+", help="measure these SavedModels here and print JSON")
    parser.add_argument("--smoke", action="store_true", help="one round of a small network")
    args = parser.parse_args()
    if args.smoke:
        args.models, args.batch_sizes, args.rounds = ["resnet8_cifar"], [2], 1
    if args.folders:
        print(json.dumps(measure(args.folders, args.batch_sizes, args.rounds)))
        return
    table = Table("network", "oneDNN", "batch", "ours ms", "stock ms", "spread ms", "stock / ours")
    for name in args.models:
        with tempfile.TemporaryDirectory() as scratch:
            folders = export(name, scratch)
            for onednn in ("1", "0"):
                command = [sys.executable, __file__, "--rounds", args.rounds, "--folders", *folders, "--batch-sizes"]
                done = subprocess.run(
                    [str(part) for part in (*command, *args.batch_sizes)],
                    env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": onednn, "CUDA_VISIBLE_DEVICES": ""},
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                )
                for batch, (ours, stock) in json.loads(done.stdout.splitlines()[-1]).items():
                    medians = [statistics.median(times) for times in (ours, stock)]
                    spread = f"{min(ours):.1f}-{max(ours):.1f}, {min(stock):.1f}-{max(stock):.1f}"
                    row = (name, "on" if onednn == "1" else "off", batch, *(f"{value:.2f}" for value in medians))
                    print(*row, spread, f"{medians[1] / medians[0]:.3f}", flush=True)
                    table.add_row(*row, spread, f"{medians[1] / medians[0]:.2f}")
    Console().print(table)


def export(name: str, scratch: str) -> list[str]:
    """Our SavedModel of a network and Keras' own, whose grouped convolutions are stock layers as well."""
    import keras_resnet
    from keras_resnet.benchmark.keras_sides import draw_statistics, to_stock

    model = keras_resnet.build(name, classifier_activation="softmax")
    draw_statistics(model)
    ours = keras_resnet.export_saved_model(model, Path(scratch) / "ours")

    stock = to_stock(model)
    stock.export(f"{scratch}/stock", verbose=False)
    return [str(ours), f"{scratch}/stock"]


def measure(folders: list[str], batch_sizes: list[int], rounds: int) -> dict[int, list[list[float]]]:
    """Milliseconds of each call, by batch size, a list for each SavedModel; the models take turns."""
    import tensorflow as tf

    calls, shape = [], None
    for folder in folders:
        session = tf.compat.v1.Session(graph=tf.Graph())
        with session.graph.as_default():
            signatures = tf.compat.v1.saved_model.load(session, ["serve"], folder).signature_def
        signature = signatures.get("serve_float", signatures["serving_default"])
        (images,) = signature.inputs.values()
        if "serve_float" not in signatures:
            shape = [dim.size for dim in images.tensor_shape.dim][1:]
        calls.append(session.make_callable([tensor.name for tensor in signature.outputs.values()], [images.name]))
    times: dict[int, list[list[float]]] = {}
    for batch_size in batch_sizes:
        batch = np.random.default_rng(0).uniform(0, 255, (batch_size, *shape)).astype(np.float32)
        times[batch_size] = [[] for _ in calls]
        for round_number in range(rounds + 2):  # two warm up
            order = list(enumerate(calls))
            for index, call in order if round_number % 2 else reversed(order):
                start = time.perf_counter()
                call(batch)
                if round_number > 1:
                    times[batch_size][index].append(1000 * (time.perf_counter() - start))
    return times


if __name__ == "__main__":
    main()
