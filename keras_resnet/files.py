"""Files that are whole or not there."""

from __future__ import annotations

import csv
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from keras_resnet.errors import SaveError

PARTIAL = "partial-"  # prefix of a file that is still being written


def write_beside(
    path: str | os.PathLike[str], writer: Callable[[Path], object], *, hint: str = "", shared: bool = False
) -> None:
    """Has `writer` write a file beside `path`, then renames it; an older `path` survives any failure.

    Args:
        path: the file to be.
        writer: called with the path to write.
        hint: ends the error's message.
        shared: whether other processes or threads may be writing the same file at this moment: each then writes one of
            its own, and the last to finish wins. What is left of one that was killed has a name that nobody writes again.

    Raises:
        SaveError: the disk is full, the folder not writable, ...
    """
    target = Path(path)
    own = f"{os.getpid()}-{secrets.token_hex(4)}-" if shared else ""
    partial = target.with_name(f"{PARTIAL}{own}{target.name}")
    try:
        writer(partial)
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if not isinstance(error, Exception):  # Ctrl-C and the like are not about the file
            raise
        # h5py and zipfile have errors of their own for a full disk.
        raise SaveError(f"{target} could not be written: {error}.{f' {hint}' if hint else ''}") from error


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raises SaveError unless `write_beside` could write `path`: before long work whose result it is to hold."""
    target = Path(path)
    if target.is_dir():
        raise SaveError(f"{target} could not be written: it is a folder.")
    probe = target.with_name(f"{PARTIAL}{target.name}")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SaveError(f"{target} could not be written: {error}.") from error


def dump_csv(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    """Writes `rows`, all with the keys of the first, under a header."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def make_slug(name: str) -> str:
    """The last part of a name or path, as a part of a file's name."""
    return "".join(c if c.isalnum() else "_" for c in os.path.basename(os.path.normpath(name)))
