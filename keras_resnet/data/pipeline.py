"""How images flow to the network: tf.data for training and for evaluation."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_resnet.data.batches import Dealing, Epochs, batch_in_order, count_batches, make_epochs
from keras_resnet.data.prepare import Preparation, check_channels, prepare_batches
from keras_resnet.data.splits import Split
from keras_resnet.inputs import Preprocessing
from keras_resnet.recipes import NO_AUGMENTATION, Augmentation

PREFETCH_BATCHES = 2


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
    preparation = Preparation(preprocessing, prepare_on, augmentation, classes)
    check_channels(split.store, preprocessing)
    dealing = Dealing(len(split), batch_size, seed, sampling, shard, split.streamed)
    dealing.check_start(first_epoch, first_step)
    dataset = _follow_epochs(make_epochs(split, dealing), first_epoch, first_step)
    dataset = prepare_batches(dataset, split.store, preparation, dealing.largest)
    if not first_step:
        # flat_map hides how many batches there are; Keras shows it in its progress bar.
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(dealing.steps))
    return dataset.prefetch(PREFETCH_BATCHES)


def make_eval_dataset(
    split: Split, preprocessing: Preprocessing, *, batch_size: int = 64, prepare_on: str = "host"
) -> tf.data.Dataset:
    """Batches of every image once, in order; the last may be smaller.

    Arguments, types, shapes and errors as `make_train_dataset`.
    """
    preparation = Preparation(preprocessing, prepare_on)
    check_channels(split.store, preprocessing)
    count_batches(len(split), batch_size)
    no_seed = tf.zeros((2,), tf.int64)
    dataset = batch_in_order(split, batch_size).map(lambda images, labels: (images, labels, no_seed))
    dataset = prepare_batches(dataset, split.store, preparation, batch_size)
    return dataset.prefetch(PREFETCH_BATCHES)


def _follow_epochs(epochs: Epochs, first_epoch: int, first_step: int) -> tf.data.Dataset:
    """Makes a dataset whose n-th iteration is epoch `first_epoch + n`; the first begins at `first_step`."""
    with tf.device("cpu"):
        epoch_counter = tf.Variable(first_epoch - 1, dtype=tf.int64, trainable=False)

    def next_epoch(_: Any) -> tf.data.Dataset:
        epoch = epoch_counter.assign_add(1)
        return epochs(epoch, tf.where(epoch == first_epoch, tf.constant(first_step, tf.int64), 0))

    return tf.data.Dataset.range(1).flat_map(next_epoch)
