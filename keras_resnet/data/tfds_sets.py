"""TensorFlow Datasets' builders: found by name, prepared first where there is a network, and what a set must have."""

from __future__ import annotations

import logging
import os
import re
import socket
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlparse

import numpy as np

from keras_resnet.errors import InputError, suggest
from keras_resnet.inputs import DataSource

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedSet:
    """A TFDS image classification set on disk, and the names of its two features."""

    builder: Any  # TFDS' own
    image: str
    label: str

    @property
    def name(self) -> str:
        """TFDS' name without version and configuration, for messages."""
        return self.builder.name

    @property
    def parts(self) -> list[str]:
        """Returns the names of the splits for training and, if there is one, for the test."""
        splits = self.builder.info.splits
        if "train" not in splits:
            raise InputError(f"{self.name!r} must have a 'train' split. Received: {', '.join(splits)}.")
        return ["train", *[part for part in ("test", "validation") if part in splits][:1]]

    @property
    def image_shape(self) -> Any:
        """(height, width, channels), each an integer, or None where images differ."""
        return self.builder.info.features[self.image].shape

    @property
    def fixed(self) -> bool:
        """Tells whether all images have one shape."""
        return None not in self.image_shape

    @property
    def is_tfrecord(self) -> bool:
        """Tells whether the set is in TFRecord files."""
        return self.builder.info.file_format.value == "tfrecord"

    def count_bytes(self) -> int:
        """Returns what the images take in memory: as pixels where all have one shape, as files otherwise."""
        splits = [self.builder.info.splits[part] for part in self.parts]
        if self.fixed:
            return sum(split.num_examples for split in splits) * int(np.prod(self.image_shape))
        return sum(split.num_bytes for split in splits)

    def cache_name(self, part: str) -> str:
        """Returns what the name of the cached copy of a split begins with."""
        return "-".join((re.sub("[^A-Za-z0-9_.]", "_", self.builder.info.full_name), part))

    def cache_key(self, part: str) -> dict[str, Any]:
        """Returns what a cached copy of a split depends on: the set, and the very files it was prepared into."""
        info = self.builder.info.splits[part]
        try:
            files = [os.stat(path) for path in info.filepaths]
        except OSError as error:
            raise InputError(
                f"{self.name} {part}: every record file must be there. Received: {error.filename}, which is not "
                f"({error.strerror}); copy it from where the set is whole, or delete {self.builder.data_path} and prepare "
                "the set again."
            ) from error
        return {
            "set": self.builder.info.full_name,
            "part": part,
            "features": [self.image, self.label],
            "shape": [info.num_examples, *self.image_shape],
            "files": [
                [os.path.basename(path), stat.st_size, stat.st_mtime_ns]
                for path, stat in zip(info.filepaths, files, strict=True)
            ],
        }


def open_set(source: DataSource) -> PreparedSet:
    """Finds the TFDS set `source.name`, and prepares it where that has not been done.

    Raises:
        InputError: unknown name (the nearest), not an image classification set, or not prepared and no network
            (which folder was looked in and how to prepare it there).
    """
    builder = _find_builder(source)
    image, label = _name_features(builder)
    if not builder.data_path.exists():
        _prepare(builder)
    return PreparedSet(builder, image, label)


def _find_builder(source: DataSource) -> Any:
    import tensorflow_datasets as tfds

    name = source.name
    # TFDS reads TFDS_DATA_DIR itself only once, when it is imported.
    data_dir = source.data_dir if source.data_dir is not None else os.environ.get("TFDS_DATA_DIR")
    try:
        return tfds.builder(name, data_dir=data_dir)
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


def _name_features(builder: Any) -> tuple[str, str]:
    """Returns the names of the image and of the label feature."""
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
    """Returns the first download host that has no address, or None; TFDS itself would retry for minutes."""
    if urllib.request.getproxies():  # names are looked up by the proxy then
        return None
    hosts = {urlparse(url).hostname for url in builder.url_infos} - {None}
    for host in sorted(hosts):
        try:
            socket.getaddrinfo(host, None)
        except OSError:
            return host
    return None
