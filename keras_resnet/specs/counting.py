"""Parameters, multiply-adds and shapes of a network from its spec alone: nothing is built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

from keras_resnet.errors import InputError
from keras_resnet.specs.spec import ResNetSpec
from keras_resnet.specs.table import get_row


@dataclass(frozen=True)
class LayerCost:
    """One layer with weights: its name in the built model and what it holds and costs for one image."""

    name: str
    parameters: int  # trainable
    statistics: int  # not trainable: BN's moving mean and variance
    multiply_adds: int  # a bias addition counts as one; BN, ReLU, pooling and additions count nothing
    output_shape: tuple[int, ...]  # (height, width, channels), or (classes,)


class _Tracer:
    """Follows one path of the network, keeping the shape, and records each layer with weights."""

    def __init__(self, spec: ResNetSpec, shape: tuple[int, int, int]) -> None:
        self.spec, self.dialect = spec, spec.dialect
        self.layers: list[LayerCost] = []
        self.shape = shape

    def slide(self, kernel: int, stride: int) -> tuple[int, int]:
        """Spatial size after a window of `kernel` at `stride`, padded as the dialect pads."""
        if self.dialect.padding == "same":
            return -(-self.shape[0] // stride), -(-self.shape[1] // stride)
        padding = 2 * (kernel // 2)
        return tuple((size + padding - kernel) // stride + 1 for size in self.shape[:2])  # type: ignore[return-value]

    def conv_bn(self, name: str, index: str, filters: int, kernel: int, stride: int, *, bn: bool = True) -> None:
        channels = self.shape[2]
        self.shape = (*self.slide(kernel, stride), filters)
        weights = kernel * kernel * channels * filters
        bias = filters if self.dialect.conv_bias else 0
        pixels = prod(self.shape[:2])
        self.layers.append(LayerCost(f"{name}_conv{index}", weights + bias, 0, pixels * (weights + bias), self.shape))
        if bn:
            self.layers.append(LayerCost(f"{name}_bn{index}", 2 * filters, 2 * filters, 0, self.shape))

    def block(self, name: str, filters: int, stride: int) -> None:
        spec, start = self.spec, self.shape
        if spec.block == "basic":
            self.conv_bn(name, "1", filters, 3, stride)
            self.conv_bn(name, "2", filters, 3, 1)
        else:
            inner = spec.inner_width(filters)
            strides = (stride, 1) if self.dialect.bottleneck_stride == "1x1" else (1, stride)
            self.conv_bn(name, "1", inner, 1, strides[0])
            self.conv_bn(name, "2", inner, 3, strides[1])
            self.conv_bn(name, "3", filters * spec.expansion, 1, 1)
        end = self.shape
        if spec.shortcut == "B" and (stride != 1 or start[2] != end[2]):
            self.shape = start
            self.conv_bn(f"{name}_shortcut", "", end[2], 1, stride, bn=self.dialect.shortcut_bn)
        self.shape = end


def iter_layers(
    spec: ResNetSpec | str,
    input_shape: tuple[int, int, int] | None = None,
    classes: int | None = None,
    *,
    include_top: bool = True,
) -> Iterator[LayerCost]:
    """Yields the cost of every layer with weights, in the order of a forward pass.

    Args:
        spec: a spec, or a name from the table.
        input_shape: (height, width, channels); by default the row's own, or (224, 224, 3) for a spec of one's own.
        classes: outputs of the head; by default the row's own, or 1000.
        include_top: whether the dense head is counted.

    Raises:
        InputError: unknown name, or a shape or number of classes below 1.
    """
    if isinstance(spec, str):
        row = get_row(spec)
        spec, default_shape, default_classes = row.spec, row.input_shape, row.classes
    else:
        default_shape, default_classes = (224, 224, 3), 1000
    input_shape = check_input_shape(spec, default_shape if input_shape is None else input_shape)
    if None in input_shape[:2]:
        raise InputError(
            f"{spec.name}: counting needs an input_shape with a height and a width. Received: {input_shape!r}."
        )
    classes = check_classes(default_classes if classes is None else classes)
    trace = _Tracer(spec, input_shape)
    if spec.stem == "imagenet":
        trace.conv_bn("stem", "", spec.stem_filters, 7, 2)
        trace.shape = (*trace.slide(3, 2), spec.stem_filters)
    else:
        trace.conv_bn("stem", "", spec.stem_filters, 3, 1)
    for stage, (depth, filters, stride) in enumerate(zip(spec.depths, spec.filters, spec.strides, strict=True), 1):
        for block in range(1, depth + 1):
            trace.block(f"stage{stage}_block{block}", filters, stride if block == 1 else 1)
    if include_top:
        weights = (trace.shape[2] + 1) * classes
        trace.layers.append(LayerCost("head_logits", weights, 0, weights, (classes,)))
    yield from trace.layers


def count_params(
    spec: ResNetSpec | str,
    input_shape: tuple[int, int, int] | None = None,
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
    input_shape: tuple[int, int, int] | None = None,
    classes: int | None = None,
    *,
    include_top: bool = True,
) -> int:
    """Counts the multiply-adds of one forward pass of one image: convolutions and the dense head.

    Half of what is often printed as "FLOPs". Arguments and errors as `iter_layers`.
    """
    return sum(layer.multiply_adds for layer in iter_layers(spec, input_shape, classes, include_top=include_top))


def final_feature_map(spec: ResNetSpec, input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Returns (height, width, channels) of the last stage's output."""
    return list(iter_layers(spec, input_shape, include_top=False))[-1].output_shape  # type: ignore[return-value]


def check_input_shape(spec: ResNetSpec, input_shape: object) -> tuple:
    """Returns `input_shape` as a tuple if the network leaves at least one pixel of it.

    Every convolution and pool is padded, so one pixel in leaves one pixel out: what is refused is a side or
    a channel count below 1 and a shape that is not (height, width, channels). A side may be None.
    """
    shape: tuple = tuple(input_shape) if isinstance(input_shape, Iterable) else ()
    sizes_ok = len(shape) == 3 and all(_is_count(size) for size in shape if size is not None) and shape[2] is not None
    if not sizes_ok:
        raise InputError(
            f"{spec.name}: input_shape must be (height, width, channels), channels last, each at least 1 (a side may be "
            f"None), so that at least one pixel is left after dividing by {spec.total_stride}. Received: {input_shape!r}."
        )
    return shape


def check_classes(classes: object) -> int:
    """Returns `classes` if it is a positive integer."""
    if not _is_count(classes):
        raise InputError(f"classes must be an integer of at least 1. Received: {classes!r}.")
    return int(classes)  # type: ignore[call-overload]


def _is_count(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool) and value >= 1  # type: ignore[operator]
