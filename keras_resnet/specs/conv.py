"""`Conv`: one convolution, by which blocks and stems say what they are made of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

POINT = (1,)  # the kernel sizes of a 1x1 convolution


class Conv(NamedTuple):
    """One convolution; with several kernel sizes as many side by side, joined along the channels."""

    filters: int
    kernel_sizes: tuple[int, ...] = (3,)
    stride: int = 1
    dilation: int = 1
    groups: int = 1

    @property
    def shares(self) -> tuple[tuple[int, int], ...]:
        """(kernel size, filters) of those side by side; filters differ by at most one, the larger come first."""
        parts = len(self.kernel_sizes)
        share, more = divmod(self.filters, parts)
        return tuple([(size, share + (index < more)) for index, size in enumerate(self.kernel_sizes)])


# A `Conv` of a tuple of its five fields, in half the time that its own constructor takes: a search makes them by the million.
make_conv: Callable[[tuple[Any, ...]], Conv] = functools.partial(tuple.__new__, Conv)
