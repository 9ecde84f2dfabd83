"""TensorFlow Datasets: any image classification set by its name, from prepared files or downloaded."""

from __future__ import annotations

import logging
import os
import re
import socket
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlparse

import numpy as np

from keras_resnet.data.splits import ImageData, Split
from keras_resnet.errors import InputError, suggest

# Sets are held in memory; one that would take more than this is refused before anything is read.
MEMORY_LIMIT_BYTES = 8 * 2**30
_READ_BATCH = 1024

log = logging.getLogger(__name__)


def load_tfds(
    name: str, data_dir: str | os.PathLike[str] | None, *, split: Callable[[Split], tuple[Split, Split]]
) -> ImageData:
    """Reads a prepared TFDS set into memory, preparing it first where there is a network.

    Images of one small fixed shape become an array of pixels; others stay encoded, and are decoded when needed.

    Raises:
        InputError: unknown name (the nearest), not an image classification set, too large for memory, or not
            prepared and no network (which folder was looked in and how to prepare it there).
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
    return _read(builder, name, image, label, split)


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


def _read(builder: Any, name: str, image: str, label: str, split: Callable[[Split], tuple[Split, Split]]) -> ImageData:
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
    if size > MEMORY_LIMIT_BYTES:
        raise InputError(
            f"{name!r} takes {size / 2**30:.1f} GiB in memory; the limit is {MEMORY_LIMIT_BYTES / 2**30:.0f} GiB. "
            "Write it out as an image folder (train/CLASS/*.jpg, test/CLASS/*.jpg), which is read from disk."
        )
    read = [_read_split(builder, part, image, label, fixed) for part in parts]
    train, test = read if test_name is not None else split(read[0])
    return ImageData(
        name,
        f"tfds {builder.name} {builder.version}",
        train,
        test,
        tuple(info.features[label].names),
        shape[-1] or 3,
        shape[:2] if fixed else None,
    )


def _read_split(builder: Any, part: str, image: str, label: str, fixed: bool) -> Split:
    import tensorflow_datasets as tfds
    from tqdm import tqdm

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
    with tqdm(total=number, desc=f"reading {builder.name} {part}", unit=" images", leave=False, disable=None) as bar:
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
