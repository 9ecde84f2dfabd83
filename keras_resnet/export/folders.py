"""`path/name/version/`, the folders that TensorFlow Serving (and OpenVINO's and NVIDIA's servers) look for."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from keras_resnet.errors import InputError, SaveError
from keras_resnet.export.formats import FORMATS
from keras_resnet.export.record import EXPORT_FILE, ExportRecord
from keras_resnet.folders import NewFolders

LABELS_FILE = "labels.txt"
_PARTIAL = ".partial-"  # servers look only at folders whose name is a number


class NewVersion:
    """A version in the making: what is written into `partial` becomes `path` when it is `published`.

    Args:
        folder: of the model, over its versions.
        version: asked for; None for the one after the highest.
        format: of all versions in `folder`.
    """

    def __init__(self, folder: Path, version: int | None, format: str) -> None:
        self.folder = folder
        self.format = format
        self._asked = version
        self.version = self._choose()
        self.partial = folder / f"{_PARTIAL}{uuid.uuid4().hex}"
        self._record: ExportRecord | None = None
        self._new_folders = NewFolders(folder)

    @property
    def name(self) -> str:
        """The name by which a server knows the model."""
        return self.folder.name

    @property
    def path(self) -> Path:
        """The folder of the finished version."""
        return self.folder / str(self.version)

    def _choose(self) -> int:
        """The version asked for if it is free, else the one after the highest."""
        try:
            children = list(self.folder.iterdir()) if self.folder.exists() else []
        except OSError as error:
            raise SaveError(f"{self.folder} cannot be looked at: {error}") from error
        taken = {int(child.name): child for child in children if child.name.isdecimal()}
        for folder in taken.values():
            others = [
                name for name, format in FORMATS.items() if name != self.format and (folder / format.file).exists()
            ]
            if others:
                raise InputError(
                    f"All versions of a model must have one format, or its server cannot load them. Received: "
                    f"{self.format} for {self.folder}, where {folder.name} is {others[0]}. Choose another name or folder."
                )
        if self._asked is None:
            return max(taken, default=0) + 1
        if self._asked in taken:
            raise InputError(
                f"An existing version is never changed. Received: version {self._asked}, which {self.folder} already has; "
                f"the next is {max(taken) + 1}."
            )
        return self._asked

    def open(self) -> None:
        """Makes the partial folder."""
        self._new_folders.make()
        self.partial.mkdir()

    def write_record(self, record: ExportRecord) -> None:
        """Writes `export.json`."""
        self._record = record
        (self.partial / EXPORT_FILE).write_text(json.dumps(record.to_dict(), indent=2) + "\n", "utf-8")

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
                    self.write_record(dataclasses.replace(self._record, version=self.version))

    def discard(self) -> None:
        """Removes what was not published, and the folders made for it."""
        shutil.rmtree(self.partial, ignore_errors=True)
        self._new_folders.remove_if_empty()


@contextlib.contextmanager
def new_version(folder: Path, version: int | None = None, format: str = "saved_model") -> Iterator[NewVersion]:
    """Yields a new version, published if the block ends well; whatever else ends it, nothing is left.

    Raises:
        InputError: a version that exists, or one number among those of another format.
        SaveError: no permission, a full disk, ...
    """
    import tensorflow as tf

    new = NewVersion(folder, version, format)
    try:
        new.open()
        yield new
        new.publish()
    except (OSError, tf.errors.OpError) as error:
        raise SaveError(f"{new.path} could not be written: {error}. Nothing of it is left.") from error
    finally:
        new.discard()
