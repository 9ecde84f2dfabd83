"""`ResNetSpec`: the body of one residual network, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from keras_resnet.errors import InputError
from keras_resnet.records import check_choice, option, take_count_tuples
from keras_resnet.specs.block import EXPANSIONS, KINDS, BlockOptions
from keras_resnet.specs.stem import STEM_STRIDES, check_stem


@dataclass(frozen=True, repr=False)
class ResNetSpec(BlockOptions):
    """The body of one residual network: stem, stages of blocks, head; everything but input and classes.

    Stage `s` has `depths[s]` blocks that output `filters[s] * expansion` channels (`expansion` is 1 for the
    basic block, 4 for the bottleneck); one of them, by default the first, has stride `strides[s]`. What holds for all
    blocks alike are the fields of `BlockOptions`.

    Raises:
        InputError: a value that is not what it may be, values that do not go together.
    """

    name: str
    block: str  # "basic": two 3x3 convolutions; "bottleneck": 1x1, 3x3, 1x1; "custom": `build` is given a function
    depths: tuple[int, ...]  # blocks in each stage
    filters: tuple[int, ...]  # channels of each stage, before the block's expansion
    strides: tuple[int, ...]  # stride of each stage
    stem: str = option(
        "imagenet",
        '"imagenet": 7x7 stride 2 and 3x3 max pool stride 2; "deep": three 3x3 for the 7x7 (ResNet-D); "cifar": one 3x3 '
        'at stride 1; "none": the first stage takes the input as it is.',
        choices=tuple(STEM_STRIDES),
    )
    stem_filters: int = option(64, "Channels that the stem puts out.", low=1)
    rank: int = option(2, "2: images (height, width, channels); 1: sequences (steps, channels).", low=1, choices=(1, 2))
    dropout: float = option(0.0, "Rate before the dense head.", high=1)
    output_stride: int | None = option(
        None, "Input pixels per output pixel at most: further strides become dilations.", low=1
    )

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or "/" in self.name:
            raise InputError(f"A network's name must be a string without '/'. Received: {self.name!r}.")
        stage = 0
        try:
            if self.block not in KINDS:
                check_choice("block", self.block, KINDS)
            take_count_tuples(self, ("depths", "filters", "strides"), each="stage")
            if not self.depths or not len(self.depths) == len(self.filters) == len(self.strides):
                raise InputError(
                    "depths, filters and strides must have one entry per stage, at least one. Received: "
                    f"depths={self.depths!r}, filters={self.filters!r}, strides={self.strides!r}."
                )
            self.check_block_options()
            if self.stem == "deep":
                check_stem(self.stem, self.stem_filters)
            if self.shortcut == "A" and self.block != "custom":
                self._check_shortcut_a()
            if self.output_stride is not None:
                self._check_output_stride(self.output_stride)
            for filters in self.filters:
                stage += 1
                self.check_widths(self.block, filters)
        except InputError as error:
            raise InputError(f"{self.name}{f', stage {stage}' if stage else ''}: {error}") from None

    def _check_shortcut_a(self) -> None:
        channels, expansion = (self.stem_filters if self.stem != "none" else 0), self.expansion
        for stage, filters in enumerate(self.filters, start=1):
            if filters * expansion < channels:
                raise InputError(
                    "shortcut 'A' pads channels with zeros, so a stage must have at least as many channels as the one "
                    f"before. Received: {channels} -> {filters * expansion} channels at stage {stage}. Widen the stage or "
                    "use shortcut='B'."
                )
            channels = filters * expansion

    def _check_output_stride(self, stride: int) -> None:
        reached = {STEM_STRIDES[self.stem] * prod(self.strides[:stages]) for stages in range(len(self.strides) + 1)}
        if stride not in reached:
            raise InputError(
                "output_stride must be None or a stride that the stages reach, one of "
                f"{', '.join(map(str, sorted(reached)))}. Received: {stride!r}."
            )

    @property
    def expansion(self) -> int:
        """Output channels of a block per filter; 1 for a custom block, whose own matter it is."""
        return EXPANSIONS.get(self.block, 1)

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the last feature map, along one side."""
        return self.output_stride or STEM_STRIDES[self.stem] * prod(self.strides)
