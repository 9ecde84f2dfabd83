"""Encoded images that cannot be decoded: which they are, named, and the splits without them."""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from keras_resnet.data.preprocess import decode
from keras_resnet.data.splits import Split
from keras_resnet.data.stores import EncodedStore
from keras_resnet.errors import InputError

_NAMED_IN_LOG = 10  # of the images that were skipped

log = logging.getLogger(__name__)


def hold_in_memory(split: Split) -> Split:
    """Returns the same images, as bytes in memory where they are streamed, in the same order; for a few of them."""
    return Split(split.store.hold(), split.labels)


def find_undecodable(split: Split, *, what: str = "decoding", first_only: bool = False) -> list[tuple[int, str, str]]:
    """Decodes each encoded image of a split and returns (index, path or other name, reason) of those where that fails.

    Args:
        split: the images; of an array none fails.
        what: shown beside the progress bar.
        first_only: whether to stop at the first.

    Raises:
        InputError: a stream's record file is damaged (its path): which images those behind are cannot be told.
    """
    from tqdm import tqdm

    store = split.store
    if not isinstance(store, EncodedStore):
        return []
    # An image that fails is missing from this dataset. The number depends on the pixels, or nobody would decode them.
    dataset = store.read_encoded().map(
        lambda index, image: index + tf.cast(tf.minimum(tf.size(decode(image, 3)), 0), tf.int64), tf.data.AUTOTUNE
    )
    failed: list[tuple[int, str, str]] = []
    expected = 0
    with tqdm(total=len(split), desc=what, unit=" images", leave=False, disable=None) as bar:
        for index in itertools.chain(dataset.ignore_errors().as_numpy_iterator(), [len(split)]):
            if expected < int(index) and not failed:
                store.check_readable()  # a damaged record file looks as if its images could not be decoded
            for missing in range(expected, int(index)):
                failed.append((missing, store.name(missing), _explain(store, missing)))
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
                if split is not None:
                    split.store.check_readable()
                    check_decodable(split)
            except InputError as undecodable:
                raise undecodable from error
        raise


def drop_undecodable(train: Split, test: Split, name: str) -> tuple[Split, Split, tuple[str, ...]]:
    """Returns both splits without the images that cannot be decoded, and the names of those; a warning counts them."""
    kept, skipped = [], []
    for split, part in ((train, "training"), (test, "test")):
        failed = find_undecodable(split, what=f"decoding the {part} images once")
        kept.append(split.take(np.setdiff1d(np.arange(len(split)), [index for index, _, _ in failed])))
        skipped += failed
    warn_skipped(name, [f"{image} ({reason})" for _, image, reason in skipped], len(train) + len(test))
    return kept[0], kept[1], tuple(image for _, image, _ in skipped)


def warn_skipped(name: str, images: Sequence[str], total: int) -> None:
    """Logs a line that counts the images, of `total`, that could not be decoded, if there are any."""
    if images:
        log.warning(
            "%s: %d of %d images could not be decoded and were skipped: %s%s",
            name,
            len(images),
            total,
            "; ".join(images[:_NAMED_IN_LOG]),
            "; ..." if len(images) > _NAMED_IN_LOG else "",
        )


def _explain(store: EncodedStore, index: int) -> str:
    """Returns the reason why an image cannot be decoded."""
    try:
        for _, image in store.take(np.array([index])).read_encoded():
            decode(image, 3)
    except tf.errors.OpError as error:
        return _describe(error.message)
    return "it could be the next time"


def _describe(message: str) -> str:
    """Returns what an error of TensorFlow's says, without what TensorFlow wraps around it."""
    _, assertion, text = message.partition("Summarized data: ")
    if assertion:
        return re.sub("b'([^']*)'", r"\1", " ".join(text.splitlines()))
    return re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:.*", "", message.splitlines()[0])
