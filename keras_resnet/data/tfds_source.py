"""TensorFlow Datasets: any image classification set by its name, as pixels, as encoded files, or streamed."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.data.cache import load_or_make
from keras_resnet.data.encoded import drop_undecodable, find_undecodable, warn_skipped
from keras_resnet.data.splits import ImageData, Split, divide_fixed, split_fixed
from keras_resnet.data.stores import BytesStore, PixelStore, StreamStore
from keras_resnet.data.streams import Stream, naming_damaged, read_in_order
from keras_resnet.data.tfds_sets import PreparedSet, open_set
from keras_resnet.errors import InputError
from keras_resnet.inputs import DataSource

_READ_BATCH = 1024

log = logging.getLogger(__name__)


def load_tfds(source: DataSource) -> ImageData:
    """Opens a prepared TFDS set, preparing it first where there is a network.

    Up to `source.limit_bytes`, images of one fixed shape become an array of pixels, decoded once on a machine, and
    others are held as encoded files. Above, images are streamed from the set's own files.

    Raises:
        InputError: as `open_set`, or a record file is damaged or missing (its path, whatever `on_error` says: what comes
            after the damage cannot be found).
    """
    prepared = open_set(source)
    size = prepared.count_bytes()
    if size > source.limit_bytes:
        log.info(
            "%s takes %.1f MiB in memory, above the limit of %.1f MiB (memory_limit_bytes, --memory-limit): it is "
            "streamed from disk",
            source.name,
            size / 2**20,
            source.limit_bytes / 2**20,
        )
        train, test, skipped = _divide([_open_stream(prepared, part) for part in prepared.parts], source)
    elif prepared.fixed:
        train, test, skipped = _load_all_pixels(prepared, source)
    else:
        train, test, skipped = _divide([_read_bytes(prepared, part) for part in prepared.parts], source)
    builder, shape = prepared.builder, prepared.image_shape
    return ImageData(
        source.name,
        f"tfds {builder.name} {builder.version}",
        train,
        test,
        tuple(builder.info.features[prepared.label].names),
        shape[-1] or 3,
        shape[:2] if prepared.fixed else None,
        skipped,
    )


def _divide(parts: list[Split], source: DataSource) -> tuple[Split, Split, tuple[str, ...]]:
    """Returns training and test images of encoded splits and, where that was asked for, the names of what was skipped."""
    train, test = parts if len(parts) == 2 else divide_fixed(parts[0])
    return drop_undecodable(train, test, source.name) if source.on_error == "skip" else (train, test, ())


def _load_all_pixels(prepared: PreparedSet, source: DataSource) -> tuple[Split, Split, tuple[str, ...]]:
    """Returns training and test images, and the names of what was skipped; every other is where it would be with those."""
    loaded = [_load_pixels(prepared, part, source.on_error) for part in prepared.parts]
    skipped = tuple(
        _name_example(prepared, part, index)
        for part, (_, undecodable) in zip(prepared.parts, loaded, strict=True)
        for index in undecodable
    )
    warn_skipped(source.name, skipped, sum(len(images) for images, _ in loaded))
    if len(loaded) == 2:
        train, test = (_drop(images, np.arange(len(images)), undecodable) for images, undecodable in loaded)
    else:
        ((images, undecodable),) = loaded
        train, test = (_drop(images, half, undecodable) for half in split_fixed(images.labels))
    return train, test, skipped


def _drop(images: Split, indices: np.ndarray, undecodable: np.ndarray) -> Split:
    """Takes the images at `indices`, without the undecodable ones; the array itself, not a copy, where these are all."""
    kept = np.setdiff1d(indices, undecodable)
    return images if len(kept) == len(images) else images.take(kept)


def _name_example(prepared: PreparedSet, part: str, index: int) -> str:
    return f"example {index} of {prepared.name} {part}"


def _load_pixels(prepared: PreparedSet, part: str, on_error: str) -> tuple[Split, np.ndarray]:
    """Returns the split as pixels, from the cache on disk or decoded now, and the indices of what cannot be decoded.

    Such images are black. Raises InputError naming the first of them unless they are to be skipped.
    """

    def make() -> dict[str, np.ndarray]:
        try:
            read = _read_pixels(prepared, part)
        except tf.errors.OpError as error:  # which names no image
            return _decode_one_by_one(prepared, part, on_error, error)
        return {"images": read.images, "labels": read.labels}

    arrays = load_or_make(prepared.cache_name(part), prepared.cache_key(part), make)
    undecodable = np.array(arrays.get("undecodable", ()), np.int64)
    if len(undecodable) and on_error != "skip":
        name = _name_example(prepared, part, int(undecodable[0]))
        raise InputError(f"{name} could not be decoded as a PNG or JPEG image.")
    return Split(PixelStore(arrays["images"]), arrays["labels"]), undecodable


def _decode_one_by_one(
    prepared: PreparedSet, part: str, on_error: str, error: tf.errors.OpError
) -> dict[str, np.ndarray]:
    """Decodes what can be decoded, after `error` said that not all can; the others are black."""
    encoded = _read_bytes(prepared, part)
    what = f"decoding {prepared.name} {part} once"
    failed = find_undecodable(encoded, what=what, first_only=on_error != "skip")
    if not failed:
        raise error
    if on_error != "skip":
        ((index, _, reason),) = failed
        name = _name_example(prepared, part, index)
        raise InputError(f"{name} could not be decoded as a PNG or JPEG image: {reason}") from error
    undecodable = np.array([index for index, _, _ in failed])
    kept = np.setdiff1d(np.arange(len(encoded)), undecodable)
    feature = prepared.builder.info.features[prepared.image]
    images = np.zeros((len(encoded), *feature.shape), np.uint8)
    contents = BytesStore(encoded.images[kept]).read_encoded()
    pixels = contents.map(lambda _, image: feature.decode_example(image)).as_numpy_iterator()
    for index, decoded in zip(kept, pixels, strict=True):
        images[index] = decoded
    return {"images": images, "labels": encoded.labels, "undecodable": undecodable}


def _open_stream(prepared: PreparedSet, part: str) -> Split:
    import tensorflow_datasets as tfds

    info, image, label = prepared.builder.info, prepared.image, prepared.label
    if not prepared.is_tfrecord:
        raise InputError(
            f"A set above the memory limit is streamed from TFRecord files. Received: {info.full_name} in "
            f"{info.file_format.value} files; raise memory_limit_bytes (--memory-limit)."
        )
    decoding = tfds.decode.PartialDecoding({image: True, label: True}, decoders={image: tfds.decode.SkipDecoding()})
    features = decoding.extract_features(info.features)

    def parse(record: Any) -> tuple[Any, Any]:
        example = features.deserialize_example(record, decoders=decoding.decoders)
        return example[image], example[label]

    split = info.splits[part]
    stream = Stream(
        f"{prepared.name} {part}",
        tuple(map(os.fspath, split.filepaths)),
        tuple(split.shard_lengths),
        parse,
        split.num_bytes / max(split.num_examples, 1),
    )
    places = np.arange(split.num_examples)
    key = {**prepared.cache_key(part), "labels_only": True}
    name = f"{prepared.cache_name(part)}-labels"
    labels = load_or_make(name, key, lambda: {"labels": _read_labels(stream, places)})
    return Split(StreamStore(places, stream), np.array(labels["labels"]))


def _read_labels(stream: Stream, places: np.ndarray) -> np.ndarray:
    dataset = read_in_order(stream, places).map(lambda _, record: stream.parse(record)[1], tf.data.AUTOTUNE)
    labels = np.empty(len(places), np.int64)
    done = 0
    with (
        naming_damaged(stream.name, stream.files, stream.lengths),
        _progress(len(places), f"reading the labels of {stream.name}") as bar,
    ):
        for batch in dataset.batch(_READ_BATCH).as_numpy_iterator():
            labels[done : done + len(batch)] = batch
            done += len(batch)
            bar.update(len(batch))
    if done != len(places):
        stream.check_files()
        raise InputError(f"{stream.name} should have {len(places)} examples. Received: {done}; prepare it again.")
    return labels


def _progress(total: int, what: str) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc=what, unit=" images", leave=False, disable=None)


def _naming_damaged(prepared: PreparedSet, part: str) -> contextlib.AbstractContextManager[None]:
    if not prepared.is_tfrecord:
        return contextlib.nullcontext()
    info = prepared.builder.info.splits[part]
    return naming_damaged(f"{prepared.name} {part}", list(map(os.fspath, info.filepaths)), info.shard_lengths)


def _read_pixels(prepared: PreparedSet, part: str) -> Split:
    """Reads a split and decodes it to an array of pixels."""
    import tensorflow_datasets as tfds

    number = prepared.builder.info.splits[part].num_examples
    images = np.empty((number, *prepared.image_shape), np.uint8)
    decoders = tfds.decode.PartialDecoding({prepared.image: True, prepared.label: True})
    return Split(PixelStore(images), _fill(images, prepared, part, decoders))


def _read_bytes(prepared: PreparedSet, part: str) -> Split:
    """Reads a split as encoded images in memory."""
    import tensorflow_datasets as tfds

    images = np.empty(prepared.builder.info.splits[part].num_examples, object)
    labels = _fill(images, prepared, part, {prepared.image: tfds.decode.SkipDecoding()})
    return Split(BytesStore(images), labels)


def _fill(images: np.ndarray, prepared: PreparedSet, part: str, decoders: Any) -> np.ndarray:
    """Reads a split from end to end, its images into `images`; returns the labels."""
    import tensorflow_datasets as tfds

    labels = np.empty(len(images), np.int64)
    dataset = prepared.builder.as_dataset(
        split=part,
        shuffle_files=False,
        batch_size=_READ_BATCH,
        decoders=decoders,
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    done = 0
    with _naming_damaged(prepared, part), _progress(len(images), f"reading {prepared.name} {part}") as bar:
        for batch in tfds.as_numpy(dataset):
            count = len(batch[prepared.label])
            images[done : done + count] = batch[prepared.image]
            labels[done : done + count] = batch[prepared.label]
            done += count
            bar.update(count)
    if done != len(images):
        raise InputError(
            f"{prepared.name!r} should have {len(images)} examples in {part!r}. Received: {done}; prepare it again."
        )
    return labels
