"""Encoded images, wherever they are: files, bytes in memory, a stream; and which of them cannot be decoded."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from keras_resnet.data.preprocess import decode
from keras_resnet.data.splits import Split
from keras_resnet.data.streams import read_in_order
from keras_resnet.errors import InputError

_NAMED_IN_LOG = 10  # of the images that were skipped

log = logging.getLogger(__name__)


def show_path(path: str | os.PathLike[str]) -> str:
    r"""A path as text that any output takes: bytes that are not UTF-8 are written as `\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def stored_bytes(split: Split) -> np.ndarray:
    """What `read_file` or `decode` takes: object (number,) of bytes, paths or whole files."""
    if split.images.dtype.kind != "U":
        return split.images
    return np.array([os.fsencode(path) for path in split.images], object)  # names need not be UTF-8


def read_encoded(split: Split) -> tf.data.Dataset:
    """(int64 index, the bytes of the file) of each encoded image, in order."""
    if split.stream is not None:
        parse = split.stream.parse
        records = read_in_order(split.stream, split.images).map(lambda _, record: parse(record)[0], tf.data.AUTOTUNE)
        return records.enumerate()
    stored, from_path = stored_bytes(split), split.images.dtype.kind == "U"

    def read(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        contents = tf.ensure_shape(tf.numpy_function(lambda i: stored[i], [index], tf.string, stateful=False), ())
        return index, tf.io.read_file(contents) if from_path else contents

    return tf.data.Dataset.range(len(split)).map(read, tf.data.AUTOTUNE)


def hold_in_memory(split: Split) -> Split:
    """The same images as bytes in memory where they are streamed, in the same order; for a few of them."""
    if split.stream is None:
        return split
    order = np.argsort(split.images)
    images = np.empty(len(split), object)
    for index, image in read_encoded(split.take(order)).as_numpy_iterator():
        images[order[index]] = image
    return Split(images, split.labels)


def find_undecodable(split: Split, *, what: str = "decoding", first_only: bool = False) -> list[tuple[int, str, str]]:
    """Decodes each encoded image of a split and returns (index, path or number, reason) of those where that fails.

    Args:
        split: the images; of an array none fails.
        what: shown beside the progress bar.
        first_only: whether to stop at the first.

    Raises:
        InputError: a stream's record file is damaged (its path): which images those behind are cannot be told.
    """
    from tqdm import tqdm

    if not split.encoded:
        return []
    # An image that fails is missing from this dataset. The number depends on the pixels, or nobody would decode them.
    dataset = read_encoded(split).map(
        lambda index, image: index + tf.cast(tf.minimum(tf.size(decode(image, 3)), 0), tf.int64), tf.data.AUTOTUNE
    )
    failed: list[tuple[int, str, str]] = []
    expected = 0
    with tqdm(total=len(split), desc=what, unit=" images", leave=False, disable=None) as bar:
        for index in itertools.chain(dataset.ignore_errors().as_numpy_iterator(), [len(split)]):
            if expected < int(index) and split.stream is not None and not failed:
                split.stream.check_files()  # a damaged file looks as if its images could not be decoded
            for missing in range(expected, int(index)):
                failed.append((missing, *_explain(split, missing)))
                if first_only:
                    return failed
            bar.update(int(index) + 1 - expected)
            expected = int(index) + 1
    return failed


def check_decodable(split: Split) -> None:
    """Raises InputError naming the first image whose pixels cannot be decoded."""
    for _, name, reason in find_undecodable(split, first_only=True):
        raise InputError(f"{name} could not be decoded as a PNG or JPEG image: {reason}")


@contextlib.contextmanager
def naming_undecodable(*splits: Split | None) -> Iterator[None]:
    """Turns TensorFlow's error about an image that cannot be decoded, or a damaged record file, into one that names it."""
    unreadable = (tf.errors.InvalidArgumentError, tf.errors.UnknownError, tf.errors.NotFoundError)
    try:
        yield
    except (*unreadable, tf.errors.DataLossError) as error:
        for split in splits:
            try:
                if split is not None and split.stream is not None:
                    split.stream.check_files()
                if split is not None:
                    check_decodable(split)
            except InputError as undecodable:
                raise undecodable from error
        raise


def drop_undecodable(train: Split, test: Split, name: str) -> tuple[Split, Split, tuple[str, ...]]:
    """The two splits without the images that cannot be decoded, and the names of those; a warning counts them."""
    kept, skipped = [], []
    for split, part in ((train, "training"), (test, "test")):
        failed = find_undecodable(split, what=f"decoding the {part} images once")
        kept.append(split.take(np.setdiff1d(np.arange(len(split)), [index for index, _, _ in failed])))
        skipped += failed
    warn_skipped(name, [f"{image} ({reason})" for _, image, reason in skipped], len(train) + len(test))
    return kept[0], kept[1], tuple(image for _, image, _ in skipped)


def warn_skipped(name: str, images: Sequence[str], total: int) -> None:
    """A line of the log that counts the images that could not be decoded, of `total`, if there are any."""
    if images:
        log.warning(
            "%s: %d of %d images could not be decoded and were skipped: %s%s",
            name,
            len(images),
            total,
            "; ".join(images[:_NAMED_IN_LOG]),
            "; ..." if len(images) > _NAMED_IN_LOG else "",
        )


def _explain(split: Split, index: int) -> tuple[str, str]:
    """(name, reason) of an image that cannot be decoded."""
    if split.stream is not None:
        name = f"example {split.images[index]} of {split.stream.name}"
    else:
        name = show_path(split.images[index]) if split.images.dtype.kind == "U" else f"image {index}"
    try:
        for _, image in read_encoded(split.take(np.array([index]))):
            decode(image, 3)
    except tf.errors.OpError as error:
        return name, _describe(error.message)
    return name, "it could be the next time"


def _describe(message: str) -> str:
    """What an error of TensorFlow's says, without what TensorFlow wraps around it."""
    _, assertion, text = message.partition("Summarized data: ")
    if assertion:
        return re.sub("b'([^']*)'", r"\1", " ".join(text.splitlines()))
    return re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:.*", "", message.splitlines()[0])
