"""How images flow to the network: tf.data for training and for evaluation."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.data.augment import make_augment
from keras_resnet.data.folders import check_decodable
from keras_resnet.data.preprocess import decode, normalise, resize_with_pad
from keras_resnet.data.splits import ImageData, Split
from keras_resnet.errors import InputError
from keras_resnet.recipes import NO_AUGMENTATION, Augmentation, Preprocessing

PREFETCH_BATCHES = 2
_AUGMENT_STREAM = 1_000_003  # keeps the draws of augmentation apart from those of the order
_STATISTICS_SAMPLE = 1000  # encoded images that are decoded to estimate mean and std


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
    first_epoch: int = 0,
) -> tf.data.Dataset:
    """Batches for `model.fit`: each iteration is an epoch, every image once, in an order of its own.

    Order and augmentation are a function of (seed, epoch, step) alone: the n-th iteration of the dataset is
    epoch `first_epoch + n`, whatever came before.

    Args:
        split: the images.
        preprocessing: size and normalisation of the network's input.
        batch_size: most images per batch. No batch is small and no image is dropped: an epoch is divided into as
            few batches as this allows, whose sizes differ by at most one.
        seed: of order and augmentation.
        augmentation: how images and labels are changed at random; by default not at all.
        classes: how many there are; needed where the augmentation makes labels soft.
        first_epoch: number of the first epoch, to start in the middle.

    Returns:
        A dataset of (images float32 (batch, height, width, channels), labels int64 (batch,), or float32
        (batch, classes) where the augmentation makes them soft).

    Raises:
        InputError: no images, a batch size below 1, arrays of another number of channels, or soft labels without
            `classes`.
    """
    number = len(split)
    steps = count_batches(number, batch_size)
    gather = _make_gather(split, preprocessing)
    augment = make_augment(augmentation, classes=classes)
    with tf.device("cpu"):
        epoch_counter = tf.Variable(first_epoch - 1, dtype=tf.int64, trainable=False)
        # Where each batch begins in the epoch's order: sizes differ by at most one image.
        bounds = tf.constant(np.arange(steps + 1) * number // steps)

    def shuffle(_: tf.Tensor) -> tf.data.Dataset:
        epoch = epoch_counter.assign_add(1)
        order = tf.random.experimental.stateless_shuffle(tf.range(number, dtype=tf.int64), seed=[seed, epoch])

        def take_batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            indices = order[bounds[step] : bounds[step + 1]]
            if number % steps == 0:
                indices = tf.ensure_shape(indices, [number // steps])
            return indices, tf.stack([tf.constant(seed + _AUGMENT_STREAM, tf.int64), epoch * steps + step])

        return tf.data.Dataset.range(steps).map(take_batch)

    def augment_and_normalise(images: tf.Tensor, labels: tf.Tensor, batch_seed: tf.Tensor) -> Any:
        images, labels = augment(images, labels, batch_seed)
        return normalise(images, preprocessing), labels

    dataset = tf.data.Dataset.range(1).flat_map(shuffle)
    dataset = dataset.map(lambda indices, batch_seed: (*gather(indices), batch_seed), tf.data.AUTOTUNE)
    dataset = dataset.map(augment_and_normalise, tf.data.AUTOTUNE)
    # flat_map hides how many batches there are; Keras shows it in its progress bar.
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps))
    return dataset.prefetch(PREFETCH_BATCHES)


def make_eval_dataset(split: Split, preprocessing: Preprocessing, *, batch_size: int = 64) -> tf.data.Dataset:
    """Batches of every image once, in order; the last may be smaller.

    Arguments, types, shapes and errors as `make_train_dataset`.
    """
    count_batches(len(split), batch_size)
    gather = _make_gather(split, preprocessing)
    dataset = tf.data.Dataset.range(len(split)).batch(batch_size)
    dataset = dataset.map(gather, tf.data.AUTOTUNE)
    dataset = dataset.map(lambda images, labels: (normalise(images, preprocessing), labels), tf.data.AUTOTUNE)
    return dataset.prefetch(PREFETCH_BATCHES)


def _make_gather(split: Split, preprocessing: Preprocessing) -> Any:
    """A function from a batch of indices to (pixels 0-255 at the network's size, labels)."""
    height, width, channels = preprocessing.input_shape
    stored = split.images
    if not split.encoded and stored.shape[-1] != channels:
        raise InputError(
            f"The images have {stored.shape[-1]} channels and the preprocessing {channels}; they must match."
        )
    from_path = stored.dtype.kind == "U"
    if from_path:
        stored = np.array([os.fsencode(path) for path in stored], object)
    kind = tf.string if split.encoded else tf.uint8

    def take(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return stored[indices], split.labels[indices]

    def read_one(image: tf.Tensor) -> tf.Tensor:
        return resize_with_pad(decode(tf.io.read_file(image) if from_path else image, channels), height, width)

    def gather(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # In NumPy: a tensor of the whole array would hold it in memory two more times (measured on MNIST).
        images, labels = tf.numpy_function(take, [indices], [kind, tf.int64], stateful=False)
        images = tf.ensure_shape(images, [*indices.shape, *stored.shape[1:]])
        labels = tf.ensure_shape(labels, indices.shape)
        if split.encoded:
            images = tf.map_fn(
                read_one, images, fn_output_signature=tf.TensorSpec((height, width, channels), tf.float32)
            )
        # Small uint8 images are gathered; only the batch is ever resized and float.
        return (images if split.encoded else resize_with_pad(images, height, width)), labels

    return gather


def compute_preprocessing(
    data: ImageData, split: Split, image_size_pixels: tuple[int, int] | None = None
) -> Preprocessing:
    """Chooses the input size and measures mean and std of each channel on the images of `split`.

    The size is the images' own where they all have the same, up to 224 pixels, otherwise 224x224. Statistics are
    exact for arrays; for files they are estimated on up to 1,000 of them.

    Args:
        data: for its channels and sizes.
        split: the training images.
        image_size_pixels: (height, width) of the network's input, instead of the default.

    Raises:
        InputError: a size below 1, or a file that cannot be decoded (its path).
    """
    size = image_size_pixels or data.image_size_pixels
    if size is None or (image_size_pixels is None and max(size) > 224):
        size = (224, 224)
    levels = np.arange(256) / 255
    counts = np.zeros((data.channels, 256))
    for pixels in _pixel_chunks(split, data.channels):
        for channel in range(data.channels):
            counts[channel] += np.bincount(pixels[..., channel].ravel(), minlength=256)
    weights = counts / counts.sum(1, keepdims=True)
    mean = weights @ levels
    variance = weights @ levels**2 - mean**2
    # A constant channel has no spread to divide by.
    std = np.where(variance > 1e-8, np.sqrt(np.maximum(variance, 1e-8)), 1.0)
    return Preprocessing(
        image_size_pixels=(int(size[0]), int(size[1])),
        channels=data.channels,
        mean=tuple(round(float(value), 6) for value in mean),
        std=tuple(round(float(value), 6) for value in std),
    )


def _pixel_chunks(split: Split, channels: int) -> Any:
    if not split.encoded:
        for start in range(0, len(split), 1024):
            yield split.images[start : start + 1024]
        return
    for index in np.unique(np.linspace(0, len(split) - 1, _STATISTICS_SAMPLE).astype(int)):
        image = split.images[index]
        contents = tf.io.read_file(image) if isinstance(image, str) else image
        try:
            yield decode(contents, channels).numpy()
        except tf.errors.OpError:
            check_decodable([image])
            raise
