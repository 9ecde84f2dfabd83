"""Where every block of a network stands: stride, dilations, chance to be left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from keras_resnet.specs.branch import STEM_STRIDES, Conv, branch_convs
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


def iter_blocks(spec: ResNetSpec) -> Iterator[Placement]:
    """Yields every block of a network with its stride, dilations and chance to be left out.

    Once the strides so far reach the output stride, each further one becomes a dilation (Chen et al. 2017,
    arXiv:1706.05587). Block `l` of `L` is left out with `stochastic_depth * l / L` (Huang et al. 2016).
    """
    reduction, dilation = STEM_STRIDES[spec.stem], 1
    total, number = sum(spec.depths), 0
    for stage, (depth, filters, stage_stride) in enumerate(
        zip(spec.depths, spec.filters, spec.strides, strict=True), start=1
    ):
        strided = 1 if spec.dialect.stride_block == "first" else depth
        for index in range(1, depth + 1):
            number += 1
            stride, first_dilation = (stage_stride if index == strided else 1), dilation
            if spec.output_stride is not None and reduction * stride > spec.output_stride:
                dilation *= stride
                stride = 1
            reduction *= stride
            yield Placement(
                f"stage{stage}_block{index}",
                filters,
                stride,
                first_dilation,
                dilation,
                spec.stochastic_depth * number / total,
            )


def placed_convs(spec: ResNetSpec, place: Placement) -> tuple[Conv, ...]:
    """Returns the convolutions of the branch of one block of a network."""
    return branch_convs(
        spec.block,
        place.filters,
        stride=place.stride,
        first_dilation=place.first_dilation,
        dilation=place.dilation,
        kernel_sizes=spec.kernel_sizes,
        groups=spec.groups,
        width_per_group=spec.width_per_group,
        dialect=spec.dialect,
    )
