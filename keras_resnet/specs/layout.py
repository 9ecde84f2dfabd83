"""The blocks of a network, from its spec: names, strides, dilations, chances to be left out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from keras_resnet.names import block_name, stage_name
from keras_resnet.specs.block import OPTIONS, Block
from keras_resnet.specs.spec import ResNetSpec
from keras_resnet.specs.stem import STEM_STRIDES


def iter_runs(spec: ResNetSpec) -> Iterator[tuple[Block, int]]:
    """Yields (block, how many equal ones follow each other, itself included), in the order of a forward pass.

    Those of one run have the same input, convolutions and output shape. The one block that stands for all of them is called
    by their stage and has the `stochastic_depth` of the spec; `iter_stages` gives each its own. The first block of a stage,
    which may see other channels than the rest, is a run of its own, as is the one with the stride.

    Once the strides so far reach the output stride, each further one becomes a dilation (Chen et al. 2017,
    arXiv:1706.05587).
    """
    values = vars(spec)
    fields = {name: values[name] for name in OPTIONS}
    fields["kind"], limit = spec.block, spec.output_stride
    stage, reduction, dilation = 0, STEM_STRIDES[spec.stem], 1
    strided_first = spec.dialect.stride_block == "first"
    for depth, filters, stage_stride in zip(spec.depths, spec.filters, spec.strides, strict=True):
        stage += 1
        fields["name"], fields["filters"] = stage_name(stage), filters
        if strided_first or depth == 1:
            parts: tuple[tuple[int, int], ...] = ((1, stage_stride), (depth - 1, 1))
        else:
            parts = ((1, 1), (depth - 2, 1), (1, stage_stride))
        for times, stride in parts:
            if not times:
                continue
            first_dilation = dilation
            if limit is not None and reduction * stride > limit:
                dilation *= stride
                stride = 1
            reduction *= stride
            fields["stride"], fields["dilations"] = stride, (first_dilation, dilation)
            yield Block.of_checked(fields), times


def iter_stages(spec: ResNetSpec) -> Iterator[tuple[str, list[Block]]]:
    """Yields ("stage1", its blocks), ("stage2", its blocks), ...; strides and dilations as in `iter_runs`.

    Block `l` of `L` is left out with `stochastic_depth * l / L` (Huang et al. 2016).
    """
    rate, total, number = spec.stochastic_depth, sum(spec.depths), 0
    runs = iter_runs(spec)
    for stage, depth in enumerate(spec.depths, start=1):
        blocks: list[Block] = []
        while len(blocks) < depth:
            block, times = next(runs)
            for _ in range(times):
                number += 1
                own = {"name": block_name(stage, len(blocks) + 1), "stochastic_depth": rate * number / total}
                blocks.append(Block.of_checked({**vars(block), **own}))
        yield stage_name(stage), blocks


def iter_blocks(spec: ResNetSpec) -> Iterator[Block]:
    """Yields every block of a network; strides and dilations as in `iter_runs`."""
    return itertools.chain.from_iterable(blocks for _, blocks in iter_stages(spec))
