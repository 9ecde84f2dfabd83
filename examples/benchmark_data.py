"""Images per second of the pipelines alone, beside the usual one, memory over epochs, and whether batches replay.

    python examples/benchmark_data.py [--rounds 5] [--seconds 3] [--case mnist_224 ...]

Each round measures ours and the usual one (`tfds -> map(resize_with_pad) -> batch -> prefetch`; for the folder of JPEGs,
which is written first, bare parallel decoding) in steady state. Memory is that of a process of its own. Needs MNIST and
CIFAR-10 prepared by TFDS (set TFDS_DATA_DIR).

Measured on 2 cores of an AMD EPYC with AVX-512: see docs/measured.md. About 8 minutes, one of which writes the JPEGs.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from keras_resnet import Augmentation, compute_preprocessing, load_data, make_train_dataset

from smoke_data import make_smoke_data

SHIFT = Augmentation(shift_fraction=0.125)
CROP_AND_FLIP = Augmentation(shift_fraction=0.125, horizontal_flip=True)
RESIZED_CROP = Augmentation(resized_crop=(0.08, 1.0), horizontal_flip=True)
CASES = {  # name: data set, side in pixels, augmentation
    "mnist_224": ("mnist", 224, Augmentation()),
    "mnist_32_shift": ("mnist", 32, SHIFT),
    "cifar10_32_crop_flip": ("cifar10", 32, CROP_AND_FLIP),
    "cifar10_224": ("cifar10", 224, Augmentation()),
    "jpegs_224_resized_crop": (None, 224, RESIZED_CROP),
}
MEMORY = """
import json, sys
from keras_resnet.benchmark.pipelines import measure_memory
data, side, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print(json.dumps(measure_memory(data, image_size_pixels=(side, side), epochs=epochs).to_dict()))
"""


def hash_batches(data, side, augmentation, *, threads, batch_size, first_epoch=0, first_step=0):
    """A hash of each batch of an epoch."""
    import tensorflow as tf

    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    dataset = make_train_dataset(
        data.train,
        compute_preprocessing(data, data.train, (side, side)),
        batch_size=batch_size,
        augmentation=augmentation,
        first_epoch=first_epoch,
        first_step=first_step,
    ).with_options(options)
    return [hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest() for x, y in dataset]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--case", action="append", choices=list(CASES), help="by default all")
    parser.add_argument("--jpegs", type=int, default=10_000, help="files in the folder")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="a moment of each on data made here")
    args = parser.parse_args()
    from keras_resnet.benchmark.pipelines import MemoryUse, measure_pipelines, write_jpegs

    epochs = 3
    if args.smoke:
        args.rounds, args.seconds, args.jpegs, epochs = 1, 0.1, 16, 1
        args.case = args.case or ["mnist_32_shift", "jpegs_224_resized_crop"]
    with tempfile.TemporaryDirectory() as folder:
        for case in args.case or CASES:
            data, side, augmentation = CASES[case]
            if data is None:
                data = str(write_jpegs(Path(folder) / "jpegs", args.jpegs))
            elif args.smoke:
                data, side = str(make_smoke_data(8, 8, 1 if data == "mnist" else 3)), 16
            speeds = measure_pipelines(
                data,
                image_size_pixels=(side, side),
                augmentation=augmentation,
                rounds=args.rounds,
                seconds=args.seconds,
            )
            for speed in speeds:
                print(
                    f"{case}: {speed.pipeline} {speed.images_per_second:,.0f} images/s "
                    f"({speed.least:,.0f} to {speed.greatest:,.0f}), {speed.ratio:.2f} times the last",
                    flush=True,
                )
            if case in ("mnist_224", "mnist_32_shift", "cifar10_32_crop_flip") and not args.no_memory:
                done = subprocess.run(
                    [sys.executable, "-c", MEMORY, data, str(side), str(epochs)],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                use = MemoryUse.from_dict(json.loads(done.stdout))
                peaks = ", ".join(f"{peak:,.0f}" for peak in use.peaks)
                print(
                    f"{case}: memory after import {use.imported:,.0f} MiB, arrays {use.arrays:,.0f} MiB, peak of "
                    f"each epoch {peaks} MiB: {use.above:,.0f} MiB above both",
                    flush=True,
                )
            if side <= 32:
                loaded = load_data(data)
                common = {"batch_size": 16 if args.smoke else 128, "first_epoch": 1}
                runs = [hash_batches(loaded, side, augmentation, threads=threads, **common) for threads in (1, 2, 2)]
                late = hash_batches(loaded, side, augmentation, threads=2, first_step=len(runs[0]) // 2, **common)
                same = runs[0] == runs[1] == runs[2] and late == runs[0][len(runs[0]) // 2 :]
                print(f"{case}: {len(runs[0])} batches {'identical' if same else 'DIFFERENT'} in four runs", flush=True)
                if not same:
                    sys.exit(1)


if __name__ == "__main__":
    main()
