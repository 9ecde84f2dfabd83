"""`ResNetSpec`: the body of one residual network, as frozen data."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from math import prod
from typing import Any, Self

from keras_resnet.errors import InputError, suggest
from keras_resnet.records import check_choice, is_count
from keras_resnet.specs.branch import EXPANSIONS, SHORTCUTS, STEM_STRIDES, check_branch, check_stem, inner_width
from keras_resnet.specs.dialect import DIALECTS, TORCHVISION, Dialect

_BLOCKS, _STEMS = (*EXPANSIONS, "custom"), tuple(STEM_STRIDES)


@dataclass(frozen=True)
class ResNetSpec:
    """The body of one residual network: stem, stages of blocks, head; everything but input and classes.

    Stage `s` has `depths[s]` blocks that output `filters[s] * expansion` channels (`expansion` is 1 for the
    basic block, 4 for the bottleneck); one of them, by default the first, has stride `strides[s]`.
    """

    name: str
    block: str  # "basic": two 3x3 convolutions; "bottleneck": 1x1, 3x3, 1x1; "custom": `build` is given a function
    depths: tuple[int, ...]  # blocks in each stage
    filters: tuple[int, ...]  # channels of each stage, before the block's expansion
    strides: tuple[int, ...]  # stride of each stage
    # "imagenet": 7x7 stride 2 and 3x3 max pool stride 2; "deep": three 3x3 for the 7x7 (ResNet-D); "cifar": one 3x3
    # at stride 1; "none": the first stage takes the input as it is.
    stem: str = "imagenet"
    stem_filters: int = 64
    rank: int = 2  # 2: images (height, width, channels); 1: sequences (steps, channels)
    kernel_sizes: tuple[int, ...] = (3,)  # of the spatial convolutions; several run side by side and are joined
    groups: int = 1  # of the 3x3 convolution of a bottleneck ("cardinality")
    width_per_group: int = 64  # width of a group at 64 filters; inner width: filters * width_per_group // 64 * groups
    # "A": where the shape changes subsample, pad channels with zeros; "B": there a 1x1 projection; "C": a projection in
    # every block; "D": as B with an average pool for the stride (ResNet-D); "none": a plain net.
    shortcut: str = "B"
    se_ratio: float = 0.0  # squeeze-and-excitation: width of its bottleneck per channel, such as 1 / 16; 0 for none
    dropout: float = 0.0  # before the dense head
    block_dropout: float = 0.0  # before the last convolution of each block (wide ResNet)
    # Chance that the last block is left out in training; falls linearly towards the first.
    stochastic_depth: float = 0.0
    zero_gamma: bool = False  # blocks start as identities: last BN scale 0 (pre-activation: last kernel 0)
    output_stride: int | None = None  # input pixels per output pixel at most: further strides become dilations
    dialect: Dialect = TORCHVISION

    def __post_init__(self) -> None:
        # A search makes specs by the hundred thousand: what is of the plain type is tested here at once, and a message is
        # put together only where something is wrong.
        name = self.name
        if not isinstance(name, str) or not name or "/" in name:
            raise InputError(f"A network's name must be a string without '/'. Received: {name!r}.")
        for field, values, each in (
            ("depths", self.depths, "stage"),
            ("filters", self.filters, "stage"),
            ("strides", self.strides, "stage"),
            ("kernel_sizes", self.kernel_sizes, "kernel"),
        ):
            counts = self._as_counts(field, values, each)
            if counts is not values:
                object.__setattr__(self, field, counts)
        for field, value in (
            ("stem_filters", self.stem_filters),
            ("rank", self.rank),
            ("groups", self.groups),
            ("width_per_group", self.width_per_group),
            ("output_stride", self.output_stride),
        ):
            if (type(value) is int and value >= 1) or (value is None and field == "output_stride"):
                continue
            if not is_count(value):
                raise InputError(f"{name}: {field} must be an integer of at least 1. Received: {value!r}.")
            object.__setattr__(self, field, operator.index(value))  # type: ignore[arg-type]  # NumPy's are no JSON
        if not self.depths or not len(self.depths) == len(self.filters) == len(self.strides):
            raise InputError(
                f"{name}: depths, filters and strides must have one entry per stage, at least one. Received: "
                f"depths={self.depths!r}, filters={self.filters!r}, strides={self.strides!r}."
            )
        for field, choice, allowed in (
            ("block", self.block, _BLOCKS),
            ("stem", self.stem, _STEMS),
            ("shortcut", self.shortcut, SHORTCUTS),
            ("rank", self.rank, (1, 2)),
            ("zero_gamma", self.zero_gamma, (True, False)),
        ):
            if choice not in allowed:
                check_choice(f"{name}: {field}", choice, allowed)
        if not isinstance(self.dialect, Dialect):
            raise InputError(
                f"{name}: dialect must be a Dialect, for example get_dialect(name) of one of "
                f"{', '.join(map(repr, DIALECTS))}. Received: {self.dialect!r}."
            )
        for field, rate in (
            ("se_ratio", self.se_ratio),
            ("dropout", self.dropout),
            ("block_dropout", self.block_dropout),
            ("stochastic_depth", self.stochastic_depth),
        ):
            number = type(rate) is float or (isinstance(rate, (int, float)) and not isinstance(rate, bool))
            if not number or not (0 <= rate < 1 or (rate == 1 and field == "se_ratio")):
                raise InputError(
                    f"{name}: {field} must be a number in [0, 1{']' if field == 'se_ratio' else ')'}. "
                    f"Received: {rate!r}."
                )
        self._check_widths()
        self._check_shortcut()
        if self.output_stride is not None:
            self._check_output_stride(self.output_stride)

    def _as_counts(self, field: str, values: object, each: str) -> tuple[int, ...]:
        """Returns `values` as a tuple of Python's integers, itself if it is one."""
        if type(values) is tuple:
            for value in values:
                if type(value) is not int or value < 1:
                    break
            else:
                return values
        if isinstance(values, (str, bytes, Set, Mapping)) or not isinstance(values, Iterable):
            raise InputError(f"{self.name}: {field} must be a tuple with one integer per {each}. Received: {values!r}.")
        values = tuple(values)  # a list (as JSON gives) would not hash
        if not all(is_count(value) for value in values):
            raise InputError(f"{self.name}: {field} must be integers of at least 1. Received: {values!r}.")
        return tuple(operator.index(value) for value in values)

    def _check_widths(self) -> None:
        try:
            check_stem(self.stem, self.stem_filters)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from None
        if self.block == "custom":
            return
        stage = 0
        try:
            for filters in self.filters:
                stage += 1
                check_branch(self.block, filters, self.kernel_sizes, self.groups, self.width_per_group, self.dialect)
        except InputError as error:
            raise InputError(f"{self.name}, stage {stage}: {error}") from None

    def _check_shortcut(self) -> None:
        if self.shortcut == "none":
            for field in ("zero_gamma", "stochastic_depth"):
                if getattr(self, field):
                    raise InputError(
                        f"{self.name}: {field} switches blocks off, which needs a shortcut: with shortcut='none' it "
                        f"must be {type(getattr(self, field))()}. Received: {getattr(self, field)!r}."
                    )
        if self.shortcut != "A" or self.block == "custom":
            return
        channels, expansion = (self.stem_filters if self.stem != "none" else 0), self.expansion
        for stage, filters in enumerate(self.filters, start=1):
            if filters * expansion < channels:
                raise InputError(
                    f"{self.name}: shortcut 'A' pads channels with zeros, so a stage must have at least as many "
                    f"channels as the one before. Received: {channels} -> {filters * expansion} channels "
                    f"at stage {stage}. Widen the stage or use shortcut='B'."
                )
            channels = filters * expansion

    def _check_output_stride(self, stride: int) -> None:
        allowed = [STEM_STRIDES[self.stem] * prod(self.strides[:stages]) for stages in range(len(self.strides) + 1)]
        allowed = sorted(set(allowed))
        if stride not in allowed:
            raise InputError(
                f"{self.name}: output_stride must be None or a stride that the stages reach, one of "
                f"{', '.join(map(str, allowed))}. Received: {stride!r}."
            )

    @property
    def expansion(self) -> int:
        """Output channels of a block per filter; 1 for a custom block, whose own matter it is."""
        return EXPANSIONS.get(self.block, 1)

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the last feature map, along one side."""
        return self.output_stride or STEM_STRIDES[self.stem] * prod(self.strides)

    def inner_width(self, filters: int) -> int:
        """Channels between the 1x1 convolutions of a bottleneck of `filters` filters."""
        return inner_width(filters, self.width_per_group, self.groups)

    def to_dict(self) -> dict[str, Any]:
        """Returns the spec as plain JSON values; `from_dict` reads them back to an equal spec."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds a spec from what `to_dict` returned; raises InputError on fields it does not know or misses."""
        fields = {field.name for field in dataclasses.fields(cls)}
        known = dict(values)
        for name in known:
            if name not in fields:
                raise InputError(
                    f"A ResNetSpec has the fields {', '.join(sorted(fields))}. Received: {name!r}."
                    + suggest(name, fields)
                )
        missing = [
            field.name
            for field in dataclasses.fields(cls)
            if field.default is dataclasses.MISSING and field.name not in known
        ]
        if missing:
            raise InputError(f"A ResNetSpec needs {', '.join(missing)}. Received: {', '.join(known) or 'nothing'}.")
        dialect = known.get("dialect")
        if isinstance(dialect, Mapping):
            for name in dialect:
                check_choice("A Dialect: its fields", name, [field.name for field in dataclasses.fields(Dialect)])
            if "name" not in dialect:
                raise InputError(f"A Dialect needs a name. Received: {dialect!r}.")
            known["dialect"] = Dialect(**dialect)
        return cls(**known)
