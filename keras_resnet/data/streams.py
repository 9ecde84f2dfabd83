"""Sets that do not fit into memory: TFRecord files read in parallel, in order or through a bounded shuffle."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet import seeds
from keras_resnet.errors import InputError

PARALLEL_FILES = 16  # read at once, an image from each in turn
SHUFFLE_BYTES = 2**28  # of encoded images in the shuffle's buffer, at most
SHUFFLE_IMAGES = 16_384  # in the buffer, at most


@dataclass(frozen=True, eq=False)
class Stream:
    """The examples of a set, read from its own record files. An example's place counts from 0 over all files."""

    name: str
    files: tuple[str, ...]  # TFRecord files
    lengths: tuple[int, ...]  # examples of each file
    parse: Callable[[Any], tuple[Any, Any]]  # a record to (encoded image, int64 label)
    bytes_per_example: float  # on average

    def check_files(self) -> None:
        """Raises InputError naming the first file that is damaged, and its record."""
        check_record_files(self.name, self.files, self.lengths)

    @property
    def buffer_images(self) -> int:
        """Returns the number of images that the shuffle's buffer holds."""
        return int(min(max(SHUFFLE_BYTES / max(self.bytes_per_example, 1.0), 1), SHUFFLE_IMAGES))


def read_in_order(stream: Stream, places: np.ndarray) -> tf.data.Dataset:
    """Reads the examples at `places`, which must ascend, in order: (int64 place, record)."""
    _check_ascending(stream, places)
    files, read_file = _make_file_reader(stream, places)
    return tf.data.Dataset.from_tensor_slices(files).flat_map(read_file)


def read_shuffled(stream: Stream, places: np.ndarray) -> Callable[[Any, Any], tf.data.Dataset]:
    """Makes `(seed, epoch) -> (int64 place, record)`, which reads each example at `places`, which must ascend, once.

    Files come in an order of their own and are read in parallel, an example from each in turn, into a buffer from
    which examples are drawn. Both are functions of seed and epoch alone, whatever the number of threads.
    """
    _check_ascending(stream, places)
    files, read_file = _make_file_reader(stream, places)

    def read(seed: Any, epoch: Any) -> tf.data.Dataset:
        key = tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
        order = tf.random.experimental.stateless_shuffle(
            tf.constant(files), seed=key + tf.constant([seeds.FILE_ORDER, 0], tf.int64)
        )
        dataset = tf.data.Dataset.from_tensor_slices(order).interleave(
            read_file, min(PARALLEL_FILES, len(files)), 1, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        if stream.buffer_images == 1:
            return dataset
        draw = tf.random.stateless_uniform((2,), key + tf.constant([seeds.BUFFER, 0], tf.int64), 1, 2**31 - 1, tf.int64)
        # The operation itself: `Dataset.shuffle` mixes TensorFlow's global seed into what it is given.
        variant = tf.raw_ops.ShuffleDataset(
            input_dataset=tf.data.experimental.to_variant(dataset),
            buffer_size=tf.constant(min(stream.buffer_images, len(places)), tf.int64),
            seed=draw[0],
            seed2=draw[1],
            output_types=[tf.int64, tf.string],
            output_shapes=[[], []],
            reshuffle_each_iteration=False,
        )
        return tf.data.experimental.from_variant(variant, dataset.element_spec)

    return read


def check_record_files(name: str, files: Sequence[str], lengths: Sequence[int]) -> None:
    """Reads TFRecord files from end to end; raises InputError naming the first that is damaged, and its record.

    A record carries checksums of its length and bytes. What comes after a damaged one cannot be found, and a file that
    ends between two records, or within a record's first bytes, looks whole to TensorFlow: so records are counted too.

    Args:
        name: of the set, opens the message.
        files: their paths.
        lengths: how many records each must have.
    """
    for path, length in zip(files, lengths, strict=True):
        found = 0
        try:
            for _ in tf.data.TFRecordDataset(path):
                found += 1
            if found == length:
                continue
            reason = "it ends there" if found < length else "it has more"
        except tf.errors.OpError as error:
            reason = re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:.*", "", error.message.splitlines()[0])
        raise InputError(
            f"{name}: a record file must be as it was written. Received: {path}, damaged after record {found:,} of "
            f"{length:,} ({reason}). The records behind cannot be trusted, so none are skipped: copy the file again "
            f"from where it is whole, or delete {os.path.dirname(path)} and prepare the set again."
        )


@contextlib.contextmanager
def naming_damaged(name: str, files: Sequence[str], lengths: Sequence[int]) -> Iterator[None]:
    """Turns TensorFlow's errors, which name no file, into one that does, where a record file is damaged."""
    try:
        yield
    except tf.errors.OpError as error:
        try:
            check_record_files(name, files, lengths)
        except InputError as damaged:
            raise damaged from error
        raise


def _check_ascending(stream: Stream, places: np.ndarray) -> None:
    if (np.diff(places) <= 0).any():
        raise InputError(
            f"{stream.name} is streamed from disk, so images must be taken in ascending order, each once. "
            "Received: another order; raise memory_limit_bytes (--memory-limit) to hold the set in memory."
        )


def _make_file_reader(stream: Stream, places: np.ndarray) -> tuple[np.ndarray, Callable[[Any], tf.data.Dataset]]:
    """Returns the numbers of the files that have any of `places`, and a function from such a number to its dataset."""
    ends = np.cumsum(stream.lengths)
    starts = ends - stream.lengths
    first, last = np.searchsorted(places, starts), np.searchsorted(places, ends)
    wanted = np.zeros(ends[-1], bool)
    wanted[places] = True
    with tf.device("cpu"):
        # Variables: a constant would be copied into every function that uses it.
        mask = tf.Variable(wanted, trainable=False)
        names, begin, number = tf.constant(stream.files), tf.constant(starts), tf.constant(stream.lengths, tf.int64)

    def read_file(index: Any) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(names[index])
        numbered = tf.data.Dataset.zip((tf.data.Dataset.range(begin[index], begin[index] + number[index]), records))
        return numbered.filter(lambda place, _: mask[place])

    return np.flatnonzero(last > first).astype(np.int64), read_file
