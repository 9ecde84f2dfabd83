"""Where every block of a network stands: stride, dilations, chance to be left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from keras_resnet.specs.branch import STEM_STRIDES, Conv, plan_branch
from keras_resnet.specs.spec import ResNetSpec


@dataclass(frozen=True)
class Placement:
    """One block of a network and where it stands."""

    name: str  # "stage{s}_block{b}", counted from 1
    filters: int
    stride: int
    first_dilation: int  # of the grid that comes in
    dilation: int  # of the grid that goes out: larger where this block's stride became a dilation
    stochastic_depth: float


class Run(NamedTuple):
    """Equal blocks one after the other: same input, same convolutions, same output shape."""

    stage: int  # counted from 1
    times: int
    filters: int
    stride: int
    first_dilation: int
    dilation: int


def iter_runs(spec: ResNetSpec) -> Iterator[Run]:
    """Yields the blocks of a network with stride and dilations, equal ones that follow each other in a stage as one.

    The first block of a stage, which may see other channels than the rest, stands alone, as does the one with the stride.
    Once the strides so far reach the output stride, each further one becomes a dilation (Chen et al. 2017,
    arXiv:1706.05587).
    """
    limit = spec.output_stride
    reduction, dilation = STEM_STRIDES[spec.stem], 1
    strided_first = spec.dialect.stride_block == "first"
    stage = 0
    for depth, filters, stage_stride in zip(spec.depths, spec.filters, spec.strides, strict=True):
        stage += 1
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
            yield Run(stage, times, filters, stride, first_dilation, dilation)


def iter_blocks(spec: ResNetSpec) -> Iterator[Placement]:
    """Yields every block of a network with its stride, dilations and chance to be left out.

    Strides and dilations as in `iter_runs`. Block `l` of `L` is left out with `stochastic_depth * l / L` (Huang et al.
    2016).
    """
    total, number, stage, index = sum(spec.depths), 0, 0, 0
    for run in iter_runs(spec):
        if run.stage != stage:
            stage, index = run.stage, 0
        for _ in range(run.times):
            number, index = number + 1, index + 1
            yield Placement(
                f"stage{stage}_block{index}",
                run.filters,
                run.stride,
                run.first_dilation,
                run.dilation,
                spec.stochastic_depth * number / total,
            )


def placed_convs(spec: ResNetSpec, place: Placement | Run) -> tuple[Conv, ...]:
    """Returns the convolutions of the branch of one block of a network."""
    return plan_branch(
        spec.block,
        place.filters,
        place.stride,
        place.first_dilation,
        place.dilation,
        spec.kernel_sizes,
        spec.groups,
        spec.width_per_group,
        spec.dialect,
    )
