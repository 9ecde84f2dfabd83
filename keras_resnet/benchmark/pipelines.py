"""Images per second of a pipeline alone, beside the usual one, and the memory it takes."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tensorflow as tf

from keras_resnet.data import compute_preprocessing, load_data, make_train_dataset
from keras_resnet.data.splits import Split
from keras_resnet.data.stores import FileStore
from keras_resnet.errors import InputError
from keras_resnet.recipes import Augmentation, default_recipe
from keras_resnet.records import Record

WARM_UP_BATCHES = 8  # or half a second: until buffers are full and tf.data has found its number of threads
WARM_UP_SECONDS = 0.5


@dataclass(frozen=True)
class PipelineSpeed(Record):
    """How fast a pipeline was, over rounds in which it took turns with others."""

    pipeline: str
    images_per_second: float  # the median
    least: float
    greatest: float
    rounds: int
    ratio: float  # this one's speed / that of the last in turn: the median over rounds


@dataclass(frozen=True)
class MemoryUse(Record):
    """Resident memory, in MiB, of a process that went through whole epochs."""

    imported: float  # before anything was loaded
    arrays: float  # that the images take
    peaks: tuple[float, ...]  # after each batch, the greatest of each epoch
    above: float  # the greatest of the peaks less `imported` and `arrays`


def measure_speed(dataset: Iterable[Any], *, seconds: float = 3.0) -> float:
    """Images per second of an endless dataset of (images, ...) in steady state."""
    iterator = iter(dataset)
    start, batches = time.perf_counter(), 0
    while batches < WARM_UP_BATCHES or time.perf_counter() - start < WARM_UP_SECONDS:
        next(iterator)
        batches += 1
    images, start = 0, time.perf_counter()
    while not images or time.perf_counter() - start < seconds:
        images += int(next(iterator)[0].shape[0])
    return images / (time.perf_counter() - start)


def alternate(
    pipelines: Mapping[str, Callable[[], Iterable[Any]]], *, rounds: int = 5, seconds: float = 3.0
) -> list[PipelineSpeed]:
    """Measures each pipeline once a round, in turn, and returns the speed of each.

    Args:
        pipelines: name to a function that makes an endless dataset; the last is what the others are compared with.
        rounds: how often.
        seconds: of each measurement, beyond the warm-up.
    """
    if rounds < 1 or not pipelines:
        raise InputError(
            f"There must be a pipeline and a round. Received: {len(pipelines)} pipelines, {rounds} rounds."
        )
    datasets = {name: make() for name, make in pipelines.items()}
    speeds: dict[str, list[float]] = {name: [] for name in datasets}
    for _ in range(rounds):
        for name, dataset in datasets.items():
            speeds[name].append(measure_speed(dataset, seconds=seconds))
    last = list(speeds.values())[-1]
    return [
        PipelineSpeed(
            pipeline=name,
            images_per_second=statistics.median(found),
            least=min(found),
            greatest=max(found),
            rounds=rounds,
            ratio=statistics.median(ours / theirs for ours, theirs in zip(found, last, strict=True)),
        )
        for name, found in speeds.items()
    ]


def measure_pipelines(
    data: str | os.PathLike[str],
    *,
    image_size_pixels: tuple[int, int] | None = None,
    augmentation: Augmentation | None = None,
    batch_size: int = 128,
    rounds: int = 5,
    seconds: float = 3.0,
    data_dir: str | os.PathLike[str] | None = None,
) -> list[PipelineSpeed]:
    """Measures `make_train_dataset` on a data set beside the usual pipeline, alternating.

    The usual one: `tfds -> map(resize_with_pad, AUTOTUNE) -> batch -> prefetch(AUTOTUNE)`; of an image folder, bare
    parallel decoding of its files, and ours twice, with float32 batches and with the uint8 ones for a device; of another
    array, the same map over its images.

    Args:
        data: as for `load_data`.
        image_size_pixels: (height, width) of the network's input; by default the images' own.
        augmentation: of ours, by default that of a training on this data; the usual pipeline has none.
        batch_size: images per batch.
        rounds: how often each is measured.
        seconds: of each measurement.
        data_dir: where TFDS sets are.

    Returns:
        The speeds that `alternate` returns, ours first.
    """
    images = load_data(data, data_dir=data_dir)
    changes = augmentation or default_recipe(images.name, len(images.train)).augmentation
    preprocessing = compute_preprocessing(images, images.train, image_size_pixels)
    height, width = preprocessing.image_size_pixels

    def ours(prepare_on: str = "host") -> tf.data.Dataset:
        return make_train_dataset(
            images.train,
            preprocessing,
            batch_size=batch_size,
            augmentation=changes,
            classes=len(images.class_names),
            prepare_on=prepare_on,
        ).repeat()

    def usual() -> tf.data.Dataset:
        dataset = _plain_dataset(str(data), images.origin, images.train, data_dir).repeat()
        dataset = dataset.map(lambda x, y: (tf.image.resize_with_pad(x, height, width), y), tf.data.AUTOTUNE)
        return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)

    if isinstance(images.train.store, FileStore):
        return alternate(
            {
                "keras_resnet": ours,
                "keras_resnet, prepare_on='device'": lambda: ours("device"),
                "bare parallel decoding": lambda: decode_files(images.train, batch_size),
            },
            rounds=rounds,
            seconds=seconds,
        )
    return alternate({"keras_resnet": ours, "map(resize_with_pad)": usual}, rounds=rounds, seconds=seconds)


def decode_files(split: Split, batch_size: int) -> tf.data.Dataset:
    """`read_file -> decode_jpeg` of each file in parallel and nothing else: batches of their shapes."""

    def decode(path: Any) -> tuple[tf.Tensor]:
        return (tf.shape(tf.io.decode_jpeg(tf.io.read_file(path), channels=3)),)

    paths = tf.data.Dataset.from_tensor_slices([os.fsencode(path) for path in split.images]).repeat()
    return paths.map(decode, tf.data.AUTOTUNE).batch(batch_size).prefetch(tf.data.AUTOTUNE)


def _plain_dataset(name: str, origin: str, split: Split, data_dir: str | os.PathLike[str] | None) -> tf.data.Dataset:
    if origin.startswith("tfds "):
        import tensorflow_datasets as tfds

        found = os.fspath(data_dir) if data_dir is not None else os.environ.get("TFDS_DATA_DIR")
        config = tfds.ReadConfig(try_autocache=False)
        return tfds.load(name, split="train", as_supervised=True, data_dir=found, read_config=config)
    return tf.data.Dataset.from_tensor_slices((split.images, split.labels))


def measure_memory(
    data: str | os.PathLike[str],
    *,
    image_size_pixels: tuple[int, int] | None = None,
    batch_size: int = 128,
    epochs: int = 3,
    data_dir: str | os.PathLike[str] | None = None,
) -> MemoryUse:
    """Resident memory of this process while it goes through whole epochs; call it in a fresh process."""
    process = psutil.Process()
    mib = 2**20
    tf.constant(0)  # TensorFlow's own start-up
    imported = process.memory_info().rss / mib
    images = load_data(data, data_dir=data_dir)
    arrays = sum(part.images.nbytes for part in (images.train, images.test) if not part.encoded) / mib
    dataset = make_train_dataset(
        images.train, compute_preprocessing(images, images.train, image_size_pixels), batch_size=batch_size
    )
    peaks = []
    for _ in range(epochs):
        peak = 0.0
        for batch in dataset:
            peak = max(peak, process.memory_info().rss / mib)
            del batch
        gc.collect()
        peaks.append(peak)
    return MemoryUse(imported, arrays, tuple(peaks), max(peaks) - imported - arrays)


def write_jpegs(folder: str | os.PathLike[str], number: int, *, height: int = 375, width: int = 500) -> Path:
    """Writes `number` JPEGs of soft shapes and noise, by default of ImageNet's usual size, as an image folder of two classes.

    About 110 kB each at the default size, as ImageNet's are on average.
    """
    root = Path(folder)
    for label in ("a", "b"):
        (root / label).mkdir(parents=True, exist_ok=True)

    def write(index: int) -> None:
        rng = np.random.default_rng([0, index])
        coarse = rng.integers(0, 256, (1, -(-height // 12), -(-width // 12), 3)).astype(np.float32)
        pixels = tf.image.resize(coarse, (height, width), "bicubic")[0].numpy()
        pixels = pixels + 8 * rng.standard_normal((height, width, 1), np.float32)
        encoded = tf.io.encode_jpeg(np.clip(pixels, 0, 255).astype(np.uint8), quality=92)
        tf.io.write_file(str(root / "ab"[index % 2] / f"{index:06d}.jpg"), encoded)

    with ThreadPoolExecutor() as threads:
        for _ in threads.map(write, range(number)):  # raises what a thread raised
            pass
    return root
