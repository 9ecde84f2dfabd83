"""The errors this package raises on purpose: what must hold, what was received, what is allowed."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable


class InputError(ValueError):
    """A value from outside that the package cannot use; the message says what is allowed."""


class SaveError(OSError):
    """A file could not be written; the message says what survives."""


class SearchFailed(RuntimeError):
    """A search was stopped by an error that is no trial's own, such as a bug; the message has its traceback."""


class ExportFailed(RuntimeError):
    """An exported model could not be run or does not give what the Keras model gives; nothing of it is left."""


class BenchmarkFailed(RuntimeError):
    """A process of a benchmark died; the message says which and why. What was measured of the others stands."""


def suggest(received: str, allowed: Iterable[str], *, count: int = 3) -> str:
    """Returns `" Did you mean 'a' or 'b'?"` for the names nearest to `received`, or an empty string."""
    names = {name.lower(): name for name in allowed}
    wanted = received.lower()
    longer = sorted((name for name in names if wanted and name.startswith(wanted)), key=len)
    near = [*longer, *difflib.get_close_matches(wanted, list(names), n=count, cutoff=0.5)]
    near = list(dict.fromkeys(near))[:count]
    return f" Did you mean {' or '.join(repr(names[name]) for name in near)}?" if near else ""


def check_installed(what: str, packages: Iterable[str], extra: str) -> None:
    """Raises InputError, saying what to install, where one of `packages` (by import name) is missing; `what` needs them."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise InputError(
            f"{what} needs {' and '.join(missing)}: pip install 'keras-native-resnet[{extra}]'. Received: an environment "
            "without it."
        )
