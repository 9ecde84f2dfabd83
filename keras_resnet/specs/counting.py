"""Parameters, multiply-adds and shapes of a network from its spec alone: nothing is built."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

from keras_resnet.errors import InputError, is_count
from keras_resnet.specs.branch import POOLED_STEMS, Conv, needs_projection, se_width, split_filters, stem_convs
from keras_resnet.specs.layout import Placement, iter_blocks, placed_convs
from keras_resnet.specs.spec import ResNetSpec
from keras_resnet.specs.table import resolve

_SIDES = {1: "a number of steps", 2: "a height and a width"}


@dataclass(frozen=True)
class LayerCost:
    """One layer with weights: its name in the built model and what it holds and costs for one input."""

    name: str
    parameters: int  # trainable
    statistics: int  # not trainable: BN's moving mean and variance
    multiply_adds: int  # a bias addition counts as one; BN, ReLU, pooling, additions and gating count nothing
    output_shape: tuple[int, ...]  # (height, width, channels), (steps, channels), or (classes,)


@dataclass(frozen=True)
class Section:
    """The stem, one stage or the head: its layers with weights, and the shape it puts out."""

    name: str  # "stem", "stage1", ..., "head"
    layers: tuple[LayerCost, ...]
    output_shape: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """All parameters, BN's moving statistics included."""
        return sum(layer.parameters + layer.statistics for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Of one forward pass of one input."""
        return sum(layer.multiply_adds for layer in self.layers)


class _Tracer:
    """Follows one path of the network, keeping the shape, and records each layer with weights."""

    def __init__(self, spec: ResNetSpec, shape: tuple[int, ...]) -> None:
        self.spec, self.dialect = spec, spec.dialect
        self.layers: list[LayerCost] = []
        self.shape = shape

    def cut(self, name: str) -> Section:
        """Returns what was recorded since the last cut."""
        section = Section(name, tuple(self.layers), self.shape)
        self.layers = []
        return section

    def slide(self, kernel: int, stride: int) -> tuple[int, ...]:
        """Spatial size after a window of `kernel`, odd, at `stride`, padded as the dialect pads; dilation keeps it."""
        if self.dialect.padding == "same":
            return tuple(-(-size // stride) for size in self.shape[:-1])
        return tuple((size + 2 * (kernel // 2) - kernel) // stride + 1 for size in self.shape[:-1])

    def conv(self, prefix: str, index: int | str, conv: Conv, *, bn_follows: bool) -> None:
        channels = self.shape[-1]
        spatial = self.slide(conv.kernel_sizes[0], conv.stride)
        for kernel, filters in zip(conv.kernel_sizes, split_filters(conv.filters, len(conv.kernel_sizes)), strict=True):
            weights = kernel**self.spec.rank * (channels // conv.groups) * filters
            weights += filters if self.dialect.has_bias(bn_follows=bn_follows) else 0
            suffix = f"_k{kernel}" if len(conv.kernel_sizes) > 1 else ""
            self.layers.append(
                LayerCost(f"{prefix}_conv{index}{suffix}", weights, 0, prod(spatial) * weights, (*spatial, filters))
            )
        self.shape = (*spatial, conv.filters)

    def bn(self, name: str) -> None:
        self.layers.append(LayerCost(name, 2 * self.shape[-1], 2 * self.shape[-1], 0, self.shape))

    def dense(self, name: str, units: int, lead: tuple[int, ...]) -> None:
        weights = (self.shape[-1] + 1) * units
        self.shape = (*lead, units)
        self.layers.append(LayerCost(name, weights, 0, weights, self.shape))

    def stem(self) -> None:
        convs = stem_convs(self.spec.stem, self.spec.stem_filters)
        for number, conv in enumerate(convs, start=1):
            index = number if len(convs) > 1 else ""
            normalised = number < len(convs) or not self.dialect.preactivation
            self.conv("stem", index, conv, bn_follows=normalised)
            if normalised:
                self.bn(f"stem_bn{index}")
        if self.spec.stem in POOLED_STEMS:
            self.shape = (*self.slide(3, 2), self.shape[-1])

    def block(self, place: Placement) -> None:
        spec, name, start = self.spec, place.name, self.shape
        convs = placed_convs(spec, place)
        for index, conv in enumerate(convs, start=1):
            if self.dialect.preactivation:
                self.bn(f"{name}_bn{index}")
                self.conv(name, index, conv, bn_follows=index < len(convs))
            else:
                self.conv(name, index, conv, bn_follows=True)
                self.bn(f"{name}_bn{index}")
        end = self.shape
        if spec.se_ratio:
            ones = (1,) * spec.rank
            self.dense(f"{name}_se_reduce", se_width(end[-1], spec.se_ratio), ones)
            self.dense(f"{name}_se_expand", end[-1], ones)
        if needs_projection(spec.shortcut, start[-1], end[-1], place.stride, self.dialect):
            self.shape = start
            self.conv(f"{name}_shortcut", "", Conv(end[-1], (1,), place.stride), bn_follows=self.dialect.shortcut_bn)
            if self.dialect.shortcut_bn:
                self.bn(f"{name}_shortcut_bn")
        self.shape = end


def iter_sections(
    spec: ResNetSpec | str,
    input_shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    *,
    include_top: bool = True,
) -> Iterator[Section]:
    """Yields stem, stages and head of a network; arguments and errors as `iter_layers`."""
    spec, input_shape, classes = _complete(spec, input_shape, classes)
    trace = _Tracer(spec, input_shape)
    trace.stem()
    yield trace.cut("stem")
    for stage, places in itertools.groupby(iter_blocks(spec), key=lambda place: place.name.partition("_")[0]):
        for place in places:
            trace.block(place)
        yield trace.cut(stage)
    if spec.dialect.preactivation:
        trace.bn("head_bn")
    if include_top:
        trace.dense("head_logits", classes, ())
    yield trace.cut("head")


def iter_layers(
    spec: ResNetSpec | str,
    input_shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    *,
    include_top: bool = True,
) -> Iterator[LayerCost]:
    """Yields the cost of every layer with weights, in the order of a forward pass.

    A block of your own (`build(..., block=...)`) is not in the spec: it cannot be counted here, only as
    `model.count_params()`.

    Args:
        spec: a spec, or a name from the table.
        input_shape: (height, width, channels), or (steps, channels) for rank 1; by default the row's own, or
            (224, 224, 3) and (1024, 1) for a spec of one's own.
        classes: outputs of the head; by default the row's own, or 1000.
        include_top: whether the dense head is counted.

    Raises:
        InputError: neither a spec nor a known name, a spec whose block is "custom", or a shape or number of classes below 1.
    """
    for section in iter_sections(spec, input_shape, classes, include_top=include_top):
        yield from section.layers


def _complete(
    spec: ResNetSpec | str, input_shape: tuple[int, ...] | None, classes: int | None
) -> tuple[ResNetSpec, tuple[int, ...], int]:
    """Looks up a name, fills in what is left out and checks what is given."""
    row = resolve(spec)
    spec = row.spec
    if spec.block == "custom":
        raise InputError(
            f"{spec.name}: counting from a spec knows the blocks 'basic' and 'bottleneck', not a block function of your "
            "own. Received: block='custom'. Build the model and use model.count_params()."
        )
    input_shape = check_input_shape(spec, row.input_shape if input_shape is None else input_shape)
    if None in input_shape[:-1]:
        raise InputError(
            f"{spec.name}: counting needs an input_shape with {_SIDES[spec.rank]}. Received: {input_shape!r}."
        )
    return spec, input_shape, check_classes(row.classes if classes is None else classes)


def count_params(
    spec: ResNetSpec | str,
    input_shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    *,
    include_top: bool = True,
    trainable_only: bool = False,
) -> int:
    """Counts all parameters as `model.count_params()` would (BN statistics included), without building.

    Arguments and errors as `iter_layers`; `trainable_only` leaves out BN's moving mean and variance, as
    PyTorch libraries count.
    """
    layers = iter_layers(spec, input_shape, classes, include_top=include_top)
    return sum(layer.parameters + (0 if trainable_only else layer.statistics) for layer in layers)


def count_macs(
    spec: ResNetSpec | str,
    input_shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    *,
    include_top: bool = True,
) -> int:
    """Counts the multiply-adds of one forward pass of one image: convolutions and the dense head.

    Half of what is often printed as "FLOPs". Arguments and errors as `iter_layers`.
    """
    return sum(layer.multiply_adds for layer in iter_layers(spec, input_shape, classes, include_top=include_top))


def final_feature_map(spec: ResNetSpec, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns (height, width, channels), or (steps, channels), of the last stage's output."""
    return [section.output_shape for section in iter_sections(spec, input_shape) if section.name != "head"][-1]


def check_input_shape(spec: ResNetSpec, input_shape: object) -> tuple:
    """Returns `input_shape` as a tuple if the network leaves at least one pixel of it.

    Every convolution and pool is padded, so one pixel in leaves one pixel out: what is refused is a side or
    a channel count below 1 and a shape that has not the spec's rank. A side may be None.
    """
    shape: tuple = tuple(input_shape) if isinstance(input_shape, Iterable) else ()
    sides_ok = all(is_count(size) for size in shape[:-1] if size is not None)
    if len(shape) != spec.rank + 1 or not sides_ok or not is_count(shape[-1]):
        what, axes = {1: ("step", "(steps, channels)"), 2: ("pixel", "(height, width, channels)")}[spec.rank]
        raise InputError(
            f"{spec.name}: input_shape must be {axes}, channels last, each at least 1 (a side may be "
            f"None), so that at least one {what} is left after dividing by {spec.total_stride}. Received: {input_shape!r}."
        )
    if spec.stem == "none" and spec.shortcut == "A" and spec.block != "custom":
        first = spec.filters[0] * spec.expansion
        if shape[-1] > first:
            raise InputError(
                f"{spec.name}: shortcut 'A' pads channels with zeros, so without a stem the input must have at most the "
                f"{first} channels of the first stage. Received: input_shape={input_shape!r}."
            )
    return shape


def check_classes(classes: object) -> int:
    """Returns `classes` if it is a positive integer."""
    if not is_count(classes):
        raise InputError(f"classes must be an integer of at least 1. Received: {classes!r}.")
    return int(classes)  # type: ignore[call-overload]
