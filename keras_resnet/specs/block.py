"""`Block`: one block of a network and where it stands; and the options that a spec states once for all its blocks.

An option is added here, as a field of `BlockOptions`, and in the function of `keras_resnet.blocks` that builds it; one that
has weights is counted in `walk`, too.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from keras_resnet.errors import InputError
from keras_resnet.records import Record, check_choice, check_options, option, take_count_tuples, take_counts
from keras_resnet.specs.conv import POINT, Conv, make_conv
from keras_resnet.specs.dialect import DIALECTS, TORCHVISION, Dialect

EXPANSIONS = {"basic": 1, "bottleneck": 4}  # kind of block -> output channels per filter
KINDS = (*EXPANSIONS, "custom")
SHORTCUTS = ("A", "B", "C", "D", "none")


def se_width(channels: int, se_ratio: float) -> int:
    """`max(1, round(channels * se_ratio))`: width of the bottleneck of squeeze-and-excitation."""
    return max(1, round(channels * se_ratio))


@dataclass(frozen=True, kw_only=True, repr=False)
class BlockOptions(Record):
    """What a spec states once for all its blocks, and what each of its blocks therefore is, too."""

    kernel_sizes: tuple[int, ...] = option(
        (3,), "Of the spatial convolutions; several run side by side and are joined.", each="kernel"
    )
    groups: int = option(1, 'Of the 3x3 convolution of a bottleneck ("cardinality").', low=1)
    width_per_group: int = option(64, "Width of a group at 64 filters, of a bottleneck; see `inner_width`.", low=1)
    shortcut: str = option(
        "B",
        '"A": where the shape changes subsample, pad channels with zeros; "B": there a 1x1 projection; "C": a projection '
        'in every block; "D": as B with an average pool for the stride (ResNet-D); "none": a plain net.',
        choices=SHORTCUTS,
    )
    se_ratio: float = option(
        0.0, "Squeeze-and-excitation: width of its bottleneck per channel, such as 1 / 16; 0 for none.", most=1
    )
    block_dropout: float = option(0.0, "Rate before the last convolution of a block (wide ResNet).", high=1)
    stochastic_depth: float = option(
        0.0,
        "Chance that an example skips the branch in training; a spec states that of its last block, towards the first "
        "it falls linearly.",
        high=1,
    )
    zero_gamma: bool = option(
        False, "Blocks start as identities: the last BN has scale 0 (in pre-activation the last kernel is 0)."
    )
    dialect: Dialect = option(  # noqa: RUF009 - a field, as the others
        TORCHVISION,
        "How one library writes the block.",
        example=f"get_dialect(name) of one of {', '.join(map(repr, DIALECTS))}",
    )

    def __repr__(self) -> str:
        """The fields that are not the default, those that have none first."""
        fields = sorted(dataclasses.fields(self), key=lambda field: field.kw_only is True)
        texts = [f"{f.name}={getattr(self, f.name)!r}" for f in fields if getattr(self, f.name) != f.default]
        return f"{type(self).__name__}({', '.join(texts)})"

    def inner_width(self, filters: int) -> int:
        """`filters * width_per_group // 64 * groups`: channels between the 1x1 convolutions of a bottleneck.

        One line for ResNet (64, 1), wide ResNet-50-2 (128, 1) and ResNeXt 32x4d (4, 32).
        """
        return filters * self.width_per_group // 64 * self.groups

    def check_block_options(self) -> None:
        """Raises InputError where an option is not what it may be, or does not go with the others."""
        check_options(self)
        if self.shortcut == "none":
            for name in ("zero_gamma", "stochastic_depth"):
                value = getattr(self, name)
                if value:
                    raise InputError(
                        f"{name} switches blocks off, which needs a shortcut: with shortcut='none' it must be "
                        f"{type(value)()}. Received: {value!r}."
                    )

    def check_widths(self, kind: str, filters: int) -> None:
        """Raises InputError where the channels of a block of this kind do not come out whole."""
        if kind == "custom":
            return
        channels, groups = filters, self.groups
        if kind == "bottleneck":
            channels = self.inner_width(filters)
            if channels < groups:
                raise InputError(
                    "The inner width filters * width_per_group // 64 * groups must be at least groups. Received: "
                    f"filters={filters}, width_per_group={self.width_per_group}, groups={groups}, which gives {channels}; "
                    f"width_per_group must be at least {-(-64 // filters)}."
                )
        elif groups != 1 or self.width_per_group != 64:
            name, only = ("groups", 1) if groups != 1 else ("width_per_group", 64)
            raise InputError(
                f"A basic block has no inner width, so {name} must be {only}; change filters, or use the bottleneck. "
                f"Received: {getattr(self, name)}."
            )
        sizes = self.kernel_sizes
        if len(sizes) == 1 and sizes[0] % 2 and channels % groups == 0:
            return
        if not sizes or any(size % 2 == 0 for size in sizes) or len(set(sizes)) != len(sizes):
            raise InputError(f"kernel_sizes must be different odd integers, at least one. Received: {sizes!r}.")
        shares = tuple(share for _, share in Conv(channels, sizes).shares)
        if any(share < 1 or share % groups for share in shares):
            raise InputError(
                f"Convolutions side by side share the {channels} channels of a block, so each must get at least 1, "
                f"divisible by groups. Received: {len(sizes)} kernel sizes, groups={groups}, which gives {shares}."
            )


OPTIONS = tuple(field.name for field in dataclasses.fields(BlockOptions))


@dataclass(frozen=True, repr=False)
class Block(BlockOptions):
    """One block of a network and where it stands: what a block function builds, `block_function(x, block) -> x`.

    Raises:
        InputError: a value that is not what it may be, a width that comes out below the number of groups, groups or
            kernel sizes that do not share the channels, groups or a width per group for a basic block.
    """

    name: str  # in front of its layers' names; in a network "stage{s}_block{b}"
    kind: str  # "basic": two 3x3 convolutions; "bottleneck": 1x1, 3x3, 1x1; "custom": what a function of the user's builds
    filters: int
    stride: int = 1
    # Of the grid that comes in and of the grid that goes out: the second is larger where this block's stride became a
    # dilation.
    dilations: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or "/" in self.name:
            raise InputError(f"A block's name must be a string without '/'. Received: {self.name!r}.")
        try:
            check_choice("kind", self.kind, KINDS)
            take_counts(self, ("filters", "stride"))
            take_count_tuples(self, ("dilations",), each="grid")
            if len(self.dilations) != 2:
                raise InputError(
                    "dilations must be two, of the grid that comes in and of the one that goes out. Received: "
                    f"{self.dilations!r}."
                )
            self.check_block_options()
            self.check_widths(self.kind, self.filters)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from None

    @staticmethod
    def of_checked(fields: dict[str, Any]) -> Block:
        """The block of all these fields, which come from a spec: what that has checked is not checked again.

        A search counts networks by the hundred thousand, each of several blocks.
        """
        block = object.__new__(Block)
        object.__setattr__(block, "__dict__", fields.copy())
        return block

    @property
    def convs(self) -> tuple[Conv, ...]:
        """The convolutions of the branch, first to last.

        What sees the incoming grid is dilated by the first of `dilations`, what comes after the stride by the second, so
        that a dilated network computes at every stride-th pixel what the strided one computes (but for shortcut D, whose
        pool goes with the stride, and for uneven padding).

        Raises:
            InputError: a "custom" block, whose function alone knows them.
        """
        filters, sizes, stride, (before, after) = self.filters, self.kernel_sizes, self.stride, self.dilations
        if self.kind == "basic":
            return make_conv((filters, sizes, stride, before, 1)), make_conv((filters, sizes, 1, after, 1))
        if self.kind != "bottleneck":
            raise InputError(
                f"{self.name}: only the kinds {', '.join(map(repr, EXPANSIONS))} have convolutions that are known; those of "
                f"a block function of your own are its own matter. Received: kind={self.kind!r}."
            )
        groups = self.groups
        inner, outer = self.inner_width(filters), EXPANSIONS["bottleneck"] * filters
        last = make_conv((outer, POINT, 1, 1, 1))
        if self.dialect.bottleneck_stride == "1x1":
            return make_conv((inner, POINT, stride, 1, 1)), make_conv((inner, sizes, 1, after, groups)), last
        return make_conv((inner, POINT, 1, 1, 1)), make_conv((inner, sizes, stride, before, groups)), last

    def has_projection(self, channels: int, filters: int) -> bool:
        """Whether the shortcut from `channels` that come in to `filters` that go out holds a convolution."""
        kind = self.shortcut
        if kind in ("A", "none"):
            return False
        return kind == "C" or channels != filters or (self.stride > 1 and self.dialect.stride_block == "first")
