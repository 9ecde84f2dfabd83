"""Decoded images on disk: a set is decoded once on a machine, then mapped into memory by every process."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.files import write_beside

CACHE_VARIABLE = "KERAS_RESNET_CACHE"  # a folder; empty for no cache
_MAGIC = b"keras_resnet cache 1\n"
_ALIGNMENT = 4096  # of the arrays in the file: pages of the memory map
_CHUNK = 2**24

log = logging.getLogger(__name__)


def cache_folder() -> Path | None:
    """Returns `KERAS_RESNET_CACHE`, else `keras_resnet/` in XDG_CACHE_HOME or ~/.cache; None where the variable is empty."""
    named = os.environ.get(CACHE_VARIABLE)
    if named is not None:
        return Path(named).expanduser() if named else None
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "keras_resnet"


def load_or_make(name: str, key: Mapping[str, Any], make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns `make()`, or what an earlier `make()` of the same key returned, mapped from disk.

    Two processes may make it at once. A file carries its key and a checksum: one that is broken or another's is made
    anew. Where the folder cannot be written there is no cache.

    Args:
        name: how the file's name begins.
        key: JSON values; another key is another file.
        make: returns the arrays, none of them of objects.

    Returns:
        The arrays. Mapped ones are private: writing into them changes no file.
    """
    folder = cache_folder()
    if folder is None:
        return make()
    identity = json.dumps(key, sort_keys=True)
    path = folder / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.arrays"
    found = _read(path, identity)
    if found is not None:
        return found
    arrays = make()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_beside(path, lambda partial: _write(partial, identity, arrays), shared=True)
    except OSError as error:  # SaveError is one
        log.warning("the decoded images are not kept: %s; %s names another folder", error, CACHE_VARIABLE)
        return arrays
    # The mapped file in place of what was decoded: its memory is shared between processes and can be given back.
    return _read(path, identity) or arrays


def _write(path: Path, identity: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays after a header that says where each is."""
    entries: list[dict[str, Any]] = []
    position, checksum = 0, 0
    for key, array in arrays.items():
        entries.append({"name": key, "dtype": array.dtype.str, "shape": array.shape, "offset": position})
        position += _align(array.nbytes)
        for chunk in _chunks(array):
            checksum = zlib.crc32(chunk, checksum)
    header = json.dumps({"key": identity, "arrays": entries, "checksum": checksum}).encode()
    with open(path, "xb") as file:
        start = _align(file.write(_MAGIC + b"%019d\n" % len(header) + header))
        for entry, array in zip(entries, arrays.values(), strict=True):
            file.seek(start + entry["offset"])
            for chunk in _chunks(array):
                file.write(chunk)
        file.truncate(start + position)


def _read(path: Path, identity: str) -> dict[str, np.ndarray] | None:
    """Maps the arrays of a file into memory; None unless the file is there, whole and of this key."""
    try:
        with open(path, "rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise ValueError("it is no cache of this version")
            size = int(file.read(20))
            header = json.loads(file.read(size))
            if header["key"] != identity:
                raise ValueError("it holds another set")
        start = _align(len(_MAGIC) + 20 + size)
        arrays: dict[str, np.ndarray] = {}
        checksum = 0
        for entry in header["arrays"]:
            shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
            # A file that is too short is refused here; mode "c" keeps what is written to the arrays out of the file.
            array = np.memmap(path, dtype, "c", start + entry["offset"], shape)
            for chunk in _chunks(array):
                checksum = zlib.crc32(chunk, checksum)
            arrays[entry["name"]] = array
        if checksum != header["checksum"]:
            raise ValueError("its checksum is wrong")
        return arrays
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the cache %s cannot be used and is made anew: %s", path, error)
        return None


def _align(size: int) -> int:
    """Returns the next multiple of the alignment."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _chunks(array: np.ndarray) -> Iterator[memoryview]:
    """Yields the array's bytes, a few megabytes at a time."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return (flat[start : start + _CHUNK] for start in range(0, len(flat), _CHUNK))
