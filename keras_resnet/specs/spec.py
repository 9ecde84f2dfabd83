"""`ResNetSpec` and `Dialect`: everything that decides the body of a network, as frozen data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from keras_resnet.errors import InputError, suggest

EXPANSIONS = {"basic": 1, "bottleneck": 4}  # block -> output channels per filter
STEMS = ("imagenet", "cifar")
SHORTCUTS = ("A", "B")


def _check_choice(owner: str, field: str, received: object, allowed: tuple[str, ...]) -> None:
    if received not in allowed:
        raise InputError(
            f"{owner}: {field} must be one of {', '.join(map(repr, allowed))}. Received: {received!r}."
            + suggest(str(received), allowed)
        )


@dataclass(frozen=True)
class Dialect:
    """How one library writes the same network: everything that is a convention rather than architecture."""

    name: str
    bottleneck_stride: str = "3x3"  # which convolution of a bottleneck takes the stride: "1x1" (2015) or "3x3" ("v1.5")
    padding: str = "symmetric"  # "symmetric" pads k // 2 on both sides; "same" is TensorFlow's, uneven at stride 2
    conv_bias: bool = False  # BN follows and subtracts it again, but old libraries have it
    shortcut_bn: bool = True  # whether the projection of a shortcut is followed by BN
    bn_epsilon: float = 1e-5
    bn_momentum: float = 0.9  # Keras' convention: the share of the old value, 1 - PyTorch's
    # Keras' "glorot_uniform", or "he_fan_out", He et al.'s normal. BN hides a kernel's scale from the output, so a
    # smaller kernel only turns faster: 21 steps of ResNet-18 on MNIST at 112 pixels gave test accuracy 0.80 and 0.56.
    initializer: str = "glorot_uniform"

    def __post_init__(self) -> None:
        _check_choice("dialect", "bottleneck_stride", self.bottleneck_stride, ("1x1", "3x3"))
        _check_choice("dialect", "padding", self.padding, ("symmetric", "same"))
        _check_choice("dialect", "initializer", self.initializer, ("he_fan_out", "glorot_uniform"))
        if not self.bn_epsilon > 0:
            raise InputError(f"A dialect's bn_epsilon must be positive. Received: {self.bn_epsilon!r}.")
        if not 0 <= self.bn_momentum < 1:
            raise InputError(f"A dialect's bn_momentum must be in [0, 1). Received: {self.bn_momentum!r}.")


TORCHVISION = Dialect("torchvision")
# The d2l chapter and the Keras tutorial after it: Keras' own defaults everywhere.
D2L = Dialect(
    "d2l",
    padding="same",
    conv_bias=True,
    shortcut_bn=False,
    bn_epsilon=1e-3,
    bn_momentum=0.99,
)
DIALECTS = {dialect.name: dialect for dialect in (TORCHVISION, D2L)}


def get_dialect(name: str) -> Dialect:
    """Returns the dialect called `name`; raises InputError naming the known ones."""
    _check_choice("network", "dialect", name, tuple(DIALECTS))
    return DIALECTS[name]


def inner_width(filters: int, width_per_group: int) -> int:
    """`filters * width_per_group // 64`: channels between the 1x1 convolutions of a bottleneck."""
    return filters * width_per_group // 64


@dataclass(frozen=True)
class ResNetSpec:
    """The body of one residual network: stem, stages of blocks, head; everything but input and classes.

    Stage `s` has `depths[s]` blocks that output `filters[s] * expansion` channels (`expansion` is 1 for the
    basic block, 4 for the bottleneck); its first block has stride `strides[s]`.
    """

    name: str
    block: str  # "basic": two 3x3 convolutions; "bottleneck": 1x1, 3x3, 1x1
    depths: tuple[int, ...]  # blocks in each stage
    filters: tuple[int, ...]  # channels of each stage, before the block's expansion
    strides: tuple[int, ...]  # stride of each stage's first block
    stem: str = "imagenet"  # "imagenet": 7x7 stride 2 and 3x3 max pool stride 2; "cifar": one 3x3 at stride 1
    stem_filters: int = 64
    width_per_group: int = 64  # inner width of a bottleneck: filters * width_per_group // 64
    shortcut: str = "B"  # where the shape changes. "A": subsample, pad channels with zeros; "B": 1x1 projection
    zero_gamma: bool = False  # start the last BN scale of each block at 0, so that blocks start as identities
    dialect: Dialect = TORCHVISION

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or "/" in self.name:
            raise InputError(f"A network's name must be a string without '/'. Received: {self.name!r}.")
        for field in ("depths", "filters", "strides"):
            values = getattr(self, field)
            if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
                raise InputError(
                    f"{self.name}: {field} must be a tuple with one integer per stage. Received: {values!r}."
                )
            object.__setattr__(self, field, tuple(values))  # a list (as JSON gives) would not hash
            if any(
                isinstance(value, bool) or not isinstance(value, int) or value < 1 for value in getattr(self, field)
            ):
                raise InputError(f"{self.name}: {field} must be integers of at least 1. Received: {values!r}.")
        if not self.depths or not len(self.depths) == len(self.filters) == len(self.strides):
            raise InputError(
                f"{self.name}: depths, filters and strides must have one entry per stage, at least one. Received: "
                f"depths={self.depths!r}, filters={self.filters!r}, strides={self.strides!r}."
            )
        _check_choice(self.name, "block", self.block, tuple(EXPANSIONS))
        _check_choice(self.name, "stem", self.stem, STEMS)
        _check_choice(self.name, "shortcut", self.shortcut, SHORTCUTS)
        for field in ("stem_filters", "width_per_group"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{self.name}: {field} must be an integer of at least 1. Received: {value!r}.")
        if self.block == "basic" and self.width_per_group != 64:
            raise InputError(
                f"{self.name}: a basic block has no inner width, so width_per_group must be 64; change filters, or use "
                f"the bottleneck. Received: {self.width_per_group}."
            )
        if not isinstance(self.dialect, Dialect):
            raise InputError(
                f"{self.name}: dialect must be a Dialect, for example get_dialect('torchvision'). "
                f"Received: {self.dialect!r}."
            )
        for stage, filters in enumerate(self.filters, start=1):
            if self.block == "bottleneck" and self.inner_width(filters) < 1:
                raise InputError(
                    f"{self.name}: the inner width filters * width_per_group // 64 must be at least 1. Received: "
                    f"filters={filters} in stage {stage}, width_per_group={self.width_per_group}, which gives 0."
                )
        if self.shortcut == "A":
            channels = self.stem_filters
            for stage, filters in enumerate(self.filters, start=1):
                if filters * self.expansion < channels:
                    raise InputError(
                        f"{self.name}: shortcut 'A' pads channels with zeros, so a stage must have at least as many "
                        f"channels as the one before. Received: {channels} -> {filters * self.expansion} channels "
                        f"at stage {stage}. Widen the stage or use shortcut='B'."
                    )
                channels = filters * self.expansion

    @property
    def expansion(self) -> int:
        """Output channels of a block per filter."""
        return EXPANSIONS[self.block]

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the last feature map, along one side."""
        stride = 4 if self.stem == "imagenet" else 1
        for stage_stride in self.strides:
            stride *= stage_stride
        return stride

    def inner_width(self, filters: int) -> int:
        """Channels between the 1x1 convolutions of a bottleneck of `filters` filters."""
        return inner_width(filters, self.width_per_group)

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
            allowed = [field.name for field in dataclasses.fields(Dialect)]
            for name in dialect:
                _check_choice("A Dialect", "its fields", name, tuple(allowed))
            known["dialect"] = Dialect(**dialect)
        return cls(**known)
