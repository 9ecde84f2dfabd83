"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from keras_resnet.errors import SaveError

PARTIAL = "partial-"  # prefix of a file that is still being written


def write_beside(path: str | os.PathLike[str], writer: Callable[[Path], object], *, hint: str = "") -> None:
    """Has `writer` write a file beside `path`, then renames it; an older `path` survives any failure.

    Args:
        path: the file to be.
        writer: called with the path to write.
        hint: ends the error's message.

    Raises:
        SaveError: the disk is full, the folder not writable, ...
    """
    target = Path(path)
    partial = target.with_name(f"{PARTIAL}{target.name}")
    try:
        writer(partial)
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
    except Exception as error:  # h5py and zipfile have errors of their own for a full disk
        partial.unlink(missing_ok=True)
        raise SaveError(f"{target} could not be written: {error}.{f' {hint}' if hint else ''}") from error
