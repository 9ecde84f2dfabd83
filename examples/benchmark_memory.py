"""Peak memory of `keras-resnet train` at 224 pixels against the same number of steps on one repeated batch.

    python examples/benchmark_memory.py [--case subset|whole] [--rounds 3]

`subset` is the job of tutorial_mnist.py (256 training and 128 test images, 3 epochs); `whole` is all of MNIST at 224
pixels, stopped after 20 steps. Each round runs the job and the baseline in processes of their own, in turn; the job
decodes, resizes, trains, validates, saves and evaluates, the baseline only trains. Needs MNIST prepared by TFDS (set
TFDS_DATA_DIR).

Measured on 2 cores of an AMD EPYC, one round each, 4 and 6 minutes: subset 2,027 MiB against 1,999, whole 2,130 MiB
against 2,024.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from smoke_data import make_smoke_data

CASES = {
    "subset": ["--train-size", "256", "--test-size", "128", "--epochs", "3"],
    # A validation split of the usual size would be 6,000 images: minutes, and no more memory than 120.
    "whole": ["--epochs", "1", "--steps", "20", "--test-size", "128", "--validation-split", "0.002"],
}

BASELINE = """
import sys
import numpy as np
import keras_resnet
from keras_resnet import training
model_name, size, channels, batch_size, steps = sys.argv[1], *map(int, sys.argv[2:])
model = keras_resnet.build(model_name, (size, size, channels), 10, classifier_activation=None)
training.compile_model(model, keras_resnet.Recipe(), steps=steps)
x, y = np.zeros((batch_size, size, size, channels), "float32"), np.zeros(batch_size, "int64")
import tensorflow as tf
model.fit(tf.data.Dataset.from_tensors((x, y)).repeat(steps), epochs=1, shuffle=False, verbose=0)
"""


def measure_peak_mib(command: list[str]) -> float:
    """Runs a command and returns the largest resident memory of its process, in MiB."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command[:4])} ... failed: {errors}")
    return usage.ru_maxrss / 1024  # Linux counts in KiB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=list(CASES), default="subset")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="one round of a few steps on data made here")
    args = parser.parse_args()
    model, size, data, options = "resnet18", 224, "mnist", CASES[args.case]
    if args.smoke:
        args.rounds, model, size, data = 1, "resnet8_cifar", 16, str(make_smoke_data(8, 8, 1))
        options = ["--epochs", "1"]
    differences = []
    for number in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            job = [sys.executable, "-m", "keras_resnet.cli", "train", data, "--model", model, "--run-dir", str(run)]
            ours = measure_peak_mib([*job, "--image-size", str(size), "--batch-size", "32", *options])
            steps = json.loads((run / "run.json").read_text("utf-8"))["steps"]
        baseline = measure_peak_mib([sys.executable, "-c", BASELINE, model, str(size), "1", "32", str(steps)])
        differences.append(ours - baseline)
        print(f"round {number + 1}: job {ours:.0f} MiB, {steps} steps on one batch {baseline:.0f} MiB", flush=True)
    print(f"median difference {statistics.median(differences):.0f} MiB (of {args.rounds})")


if __name__ == "__main__":
    main()
