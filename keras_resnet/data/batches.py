"""Which images come in which batch: of an epoch of training, by its number, and of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet import seeds
from keras_resnet.data.balance import draw_balanced
from keras_resnet.data.splits import Split
from keras_resnet.data.stores import StreamStore
from keras_resnet.data.streams import read_in_order, read_shuffled
from keras_resnet.errors import InputError
from keras_resnet.records import check_choice, is_count

SAMPLINGS = ("uniform", "balanced")

# (epoch, first step) to a dataset of (stored images, int64 labels, int64 (2,) seed) of each batch from that step on.
Epochs = Callable[[Any, Any], tf.data.Dataset]


def count_batches(images: int, batch_size: int) -> int:
    """Returns the number of batches in an epoch of `images` images: `ceil(images / batch_size)`."""
    if images < 1 or batch_size < 1:
        raise InputError(
            f"There must be at least 1 image and 1 image per batch. Received: {images} images, batch_size={batch_size}."
        )
    return -(-images // batch_size)


@dataclass(frozen=True)
class Dealing:
    """How the images of an epoch are dealt out to workers and batches; see `make_train_dataset`."""

    number: int  # images of an epoch, of all workers
    batch_size: int  # most images per batch of one worker
    seed: int
    sampling: str  # "uniform" or "balanced"
    shard: tuple[int, int]  # (index, count) of the worker and of all
    streamed: bool  # whether a worker takes one stretch of the images, rather than every `count`-th of their order

    def __post_init__(self) -> None:
        check_choice("sampling", self.sampling, SAMPLINGS)
        shard = self.shard
        if len(shard) != 2 or not is_count(shard[1]) or not is_count(shard[0], 0) or shard[0] >= shard[1]:
            raise InputError(
                f"shard must be (index, count), with index from 0 to count - 1. Received: {tuple(shard)!r}."
            )
        if self.number // shard[1] < self.steps:
            raise InputError(
                f"Every worker must have an image for each of the {self.steps} batches of an epoch. Received: "
                f"{self.number} images for {shard[1]} workers at batch_size={self.batch_size}."
            )

    @property
    def steps(self) -> int:
        """Returns the number of batches of an epoch, the same for each worker."""
        return count_batches(-(-self.number // self.shard[1]), self.batch_size)

    @property
    def share(self) -> slice:
        """Returns which places of an epoch's order, or of a stream, are this worker's."""
        (index, count), number = self.shard, self.number
        return (
            slice(number * index // count, number * (index + 1) // count)
            if self.streamed
            else slice(index, None, count)
        )

    @property
    def own(self) -> int:
        """Returns the number of images of an epoch that are this worker's."""
        return len(range(self.number)[self.share])

    @property
    def bounds(self) -> np.ndarray:
        """Returns where each batch begins among this worker's images, and the end: int64 (steps + 1,)"""
        return np.arange(self.steps + 1) * self.own // self.steps

    @property
    def largest(self) -> int:
        """Returns the number of images of this worker's largest batch."""
        return -(-self.own // self.steps)

    def check_start(self, first_epoch: int, first_step: int) -> None:
        """Raises InputError unless there is such an epoch and such a step in it."""
        if not is_count(first_step, 0) or first_step >= self.steps or not is_count(first_epoch, 0):
            raise InputError(
                f"first_epoch must be at least 0 and first_step from 0 to {self.steps - 1}, the batches of an epoch. "
                f"Received: first_epoch={first_epoch!r}, first_step={first_step!r}."
            )

    def batch_seed(self, epoch: Any, step: Any) -> tf.Tensor:
        """Returns the stateless seed of a batch: another for every seed, epoch, step and worker."""
        index, count = self.shard
        stream = tf.constant(self.seed + seeds.AUGMENTATION, tf.int64)
        return tf.stack([stream, (epoch * self.steps + step) * count + index])


def make_epochs(split: Split, dealing: Dealing) -> Epochs:
    """Makes a function that gives the batches of any epoch, by its number, from any step on."""
    if isinstance(split.store, StreamStore):
        return _stream_epochs(split.store, dealing)
    return _gather_epochs(split, dealing)


def batch_in_order(split: Split, batch_size: int) -> tf.data.Dataset:
    """Batches (stored images, int64 labels) of every image once, in order."""
    if isinstance(split.store, StreamStore):
        parse = split.store.stream.parse
        records = read_in_order(split.store.stream, split.store.images)
        return records.map(lambda _, record: parse(record), tf.data.AUTOTUNE).batch(batch_size)
    return tf.data.Dataset.range(len(split)).batch(batch_size).map(make_fetch(split), tf.data.AUTOTUNE)


def make_fetch(split: Split) -> Callable[[Any], tuple[tf.Tensor, tf.Tensor]]:
    """Makes a function from a batch of indices to (stored images, labels), of a split that gives any image at any time."""
    store, labels = split.store, split.labels

    def take(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return store.gather(indices), labels[indices]

    def fetch(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # In NumPy: a tensor of the whole array would hold it in memory two more times (measured on MNIST).
        images, found = tf.numpy_function(take, [indices], [store.element.dtype, tf.int64], stateful=False)
        shape = [*indices.shape, *store.element.shape]
        return tf.ensure_shape(images, shape), tf.ensure_shape(found, indices.shape)

    return fetch


def _gather_epochs(split: Split, dealing: Dealing) -> Epochs:
    """Makes epochs of images that can be read in any order: none before the first step is touched."""
    steps, own, bounds, labels = dealing.steps, dealing.own, dealing.bounds, split.labels
    fetch = make_fetch(split)

    def draw_order(epoch: tf.Tensor) -> tf.Tensor:
        if dealing.sampling == "uniform":
            numbers = tf.range(len(split), dtype=tf.int64)
            return tf.random.experimental.stateless_shuffle(numbers, seed=[dealing.seed, epoch])

        def draw(now: np.ndarray) -> np.ndarray:
            return draw_balanced(labels, dealing.seed, int(now))

        return tf.ensure_shape(tf.numpy_function(draw, [epoch], tf.int64, stateful=False), (len(split),))

    def read(epoch: Any, first_step: Any) -> tf.data.Dataset:
        order, ends = draw_order(epoch)[dealing.share], tf.constant(bounds)

        def take_batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            indices = order[ends[step] : ends[step + 1]]
            if own % steps == 0:
                indices = tf.ensure_shape(indices, [own // steps])
            return indices, dealing.batch_seed(epoch, step)

        batches = tf.data.Dataset.range(first_step, steps).map(take_batch)
        return batches.map(lambda indices, batch_seed: (*fetch(indices), batch_seed), tf.data.AUTOTUNE)

    return read


def _stream_epochs(store: StreamStore, dealing: Dealing) -> Epochs:
    """Makes epochs of a stream: a worker reads the files that hold its share and passes over records to reach a step."""
    if dealing.sampling != "uniform":
        raise InputError(
            f"sampling={dealing.sampling!r} needs images that can be read in any order. Received: {store.stream.name}, "
            "which is streamed from disk; raise memory_limit_bytes (--memory-limit), or take class weights."
        )
    steps, own, bounds, parse = dealing.steps, dealing.own, dealing.bounds, store.stream.parse
    shuffled = read_shuffled(store.stream, store.images[dealing.share])

    def read(epoch: Any, first_step: Any) -> tf.data.Dataset:
        ends = tf.constant(bounds)
        records = shuffled(dealing.seed, epoch).skip(ends[first_step])
        examples = records.map(lambda _, record: parse(record), tf.data.AUTOTUNE)
        if own % steps == 0:
            batches = examples.batch(own // steps, drop_remainder=True)
        else:  # windows of each step's own size
            numbered = tf.data.Dataset.zip((tf.data.Dataset.range(ends[first_step], own), examples))
            batches = numbered.group_by_window(
                lambda position, _: tf.searchsorted(ends, position[None], side="right", out_type=tf.int64)[0] - 1,
                lambda _, window: window.map(lambda _, example: example).batch(own),
                window_size_func=lambda step: ends[step + 1] - ends[step],
            )
        numbers = tf.data.Dataset.range(first_step, steps)
        return tf.data.Dataset.zip((batches, numbers)).map(
            lambda batch, step: (*batch, dealing.batch_seed(epoch, step))
        )

    return read
