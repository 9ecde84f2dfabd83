"""How images flow to the network: tf.data for training and for evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.data import crop
from keras_resnet.data.augment import draw_mirrored, make_augment
from keras_resnet.data.balance import draw_balanced
from keras_resnet.data.encoded import stored_bytes
from keras_resnet.data.preprocess import decode, normalize, normalize_lines, preprocess, resize_with_pad
from keras_resnet.data.splits import Split
from keras_resnet.data.streams import read_in_order, read_shuffled
from keras_resnet.errors import InputError
from keras_resnet.inputs import PREPARE_ON, Preprocessing
from keras_resnet.recipes import NO_AUGMENTATION, Augmentation
from keras_resnet.records import check_choice, is_count

PREFETCH_BATCHES = 2
SAMPLINGS = ("uniform", "balanced")
_AUGMENT_STREAM = 1_000_003  # keeps the draws of augmentation apart from those of the order
_CROP_STREAM = 2_000_003

# What a dataset holds before images are prepared: (stored images, int64 labels, int64 (2,) seed) of each batch.
Batches = Callable[[Any, Any], tf.data.Dataset]


def count_batches(images: int, batch_size: int) -> int:
    """Returns the number of batches in an epoch of `images` images: `ceil(images / batch_size)`."""
    if images < 1 or batch_size < 1:
        raise InputError(
            f"There must be at least 1 image and 1 image per batch. Received: {images} images, batch_size={batch_size}."
        )
    return -(-images // batch_size)


def make_train_dataset(
    split: Split,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 64,
    seed: int = 0,
    augmentation: Augmentation = NO_AUGMENTATION,
    classes: int | None = None,
    sampling: str = "uniform",
    prepare_on: str = "host",
    first_epoch: int = 0,
    first_step: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Batches for `model.fit`: each iteration is an epoch, every image once, in an order of its own.

    Order and augmentation are a function of (seed, epoch, step) alone: the n-th iteration of the dataset is epoch
    `first_epoch + n`, whatever came before and with any number of threads. Images in memory and files are shuffled over
    the whole set; a set that is streamed (see `load_data`) by files and through a buffer. Starting in the middle reads
    nothing of what came before, but for a stream, which passes over the records of that epoch.

    Args:
        split: the images.
        preprocessing: size and normalization of the network's input.
        batch_size: most images per batch. No batch is small and no image is dropped: an epoch is divided into as
            few batches as this allows, whose sizes differ by at most one.
        seed: of order and augmentation.
        augmentation: how images and labels are changed at random; by default not at all. Arrays are augmented at the
            smaller of their own size and the network's, files at the network's.
        classes: how many there are; needed where the augmentation makes labels soft.
        sampling: "uniform", or "balanced": as many images per epoch, but each class equally often (see
            `draw_balanced`).
        prepare_on: "host", or "device": batches are uint8 pixels, a quarter of the bytes, for the network that
            `wrap_for_device` returns: of an array at its own size; of files at the network's, each pixel rounded to a
            whole level, and zeros as padding, of which normalizing makes what it makes on the host.
        first_epoch: number of the first epoch, to start in the middle.
        first_step: number of the first batch of that epoch. Keras takes the first iteration for the length of all:
            give `model.fit` the rest of a begun epoch by itself, then a dataset that starts with the next.
        shard: (index, count): the share of worker `index` of `count`. Each epoch's images are dealt out without overlap
            or gap, to equally many batches for all; `batch_size` is that of one worker.

    Returns:
        A dataset of (images float32 (batch, height, width, channels), or uint8 for "device"; labels int64 (batch,), or
        float32 (batch, classes) where the augmentation makes them soft).

    Raises:
        InputError: no images, a batch size below 1, arrays of another number of channels, soft labels without
            `classes`, a step or shard that is not there, or what a stream or encoded images cannot do.
    """
    check_choice("sampling", sampling, SAMPLINGS)
    _check_source(split, preprocessing, prepare_on)
    index, count = _check_shard(shard)
    number = len(split)
    steps = count_batches(-(-number // count), batch_size)
    if number // count < steps:
        raise InputError(
            f"Every worker must have an image for each of the {steps} batches of an epoch. Received: {number} images "
            f"for {count} workers at batch_size={batch_size}."
        )
    if not is_count(first_step, 0) or first_step >= steps or not is_count(first_epoch, 0):
        raise InputError(
            f"first_epoch must be at least 0 and first_step from 0 to {steps - 1}, the batches of an epoch. "
            f"Received: first_epoch={first_epoch!r}, first_step={first_step!r}."
        )
    read = (_stream_batches if split.stream is not None else _gather_batches)(
        split, steps, seed=seed, sampling=sampling, shard=(index, count)
    )
    largest = -(-(number // count + (index < number % count)) // steps)
    prepare = _make_prepare(split, preprocessing, augmentation, classes, prepare_on, largest)
    with tf.device("cpu"):
        epoch_counter = tf.Variable(first_epoch - 1, dtype=tf.int64, trainable=False)

    def next_epoch(_: tf.Tensor) -> tf.data.Dataset:
        epoch = epoch_counter.assign_add(1)
        return read(epoch, tf.where(epoch == first_epoch, tf.constant(first_step, tf.int64), 0))

    dataset = prepare(tf.data.Dataset.range(1).flat_map(next_epoch))
    if not first_step:
        # flat_map hides how many batches there are; Keras shows it in its progress bar.
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps))
    return dataset.prefetch(PREFETCH_BATCHES)


def make_eval_dataset(
    split: Split, preprocessing: Preprocessing, *, batch_size: int = 64, prepare_on: str = "host"
) -> tf.data.Dataset:
    """Batches of every image once, in order; the last may be smaller.

    Arguments, types, shapes and errors as `make_train_dataset`.
    """
    _check_source(split, preprocessing, prepare_on)
    count_batches(len(split), batch_size)
    if split.stream is not None:
        parse = split.stream.parse
        dataset = read_in_order(split.stream, split.images)
        dataset = dataset.map(lambda _, record: parse(record), tf.data.AUTOTUNE).batch(batch_size)
    else:
        fetch = _make_fetch(split)
        dataset = tf.data.Dataset.range(len(split)).batch(batch_size).map(fetch, tf.data.AUTOTUNE)
    prepare = _make_prepare(split, preprocessing, NO_AUGMENTATION, None, prepare_on, batch_size)
    no_seed = tf.zeros((2,), tf.int64)
    return prepare(dataset.map(lambda images, labels: (images, labels, no_seed))).prefetch(PREFETCH_BATCHES)


def _check_source(split: Split, preprocessing: Preprocessing, prepare_on: str) -> None:
    check_choice("prepare_on", prepare_on, PREPARE_ON)
    if split.encoded:
        if preprocessing.channels not in (1, 3):
            raise InputError(f"Images are decoded to 1 or 3 channels. Received: {preprocessing.channels}.")
    elif split.images.shape[-1] != preprocessing.channels:
        raise InputError(
            f"The images have {split.images.shape[-1]} channels and the preprocessing {preprocessing.channels}; they "
            "must match."
        )


def _check_shard(shard: tuple[int, int]) -> tuple[int, int]:
    if len(shard) != 2 or not is_count(shard[1]) or not is_count(shard[0], 0) or shard[0] >= shard[1]:
        raise InputError(f"shard must be (index, count), with index from 0 to count - 1. Received: {tuple(shard)!r}.")
    return shard


def _batch_seed(seed: int, epoch: Any, step: Any, steps: int, shard: tuple[int, int]) -> tf.Tensor:
    """The stateless seed of a batch: another for every seed, epoch, step and worker."""
    index, count = shard
    return tf.stack([tf.constant(seed + _AUGMENT_STREAM, tf.int64), (epoch * steps + step) * count + index])


def _gather_batches(split: Split, steps: int, *, seed: int, sampling: str, shard: tuple[int, int]) -> Batches:
    """Batches of images that can be read in any order: those of an epoch from a step on, none before is touched."""
    index, count = shard
    number, own = len(split), len(range(index, len(split), count))
    fetch, labels = _make_fetch(split), split.labels
    # Where each batch begins in the epoch's order: sizes differ by at most one image.
    bounds = np.arange(steps + 1) * own // steps

    def draw_order(epoch: tf.Tensor) -> tf.Tensor:
        if sampling == "uniform":
            return tf.random.experimental.stateless_shuffle(tf.range(number, dtype=tf.int64), seed=[seed, epoch])
        order = tf.numpy_function(lambda now: draw_balanced(labels, seed, int(now)), [epoch], tf.int64, stateful=False)
        return tf.ensure_shape(order, (number,))

    def read(epoch: Any, first_step: Any) -> tf.data.Dataset:
        order, ends = draw_order(epoch)[index::count], tf.constant(bounds)

        def take_batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            indices = order[ends[step] : ends[step + 1]]
            if own % steps == 0:
                indices = tf.ensure_shape(indices, [own // steps])
            return indices, _batch_seed(seed, epoch, step, steps, shard)

        return tf.data.Dataset.range(first_step, steps).map(take_batch)

    return lambda epoch, first_step: read(epoch, first_step).map(
        lambda indices, batch_seed: (*fetch(indices), batch_seed), tf.data.AUTOTUNE
    )


def _stream_batches(split: Split, steps: int, *, seed: int, sampling: str, shard: tuple[int, int]) -> Batches:
    """Batches of a stream: a worker reads the files that hold its share, a step is reached by passing over records."""
    index, count = shard
    stream = split.stream
    assert stream is not None
    if sampling != "uniform":
        raise InputError(
            f"sampling={sampling!r} needs images that can be read in any order. Received: {stream.name}, which is "
            "streamed from disk; raise memory_limit_bytes (--memory-limit), or take class weights."
        )
    number, parse = len(split), stream.parse
    places = split.images[number * index // count : number * (index + 1) // count]
    own = len(places)
    bounds = np.arange(steps + 1) * own // steps
    shuffled = read_shuffled(stream, places)

    def read(epoch: Any, first_step: Any) -> tf.data.Dataset:
        ends = tf.constant(bounds)
        records = shuffled(seed, epoch).skip(ends[first_step]).map(lambda _, record: parse(record), tf.data.AUTOTUNE)
        if own % steps == 0:
            batches = records.batch(own // steps, drop_remainder=True)
        else:  # windows of each step's own size
            numbered = tf.data.Dataset.zip((tf.data.Dataset.range(ends[first_step], own), records))
            batches = numbered.group_by_window(
                lambda position, _: tf.searchsorted(ends, position[None], side="right", out_type=tf.int64)[0] - 1,
                lambda _, window: window.map(lambda _, example: example).batch(number),
                window_size_func=lambda step: ends[step + 1] - ends[step],
            )
        numbers = tf.data.Dataset.range(first_step, steps)
        return tf.data.Dataset.zip((batches, numbers)).map(
            lambda batch, step: (*batch, _batch_seed(seed, epoch, step, steps, shard))
        )

    return read


def _make_fetch(split: Split) -> Callable[[Any], tuple[tf.Tensor, tf.Tensor]]:
    """A function from a batch of indices to (stored images, labels): pixels, encoded files, or paths."""
    stored = stored_bytes(split) if split.encoded else np.asarray(split.images)
    labels, kind = split.labels, tf.string if split.encoded else tf.uint8

    def take(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return stored[indices], labels[indices]

    def fetch(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # In NumPy: a tensor of the whole array would hold it in memory two more times (measured on MNIST).
        images, found = tf.numpy_function(take, [indices], [kind, tf.int64], stateful=False)
        return tf.ensure_shape(images, [*indices.shape, *stored.shape[1:]]), tf.ensure_shape(found, indices.shape)

    return fetch


def _make_prepare(
    split: Split,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    classes: int | None,
    prepare_on: str,
    largest: int,
) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """From batches of (stored images, labels, seed), of at most `largest` images, to batches of what the network takes."""
    if split.encoded:
        return _prepare_files(split, preprocessing, augmentation, classes, prepare_on, largest)
    prepare = _prepare_arrays(split, preprocessing, augmentation, classes, prepare_on)
    return lambda batches: batches.map(prepare, tf.data.AUTOTUNE)


def _draw_crops(images: Any, seed: Any) -> tf.Tensor:
    return crop.draw_numbers(tf.shape(images)[0], seed + tf.constant([_CROP_STREAM, 0], tf.int64))


def _whole_levels(images: tf.Tensor) -> tf.Tensor:
    return images if images.dtype == tf.uint8 else tf.saturate_cast(tf.round(images), tf.uint8)


def _prepare_arrays(
    split: Split, preprocessing: Preprocessing, augmentation: Augmentation, classes: int | None, prepare_on: str
) -> Callable[[Any, Any, Any], tuple[tf.Tensor, tf.Tensor]]:
    height, width = preprocessing.image_size_pixels
    old_height, old_width = split.images.shape[1:3]
    augment, area = make_augment(augmentation, classes=classes), augmentation.resized_crop

    def prepare(images: Any, labels: Any, seed: Any) -> tuple[tf.Tensor, tf.Tensor]:
        if prepare_on == "device":
            if area is not None:
                images = crop.crop_batch(images, _draw_crops(images, seed), area, (old_height, old_width))
            images, labels = augment(images, labels, seed)
            return _whole_levels(images), labels
        if area is not None:
            images = crop.crop_batch(images, _draw_crops(images, seed), area, (height, width))
        elif old_height * old_width > height * width:
            images = resize_with_pad(images, height, width)
        # Otherwise images are enlarged last: everything before works on the small ones.
        images, labels = augment(images, labels, seed)
        return preprocess(images, preprocessing), labels

    return prepare


def _prepare_files(
    split: Split,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    classes: int | None,
    prepare_on: str,
    largest: int,
) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Numbers are drawn for a batch, images read one by one and put together, which is the only pass over a batch.

    As much as can be is done to each image while it is in the processor's cache.
    """
    height, width, channels = preprocessing.input_shape
    area, from_path = augmentation.resized_crop, split.images.dtype.kind == "U"
    mirror = augmentation.horizontal_flip and not augmentation.shift_fraction  # shifts come before
    rest = replace(augmentation, resized_crop=None, horizontal_flip=augmentation.horizontal_flip and not mirror)
    augment = make_augment(rest, classes=classes)
    complete = replace(rest, label_smoothing=0.0) == NO_AUGMENTATION  # once it is read: no more changes of pixels
    normalizes = complete and prepare_on == "host"
    kind = tf.uint8 if not normalizes and (complete or area is not None) else tf.float32

    def draw(images: Any, labels: Any, seed: Any) -> tuple[tf.Tensor, ...]:
        number = tf.shape(images, out_type=tf.int64)[0]
        # All batches of one size, for `batch`: where one is smaller by one, its last image comes twice.
        places = tf.minimum(tf.range(number + tf.cast(number == largest - 1, tf.int64)), number - 1)
        numbers = tf.zeros((number, 1)) if area is None else _draw_crops(images, seed)
        if mirror:
            numbers = tf.concat([numbers, tf.cast(draw_mirrored(images, seed), tf.float32)[:, None]], 1)
        # Few parts: each is taken apart and put together again for every image.
        facts = tf.repeat(tf.concat([number[None], seed], 0)[None], tf.size(places), 0)
        return *(tf.gather(part, places) for part in (images, numbers, labels)), facts

    def read(image: Any, numbers: Any, label: Any, facts: Any) -> tuple[tf.Tensor, ...]:
        contents = tf.io.read_file(image) if from_path else image
        if area is not None:
            pixels = crop.crop_encoded(contents, numbers[:4], area, (height, width), channels, known=split.jpeg)
        else:
            pixels = resize_with_pad(decode(contents, channels), height, width)
        if kind == tf.uint8:
            pixels = tf.cast(pixels + 0.5, tf.uint8)
        if mirror:
            pixels = tf.cond(numbers[-1] > 0, lambda: tf.reverse(pixels, [1]), lambda: pixels)
        return normalize_lines(pixels, preprocessing) if normalizes else pixels, label, facts

    def finish(images: Any, labels: Any, facts: Any) -> tuple[tf.Tensor, tf.Tensor]:
        number, seed = facts[0, 0], facts[0, 1:]
        images, labels = augment(images[:number], labels[:number], seed)
        if prepare_on == "device":
            return _whole_levels(images), labels
        return images if normalizes else normalize(images, preprocessing), labels

    def prepare(batches: tf.data.Dataset) -> tf.data.Dataset:
        images = batches.map(draw, tf.data.AUTOTUNE).unbatch().map(read, tf.data.AUTOTUNE)
        return images.batch(largest).map(finish, tf.data.AUTOTUNE)

    return prepare
