"""The convolutions of stems and blocks: what builds a network and what counts it both follow this one plan."""

from __future__ import annotations

from typing import NamedTuple

from keras_resnet.errors import InputError
from keras_resnet.records import check_choice
from keras_resnet.specs.dialect import TORCHVISION, Dialect

EXPANSIONS = {"basic": 1, "bottleneck": 4}  # block -> output channels per filter
STEM_STRIDES = {"imagenet": 4, "deep": 4, "cifar": 1, "none": 1}
POOLED_STEMS = ("imagenet", "deep")  # end in a 3x3 max pool at stride 2
SHORTCUTS = ("A", "B", "C", "D", "none")
_BLOCKS, _STEMS = tuple(EXPANSIONS), tuple(STEM_STRIDES)  # unlike in a dict, anything can be looked up in a tuple


class Conv(NamedTuple):
    """One convolution; with several kernel sizes as many side by side, joined along the channels."""

    filters: int
    kernel_sizes: tuple[int, ...] = (3,)
    stride: int = 1
    dilation: int = 1
    groups: int = 1


def inner_width(filters: int, width_per_group: int = 64, groups: int = 1) -> int:
    """`filters * width_per_group // 64 * groups`: channels between the 1x1 convolutions of a bottleneck.

    One line for ResNet (64, 1), wide ResNet-50-2 (128, 1) and ResNeXt 32x4d (4, 32).
    """
    return filters * width_per_group // 64 * groups


def split_filters(filters: int, parts: int) -> tuple[int, ...]:
    """Divides `filters` into `parts` that differ by at most one, the larger first."""
    return tuple(filters // parts + (index < filters % parts) for index in range(parts))


def se_width(channels: int, se_ratio: float) -> int:
    """`max(1, round(channels * se_ratio))`: width of the bottleneck of squeeze-and-excitation."""
    return max(1, round(channels * se_ratio))


def check_stem(kind: str, filters: int) -> None:
    """Raises InputError for another kind of stem, or a deep one of less than 2 filters."""
    if kind not in _STEMS:
        check_choice("stem", kind, _STEMS)
    if kind == "deep" and filters < 2:
        raise InputError(
            "The deep stem's first convolutions have stem_filters // 2 filters, so stem_filters must be at least 2. "
            f"Received: {filters}."
        )


def plan_stem(kind: str, filters: int) -> tuple[Conv, ...]:
    """`stem_convs` of arguments that `check_stem` has passed."""
    if kind == "cifar":
        return (Conv(filters),)
    if kind == "imagenet":
        return (Conv(filters, (7,), 2),)
    if kind == "deep":
        return Conv(filters // 2, stride=2), Conv(filters // 2), Conv(filters)
    return ()


def stem_convs(kind: str, filters: int) -> tuple[Conv, ...]:
    """The convolutions of a stem: 7x7/2; "deep": 3x3/2 and two 3x3, the first ones half as wide; "cifar": 3x3.

    Raises:
        InputError: another kind, or a deep stem of less than 2 filters.
    """
    check_stem(kind, filters)
    return plan_stem(kind, filters)


def check_branch(
    block: str,
    filters: int,
    kernel_sizes: tuple[int, ...],
    groups: int,
    width_per_group: int,
    dialect: Dialect,
) -> None:
    """Raises the errors of `branch_convs`."""
    if block not in _BLOCKS:
        check_choice("block", block, _BLOCKS)
    if not isinstance(dialect, Dialect):
        raise InputError(f"dialect must be a Dialect, for example get_dialect('torchvision'). Received: {dialect!r}.")
    if block == "basic":
        for field, value, only in (("width_per_group", width_per_group, 64), ("groups", groups, 1)):
            if value != only:
                raise InputError(
                    f"A basic block has no inner width, so {field} must be {only}; change filters, or use the "
                    f"bottleneck. Received: {value}."
                )
        _check_shares(filters, kernel_sizes, 1)
        return
    inner = inner_width(filters, width_per_group, groups)
    if inner < groups:
        raise InputError(
            "The inner width filters * width_per_group // 64 * groups must be at least groups. Received: "
            f"filters={filters}, width_per_group={width_per_group}, groups={groups}, which gives {inner}; "
            f"width_per_group must be at least {-(-64 // filters)}."
        )
    _check_shares(inner, kernel_sizes, groups)


def plan_branch(
    block: str,
    filters: int,
    stride: int,
    first_dilation: int,
    dilation: int,
    kernel_sizes: tuple[int, ...],
    groups: int,
    width_per_group: int,
    dialect: Dialect,
) -> tuple[Conv, ...]:
    """`branch_convs` of arguments that `check_branch` has passed, as those of every `ResNetSpec` have."""
    if block == "basic":
        return Conv(filters, kernel_sizes, stride, first_dilation), Conv(filters, kernel_sizes, 1, dilation)
    inner, outer = inner_width(filters, width_per_group, groups), EXPANSIONS["bottleneck"] * filters
    if dialect.bottleneck_stride == "1x1":
        return Conv(inner, (1,), stride), Conv(inner, kernel_sizes, 1, dilation, groups), Conv(outer, (1,))
    return Conv(inner, (1,)), Conv(inner, kernel_sizes, stride, first_dilation, groups), Conv(outer, (1,))


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

    Raises:
        InputError: another block, a width that comes out below the number of groups, groups or kernel sizes that
            do not share the channels, groups or a width per group for a basic block.
    """
    check_branch(block, filters, kernel_sizes, groups, width_per_group, dialect)
    return plan_branch(block, filters, stride, first_dilation, dilation, kernel_sizes, groups, width_per_group, dialect)


def _check_shares(channels: int, kernel_sizes: tuple[int, ...], groups: int) -> None:
    if not kernel_sizes or any(size % 2 == 0 for size in kernel_sizes) or len(set(kernel_sizes)) != len(kernel_sizes):
        raise InputError(f"kernel_sizes must be different odd integers, at least one. Received: {kernel_sizes!r}.")
    shares = split_filters(channels, len(kernel_sizes))
    if any(share < 1 or share % groups for share in shares):
        raise InputError(
            f"Convolutions side by side share the {channels} channels of a block, so each must get at least 1, "
            f"divisible by groups. Received: {len(kernel_sizes)} kernel sizes, groups={groups}, which gives {shares}."
        )


def needs_projection(kind: str, channels: int, filters: int, stride: int, dialect: Dialect) -> bool:
    """Whether a shortcut of this kind from `channels` to `filters` holds a convolution."""
    if kind == "C":
        return True
    changes = channels != filters or (stride > 1 and dialect.stride_block == "first")
    return kind in ("B", "D") and changes
