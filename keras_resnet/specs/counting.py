"""The layers of a network with their costs and shapes, from its spec alone: nothing is built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from keras_resnet.errors import InputError
from keras_resnet.names import HEAD, STEM
from keras_resnet.records import check_count, is_count
from keras_resnet.specs.layout import iter_stages
from keras_resnet.specs.spec import ResNetSpec
from keras_resnet.specs.table import resolve
from keras_resnet.specs.walk import LayerCost, Walk

_SIDES = {1: "a number of steps", 2: "a height and a width"}


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


def iter_sections(
    spec: ResNetSpec | str,
    input_shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    *,
    include_top: bool = True,
) -> Iterator[Section]:
    """Yields stem, stages and head of a network; arguments and errors as `iter_layers`."""
    spec, input_shape, classes = complete_arguments(spec, input_shape, classes)
    walk = Walk(spec, input_shape, record=True)
    walk.stem()
    yield Section(STEM, walk.cut(), walk.shape)
    for stage, blocks in iter_stages(spec):
        for block in blocks:
            walk.block(block)
        yield Section(stage, walk.cut(), walk.shape)
    walk.head(classes if include_top else None)
    yield Section(HEAD, walk.cut(), walk.shape)


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


def complete_arguments(
    spec: ResNetSpec | str, input_shape: tuple[int, ...] | None, classes: int | None
) -> tuple[ResNetSpec, tuple[int, ...], int]:
    """Looks up a name, fills in what is left out and checks what is given."""
    if input_shape is None or classes is None or not isinstance(spec, ResNetSpec):
        row = resolve(spec)
        spec = row.spec
        input_shape = row.input_shape if input_shape is None else input_shape
        classes = row.classes if classes is None else classes
    if spec.block == "custom":
        raise InputError(
            f"{spec.name}: counting from a spec knows the blocks 'basic' and 'bottleneck', not a block function of your "
            "own. Received: block='custom'. Build the model and use model.count_params()."
        )
    input_shape = check_input_shape(spec, input_shape)
    if None in input_shape[:-1]:
        raise InputError(
            f"{spec.name}: counting needs an input_shape with {_SIDES[spec.rank]}. Received: {input_shape!r}."
        )
    return spec, input_shape, check_classes(classes)


def final_feature_map(spec: ResNetSpec, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns (height, width, channels), or (steps, channels), of the last stage's output."""
    return [section.output_shape for section in iter_sections(spec, input_shape) if section.name != HEAD][-1]


def check_input_shape(spec: ResNetSpec, input_shape: object) -> tuple:
    """Returns `input_shape` as a tuple if the network leaves at least one pixel of it.

    Every convolution and pool is padded, so one pixel in leaves one pixel out: what is refused is a side or
    a channel count below 1 and a shape that has not the spec's rank. A side may be None.
    """
    shape: tuple = tuple(input_shape) if isinstance(input_shape, Iterable) else ()
    wrong = [size for size in shape[:-1] if size is not None and not is_count(size)]
    if len(shape) != spec.rank + 1 or wrong or not is_count(shape[-1]):
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


def check_classes(classes: Any) -> int:
    """Returns `classes` if it is a positive integer."""
    check_count("classes", classes)
    return int(classes)
