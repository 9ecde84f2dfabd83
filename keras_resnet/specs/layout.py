"""Where every convolution of a network is: what builds it and what counts it both follow this one plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from keras_resnet.specs.dialect import TORCHVISION, Dialect
from keras_resnet.specs.spec import EXPANSIONS, STEM_STRIDES, ResNetSpec, inner_width


@dataclass(frozen=True)
class Conv:
    """One convolution; with several kernel sizes as many side by side, joined along the channels."""

    filters: int
    kernel_sizes: tuple[int, ...] = (3,)
    stride: int = 1
    dilation: int = 1
    groups: int = 1


@dataclass(frozen=True)
class Placement:
    """One block of a network and where it stands."""

    name: str  # "stage{s}_block{b}", counted from 1
    filters: int
    stride: int
    first_dilation: int  # of the grid that comes in
    dilation: int  # of the grid that goes out: larger where this block's stride became a dilation
    stochastic_depth: float


def stem_convs(kind: str, filters: int) -> tuple[Conv, ...]:
    """The convolutions of a stem: 7x7/2; "deep": 3x3/2 and two 3x3, the first ones half as wide; "cifar": 3x3."""
    if kind == "deep":
        return Conv(filters // 2, stride=2), Conv(filters // 2), Conv(filters)
    return {"imagenet": (Conv(filters, (7,), stride=2),), "cifar": (Conv(filters),), "none": ()}[kind]


def branch_convs(
    block: str,
    filters: int,
    *,
    stride: int = 1,
    first_dilation: int = 1,
    dilation: int = 1,
    kernel_sizes: tuple[int, ...] = (3,),
    groups: int = 1,
    width_per_group: int = 64,
    dialect: Dialect = TORCHVISION,
) -> tuple[Conv, ...]:
    """The convolutions of a block's branch, first to last.

    What sees the incoming grid is dilated by `first_dilation`, what comes after the stride by `dilation`, so that a
    dilated network computes at every stride-th pixel what the strided one computes (but for shortcut D, whose pool
    goes with the stride, and for uneven padding).
    """
    if block == "basic":
        return (
            Conv(filters, kernel_sizes, stride, first_dilation),
            Conv(filters, kernel_sizes, 1, dilation),
        )
    inner, outer = inner_width(filters, width_per_group, groups), EXPANSIONS["bottleneck"] * filters
    if dialect.bottleneck_stride == "1x1":
        return Conv(inner, (1,), stride), Conv(inner, kernel_sizes, 1, dilation, groups), Conv(outer, (1,))
    return Conv(inner, (1,)), Conv(inner, kernel_sizes, stride, first_dilation, groups), Conv(outer, (1,))


def needs_projection(kind: str, channels: int, filters: int, stride: int, dialect: Dialect) -> bool:
    """Whether a shortcut of this kind from `channels` to `filters` holds a convolution."""
    if kind == "C":
        return True
    changes = channels != filters or (stride > 1 and dialect.stride_block == "first")
    return kind in ("B", "D") and changes


def se_width(channels: int, se_ratio: float) -> int:
    """`max(1, round(channels * se_ratio))`: width of the bottleneck of squeeze-and-excitation."""
    return max(1, round(channels * se_ratio))


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
