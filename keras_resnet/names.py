"""The grammar of layer names, which checkpoints map by, written and read in this one place.

A layer is called `{place}_{part}{index}`: `stem_conv`, `stage1_block2_conv3`, `head_pool`. The place is "stem", "head" or
a block, stages and blocks counted from 1. The index counts the convolutions of one place and what belongs to each; of
several kernels side by side each has its size behind it: `stage1_block1_conv2_k5`.

Parts of a stem are pad, conv, bn, relu, pool_pad, pool, pool_stride; of a block pad, conv, join, bn, relu, dropout,
se_pool, se_reduce, se_expand, se_scale, drop, shortcut_pool, shortcut_pad, shortcut_conv, shortcut_bn, add, out; of a head
bn, relu, pool, dropout, logits, probabilities. A block function of the user's may have others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

INPUT = "images"
STEM, HEAD = "stem", "head"
HEAD_POOL = "head_pool"
HEAD_DENSE = "head_logits"
HEAD_ACTIVATION = "head_probabilities"

_LAYER = re.compile(r"(?:(stem|head)|(stage[1-9]\d*)_block([1-9]\d*))_(.+?)([1-9]\d*)?(?:_k([1-9]\d*))?", re.ASCII)


@dataclass(frozen=True)
class LayerName:
    """A layer's name in its parts; `str()` puts them together again."""

    section: str  # "stem", "stage1", ..., "head"
    block: int | None  # within its stage, counted from 1; None in stem and head
    part: str  # "conv", "bn", "shortcut_conv", "se_reduce", ...
    index: int | None = None
    kernel_size: int | None = None  # where several kernels run side by side

    @property
    def stage(self) -> int:
        """The number of the stage that the layer's block is in."""
        return int(self.section.removeprefix("stage"))

    @property
    def place(self) -> str:
        """What all layers of the block, the stem or the head have in front: "stage1_block2", "stem", "head"."""
        return self.section if self.block is None else block_name(self.stage, self.block)

    def __str__(self) -> str:
        return layer_name(self.place, self.part, self.index, self.kernel_size)


def stage_name(stage: int) -> str:
    """`stage{stage}`."""
    return f"stage{stage}"


def block_name(stage: int, block: int) -> str:
    """`stage{stage}_block{block}`, both counted from 1."""
    return f"stage{stage}_block{block}"


def layer_name(place: str, part: str, index: int | None = None, kernel_size: int | None = None) -> str:
    """`{place}_{part}{index}`, with `_k{kernel_size}` behind it where one is given."""
    number = "" if index is None else index
    return f"{place}_{part}{number}" + ("" if kernel_size is None else f"_k{kernel_size}")


def read_layer(name: str) -> LayerName | None:
    """Takes a layer's name apart; None where it is not written by this grammar, as the input's is not."""
    match = _LAYER.fullmatch(name)
    if not match:
        return None
    end, stage, block, part, index, kernel_size = match.groups()
    return LayerName(end or stage, _number(block), part, _number(index), _number(kernel_size))


def _number(digits: str | None) -> int | None:
    return int(digits) if digits else None
