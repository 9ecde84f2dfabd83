"""TensorFlow Datasets: any image classification set by its name, from prepared files or downloaded."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlparse

import numpy as np
import tensorflow as tf

from keras_resnet.data.cache import load_or_make
from keras_resnet.data.encoded import drop_undecodable, find_undecodable, read_encoded, warn_skipped
from keras_resnet.data.splits import ImageData, Split
from keras_resnet.data.streams import Stream, naming_damaged, read_in_order
from keras_resnet.errors import InputError, suggest

_READ_BATCH = 1024

log = logging.getLogger(__name__)


def load_tfds(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    *,
    split: Callable[[Split], tuple[Split, Split]],
    memory_limit_bytes: int,
    on_error: str,
) -> ImageData:
    """Opens a prepared TFDS set, preparing it first where there is a network.

    Up to `memory_limit_bytes`, images of one fixed shape become an array of pixels, decoded once on a machine, and
    others are held as encoded files. Above, images are streamed from the set's own files.

    Raises:
        InputError: unknown name (the nearest), not an image classification set, or not prepared and no network
            (which folder was looked in and how to prepare it there), or a record file is damaged or missing (its
            path, whatever `on_error` says: what comes after the damage cannot be found).
    """
    import tensorflow_datasets as tfds

    # TFDS reads TFDS_DATA_DIR itself only once, when it is imported.
    data_dir = os.fspath(data_dir) if data_dir is not None else os.environ.get("TFDS_DATA_DIR")
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
        names = tfds.list_builders()
        if re.split("[:/]", name)[0] in names:  # a version or configuration it does not have
            raise InputError(f"TFDS could not open {name!r}: {error}") from error
        raise InputError(
            f"Unknown data set. Received: {name!r}.{suggest(name, ['digits', *names])} "
            "There is no folder or file of that name either. "
            "Allowed: 'digits', a folder with one sub-folder per class, an .npz file, or the TFDS name of an image "
            "classification set, such as 'mnist', 'fashion_mnist', 'cifar10', 'cifar100'."
        ) from error
    image, label = _image_and_label(builder)
    if not builder.data_path.exists():
        _prepare(builder)
    return _read(builder, name, image, label, split, memory_limit_bytes, on_error)


def _prepare(builder: Any) -> None:
    folder = builder.data_path.parents[builder.info.full_name.count("/")]  # name[/config]/version
    full_name = builder.info.full_name.rpartition("/")[0]
    how = (
        f"To prepare it there, run on a machine with a network: tfds build {full_name} --data_dir {folder} "
        "(or set --data-dir or TFDS_DATA_DIR to a folder that holds it)."
    )
    unreachable = _unreachable_host(builder)
    if unreachable:
        raise InputError(
            f"The TFDS set {full_name!r} is not prepared in {folder} (looked for {builder.data_path}) and its source "
            f"{unreachable} cannot be reached. {how}"
        )
    log.info("preparing %s in %s", builder.name, folder)
    try:
        builder.download_and_prepare()
    except Exception as error:  # requests', TFDS' download and checksum errors, a full disk: all end here alike
        raise InputError(
            f"The TFDS set {full_name!r} is not prepared in {folder} and preparing it failed: {error}. {how}"
        ) from error


def _unreachable_host(builder: Any) -> str | None:
    """The first download host that has no address, or None; TFDS itself would retry for minutes."""
    if urllib.request.getproxies():  # names are looked up by the proxy then
        return None
    hosts = {urlparse(url).hostname for url in builder.url_infos} - {None}
    for host in sorted(hosts):
        try:
            socket.getaddrinfo(host, None)
        except OSError:
            return host
    return None


def _image_and_label(builder: Any) -> tuple[str, str]:
    """The names of the image and of the label feature."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    keys = builder.info.supervised_keys
    pair = keys if keys and len(keys) == 2 and all(isinstance(key, str) for key in keys) else ("image", "label")
    has_pair = isinstance(features, tfds.features.FeaturesDict) and all(key in features for key in pair)
    if not (
        has_pair
        and isinstance(features[pair[0]], tfds.features.Image)
        and isinstance(features[pair[1]], tfds.features.ClassLabel)
    ):
        raise InputError(
            f"{builder.name!r} must be an image classification set: an image and one class label per example. "
            f"Received: features {', '.join(features) if has_pair or hasattr(features, 'keys') else features}."
        )
    if features[pair[0]].np_dtype != np.uint8:
        raise InputError(f"{builder.name!r} must have uint8 pixels. Received: {features[pair[0]].np_dtype}.")
    return pair


def _read(
    builder: Any,
    name: str,
    image: str,
    label: str,
    split: Callable[[Split], tuple[Split, Split]],
    memory_limit_bytes: int,
    on_error: str,
) -> ImageData:
    info = builder.info
    train_name = "train"
    test_name = next((part for part in ("test", "validation") if part in info.splits), None)
    if train_name not in info.splits:
        raise InputError(f"{name!r} must have a 'train' split. Received: {', '.join(info.splits)}.")
    parts = [train_name] if test_name is None else [train_name, test_name]
    shape = info.features[image].shape
    fixed = None not in shape
    examples = sum(info.splits[part].num_examples for part in parts)
    size = examples * int(np.prod(shape)) if fixed else sum(info.splits[part].num_bytes for part in parts)

    def describe(train: Split, test: Split, skipped: tuple[str, ...]) -> ImageData:
        return ImageData(
            name,
            f"tfds {builder.name} {builder.version}",
            train,
            test,
            tuple(info.features[label].names),
            shape[-1] or 3,
            shape[:2] if fixed else None,
            skipped,
        )

    if size > memory_limit_bytes:
        log.info(
            "%s takes %.1f MiB in memory, above the limit of %.1f MiB (memory_limit_bytes, --memory-limit): it is "
            "streamed from disk",
            name,
            size / 2**20,
            memory_limit_bytes / 2**20,
        )
        read = [_open_stream(builder, part, image, label) for part in parts]
    elif fixed:
        loaded = [_load_pixels(builder, part, image, label, on_error) for part in parts]
        return describe(*_drop(loaded, parts, builder, split, name))
    else:
        read = [_read_split(builder, part, image, label, fixed=False) for part in parts]
    train, test = read if test_name is not None else split(read[0])
    if on_error == "skip":
        return describe(*drop_undecodable(train, test, name))
    return describe(train, test, ())


def _load_pixels(builder: Any, part: str, image: str, label: str, on_error: str) -> tuple[Split, np.ndarray]:
    """The split as pixels, from the cache on disk or decoded now, and the indices of those that cannot be decoded.

    These are black. Raises InputError naming the first unless they are to be skipped.
    """

    def name(index: int) -> str:
        return f"example {index} of {builder.name} {part}"

    def make() -> dict[str, np.ndarray]:
        try:
            read = _read_split(builder, part, image, label, fixed=True)
        except tf.errors.OpError as error:  # which names no image
            encoded = _read_split(builder, part, image, label, fixed=False)
            failed = find_undecodable(
                encoded, what=f"decoding {builder.name} {part} once", first_only=on_error != "skip"
            )
            if not failed:
                raise
            if on_error != "skip":
                ((index, _, reason),) = failed
                raise InputError(f"{name(index)} could not be decoded as a PNG or JPEG image: {reason}") from error
            undecodable = np.array([index for index, _, _ in failed])
            kept = np.setdiff1d(np.arange(len(encoded)), undecodable)
            feature = builder.info.features[image]
            images = np.zeros((len(encoded), *feature.shape), np.uint8)
            pixels = read_encoded(encoded.take(kept)).map(lambda _, contents: feature.decode_example(contents))
            for index, decoded in zip(kept, pixels.as_numpy_iterator(), strict=True):
                images[index] = decoded
            return {"images": images, "labels": encoded.labels, "undecodable": undecodable}
        return {"images": read.images, "labels": read.labels}

    arrays = load_or_make(_cache_name(builder, part), _describe_files(builder, part, image, label), make)
    undecodable = np.array(arrays.get("undecodable", ()), np.int64)
    if len(undecodable) and on_error != "skip":
        raise InputError(f"{name(int(undecodable[0]))} could not be decoded as a PNG or JPEG image.")
    return Split(arrays["images"], arrays["labels"]), undecodable


def _drop(
    loaded: list[tuple[Split, np.ndarray]],
    parts: list[str],
    builder: Any,
    split: Callable[[Split], tuple[Split, Split]],
    name: str,
) -> tuple[Split, Split, tuple[str, ...]]:
    """Training and test images without those that cannot be decoded; every other is where it would be with them."""
    skipped = tuple(
        f"example {index} of {builder.name} {part}"
        for part, (_, undecodable) in zip(parts, loaded, strict=True)
        for index in undecodable
    )
    warn_skipped(name, skipped, sum(len(images) for images, _ in loaded))
    if not skipped:
        train, test = (images for images, _ in loaded) if len(loaded) == 2 else split(loaded[0][0])
        return train, test, skipped
    if len(loaded) == 2:
        train, test = (images.take(np.setdiff1d(np.arange(len(images)), undecodable)) for images, undecodable in loaded)
        return train, test, skipped
    ((images, undecodable),) = loaded
    halves = split(Split(np.arange(len(images)), images.labels))
    train, test = (images.take(np.setdiff1d(half.images, undecodable)) for half in halves)
    return train, test, skipped


def _cache_name(builder: Any, part: str) -> str:
    return "-".join((re.sub("[^A-Za-z0-9_.]", "_", builder.info.full_name), part))


def _describe_files(builder: Any, part: str, image: str, label: str) -> dict[str, Any]:
    """What a cached copy of a split depends on: the set, and the very files it was prepared into."""
    info = builder.info.splits[part]
    try:
        files = [os.stat(path) for path in info.filepaths]
    except OSError as error:
        raise InputError(
            f"{builder.name} {part}: every record file must be there. Received: {error.filename}, which is not "
            f"({error.strerror}); copy it from where the set is whole, or delete {builder.data_path} and prepare the set "
            "again."
        ) from error
    return {
        "set": builder.info.full_name,
        "part": part,
        "features": [image, label],
        "shape": [info.num_examples, *builder.info.features[image].shape],
        "files": [
            [os.path.basename(path), stat.st_size, stat.st_mtime_ns]
            for path, stat in zip(info.filepaths, files, strict=True)
        ],
    }


def _open_stream(builder: Any, part: str, image: str, label: str) -> Split:
    import tensorflow_datasets as tfds

    info = builder.info.splits[part]
    if builder.info.file_format.value != "tfrecord":
        raise InputError(
            f"A set above the memory limit is streamed from TFRecord files. Received: {builder.info.full_name} in "
            f"{builder.info.file_format.value} files; raise memory_limit_bytes (--memory-limit)."
        )
    decoding = tfds.decode.PartialDecoding({image: True, label: True}, decoders={image: tfds.decode.SkipDecoding()})
    features = decoding.extract_features(builder.info.features)

    def parse(record: Any) -> tuple[Any, Any]:
        example = features.deserialize_example(record, decoders=decoding.decoders)
        return example[image], example[label]

    stream = Stream(
        f"{builder.name} {part}",
        tuple(map(os.fspath, info.filepaths)),
        tuple(info.shard_lengths),
        parse,
        info.num_bytes / max(info.num_examples, 1),
    )
    places = np.arange(info.num_examples)
    key = {**_describe_files(builder, part, image, label), "labels_only": True}
    labels = load_or_make(f"{_cache_name(builder, part)}-labels", key, lambda: {"labels": _read_labels(stream, places)})
    return Split(places, np.array(labels["labels"]), stream)


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


def _naming_damaged(builder: Any, part: str) -> contextlib.AbstractContextManager[None]:
    if builder.info.file_format.value != "tfrecord":
        return contextlib.nullcontext()
    info = builder.info.splits[part]
    return naming_damaged(f"{builder.name} {part}", list(map(os.fspath, info.filepaths)), info.shard_lengths)


def _read_split(builder: Any, part: str, image: str, label: str, *, fixed: bool) -> Split:
    import tensorflow_datasets as tfds

    number = builder.info.splits[part].num_examples
    labels = np.empty(number, np.int64)
    images = np.empty((number, *builder.info.features[image].shape), np.uint8) if fixed else np.empty(number, object)
    dataset = builder.as_dataset(
        split=part,
        shuffle_files=False,
        batch_size=_READ_BATCH,
        decoders=tfds.decode.PartialDecoding({image: True, label: True})
        if fixed
        else {image: tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    done = 0
    with _naming_damaged(builder, part), _progress(number, f"reading {builder.name} {part}") as bar:
        for batch in tfds.as_numpy(dataset):
            count = len(batch[label])
            images[done : done + count] = batch[image]
            labels[done : done + count] = batch[label]
            done += count
            bar.update(count)
    if done != number:
        raise InputError(
            f"{builder.name!r} should have {number} examples in {part!r}. Received: {done}; prepare it again."
        )
    return Split(images, labels)
