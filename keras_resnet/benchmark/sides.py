"""What every side of a benchmark is to the process that runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Side(NamedTuple):
    """What a side can do; each returns when its result is there."""

    first: Callable[[], object]  # the first step, with all that has to be traced or compiled
    run: Callable[[int], object]  # so many further steps
    device: str  # "cpu" or "gpu"


class Unavailable(Exception):
    """This side cannot be measured here; the message says why."""
