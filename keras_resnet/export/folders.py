"""`path/name/version/`, the folders that TensorFlow Serving (and OpenVINO's and NVIDIA's servers) look for."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_resnet.errors import InputError, SaveError
from keras_resnet.records import is_count

EXPORT_FILE = "export.json"
LABELS_FILE = "labels.txt"
# The file by which a server knows a version, by format.
MODEL_FILES = {
    "saved_model": "saved_model.pb",
    "onnx": "model.onnx",
    "litert": "model.tflite",
    "openvino": "model.xml",
}
_PARTIAL = ".partial-"  # servers look only at folders whose name is a number


class NewVersion:
    """A version in the making: what is written into `partial` becomes `path` when it is `published`."""

    def __init__(self, path: str | os.PathLike[str], name: str, version: int | None, format: str) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][\w.\-]*", name):
            raise InputError(
                f"The name of an exported model must be made of letters, digits and _ - . Received: {name!r}."
            )
        if version is not None and not is_count(version):
            raise InputError(f"version must be a whole number of at least 1. Received: {version!r}.")
        self.name = name
        self.format = format
        self._root = Path(path) / name
        self._asked = None if version is None else int(version)
        self.version = self._choose()
        self.partial = self._root / f"{_PARTIAL}{uuid.uuid4().hex}"
        self._record: dict[str, Any] | None = None
        self._made: list[Path] = []  # folders that were not there before, the innermost first

    @property
    def path(self) -> Path:
        """The folder of the finished version."""
        return self._root / str(self.version)

    def _choose(self) -> int:
        """The version asked for if it is free, else the one after the highest."""
        try:
            children = list(self._root.iterdir()) if self._root.exists() else []
        except OSError as error:
            raise SaveError(f"{self._root} cannot be looked at: {error}") from error
        taken = {int(child.name): child for child in children if child.name.isdecimal()}
        for folder in taken.values():
            others = [kind for kind, file in MODEL_FILES.items() if kind != self.format and (folder / file).exists()]
            if others:
                raise InputError(
                    f"All versions of a model must have one format, or its server cannot load them. Received: "
                    f"{self.format} for {self._root}, where {folder.name} is {others[0]}. Choose another name or folder."
                )
        if self._asked is None:
            return max(taken, default=0) + 1
        if self._asked in taken:
            raise InputError(
                f"An existing version is never changed. Received: version {self._asked}, which {self._root} already has; "
                f"the next is {max(taken) + 1}."
            )
        return self._asked

    def open(self) -> None:
        """Makes the partial folder."""
        self._made = [folder for folder in (self._root, *self._root.parents) if not folder.exists()]
        self.partial.mkdir(parents=True)

    def write_record(self, record: dict[str, Any]) -> None:
        """Writes `export.json`: what this is and what was verified."""
        self._record = record
        text = json.dumps({"format": self.format, "name": self.name, "version": self.version, **record}, indent=2)
        (self.partial / EXPORT_FILE).write_text(text + "\n", "utf-8")

    def publish(self) -> None:
        """Renames the partial folder, in one step, to the version; to the next one if another process was faster."""
        for file in self.partial.rglob("*"):
            if file.is_file():
                with open(file, "rb+") as stream:
                    os.fsync(stream.fileno())
        while True:
            try:
                if self.path.exists():
                    raise FileExistsError(f"{self.path} exists")
                os.rename(self.partial, self.path)
                return
            except OSError:
                if not self.path.exists():
                    raise
                self.version = self._choose()
                if self._record is not None:
                    self.write_record(self._record)

    def discard(self) -> None:
        """Removes what was not published, and the folders made for it."""
        shutil.rmtree(self.partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            for folder in self._made:  # until one in which something is
                folder.rmdir()


@contextlib.contextmanager
def new_version(
    path: str | os.PathLike[str], name: str, version: int | None = None, format: str = "saved_model"
) -> Iterator[NewVersion]:
    """Yields a new version, published if the block ends well; whatever else ends it, nothing is left.

    Raises:
        InputError: a version that exists, or one number among those of another format.
        SaveError: no permission, a full disk, ...
    """
    import tensorflow as tf

    new = NewVersion(path, name, version, format)
    try:
        new.open()
        yield new
        new.publish()
    except (OSError, tf.errors.OpError) as error:
        raise SaveError(f"{new.path} could not be written: {error}. Nothing of it is left.") from error
    finally:
        new.discard()
