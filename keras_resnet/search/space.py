"""`Space`: the values a search chooses among, as frozen data with JSON both ways."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from keras_resnet.errors import InputError, suggest
from keras_resnet.records import Record, check_choice, is_count, is_number
from keras_resnet.specs import STEM_STRIDES

BLOCKS = ("basic", "bottleneck", "resnext")  # "resnext": a bottleneck whose 3x3 convolution has groups
ACTIVATION_ORDERS = ("post", "pre")  # BN and ReLU after each convolution, or before it (pre-activation)
STEMS = tuple(kind for kind in STEM_STRIDES if kind != "none")
TUNERS = ("random", "bayesian", "hyperband", "grid")  # KerasTuner's, by the names of the command line
# Sides of an input in pixels: below the one a stride-4 stem leaves too little, above the other a stride-1 stem is too much.
_SMALL_SIDE, _LARGE_SIDE = 32, 64


def _names(default: tuple[str, ...] | None, allowed: tuple[str, ...]) -> Any:
    """A field of names; the first is a search's default."""
    return dataclasses.field(default=default, metadata={"parse": str, "allowed": allowed})


def _counts(default: tuple[int, ...] | None) -> Any:
    """A field of integers of at least 1, kept in ascending order."""
    return dataclasses.field(default=default, metadata={"parse": int})


def _numbers(default: tuple[float, ...], low: float, high: float, allowed: str) -> Any:
    """A field of numbers in [low, high), as `allowed` says, kept in ascending order."""
    return dataclasses.field(
        default=default, metadata={"parse": float, "low": low, "high": high, "must_be": f"numbers {allowed}"}
    )


def _interval(default: tuple[float, ...] | None) -> Any:
    """A field of (lowest, highest), between which any number may be drawn, or of one number."""
    return dataclasses.field(default=default, metadata={"parse": float, "interval": True})


@dataclass(frozen=True)
class Space(Record):
    """The values each hyperparameter of a search may take; a field with one value is not searched."""

    blocks: tuple[str, ...] = _names(BLOCKS, BLOCKS)
    activation_orders: tuple[str, ...] = _names(ACTIVATION_ORDERS, ACTIVATION_ORDERS)
    # None: by the input's size, "cifar" up to 64 pixels, strided ones from 32 on.
    stems: tuple[str, ...] | None = _names(None, STEMS)
    stages: tuple[int, ...] | None = _counts(None)  # None: 2 to 4, as far as the last one keeps 2 pixels of the input
    depths: tuple[int, ...] = _counts((1, 2, 3, 4))  # blocks of a stage
    widths: tuple[int, ...] = _counts((8, 16, 24, 32, 48, 64, 96, 128))  # filters of the stem and of stage 1
    # Filters of a later stage by those before it; (2.0,) is the usual rule.
    growths: tuple[float, ...] = _numbers((1.0, 1.5, 2.0), 1, float("inf"), "of at least 1")
    groups: tuple[int, ...] = _counts((2, 4, 8, 16, 32))  # of "resnext"
    widths_per_group: tuple[int, ...] = _counts((4, 8, 16, 32))  # of "resnext": width of a group at 64 filters
    learning_rates: tuple[float, ...] | None = _interval(None)  # None: 1/8 to 4 times the recipe's
    weight_decays: tuple[float, ...] = _interval((5e-4, 5e-2))
    # Only where the search makes its own batches.
    shift_fractions: tuple[float, ...] = _numbers((0.0, 0.0625, 0.125, 0.1875), 0, 1, "in [0, 1)")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            values = getattr(self, field.name)
            if values is not None or field.default is not None:
                object.__setattr__(self, field.name, _check_values(field, values))
        if "deep" in (self.stems or ()) and min(self.widths) < 2:
            raise InputError(
                f"The deep stem halves its width, so widths must be at least 2. Received: {self.widths!r}."
            )

    def complete(self, input_shape: tuple[int, ...], learning_rate: float) -> Space:
        """Returns the space with what is left to the input's size and to the recipe's learning rate filled in."""
        side = max(input_shape[:-1])
        stems = self.stems
        if stems is None:
            small = ("cifar",) if side <= _LARGE_SIDE else ()
            stems = (*small, *(("imagenet",) if side >= _SMALL_SIDE else ()), *(() if small else ("deep",)))
        stages = self.stages
        if stages is None:
            reduction = min(STEM_STRIDES[stem] for stem in stems)
            stages = tuple(n for n in (2, 3, 4) if side >= 2 * reduction * 2 ** (n - 1)) or (2,)
        rates = self.learning_rates or (_round(learning_rate / 8), _round(learning_rate * 4))
        return dataclasses.replace(self, stems=stems, stages=stages, learning_rates=rates)


def _check_values(field: dataclasses.Field[Any], given: Any) -> tuple[Any, ...]:
    """Returns the values of a field as the space keeps them; raises InputError where they are not what it may hold."""
    name, facts = field.name, field.metadata
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable) or not (values := tuple(given)):
        raise InputError(f"A search space needs at least one value for {name}. Received: {given!r}.")
    if "interval" in facts:
        if len(values) > 2 or not all(is_number(value) and value > 0 for value in values) or values[0] > values[-1]:
            raise InputError(
                f"A search space: {name} must be (lowest, highest), both above 0, or one value. Received: {values!r}."
            )
        return values
    if len(set(values)) != len(values):
        raise InputError(f"The values of {name} must differ. Received: {values!r}.")
    if "allowed" in facts:
        for value in values:
            check_choice(f"A search space: {name}", value, facts["allowed"])
        return values
    if facts["parse"] is int:
        if not all(map(is_count, values)):
            raise InputError(f"A search space: {name} must be integers of at least 1. Received: {values!r}.")
    elif not all(is_number(value) and facts["low"] <= value < facts["high"] for value in values):
        raise InputError(f"A search space: {name} must be {facts['must_be']}. Received: {values!r}.")
    return tuple(sorted(map(facts["parse"], values)))


def parse_space(texts: Iterable[str]) -> Space:
    """Reads `("stages=2,3", "blocks=basic,resnext", ...)`: the fields of a `Space` that differ from the default."""
    fields = {field.name: field for field in dataclasses.fields(Space)}
    given: dict[str, Any] = {}
    for text in texts:
        name, equals, listed = text.partition("=")
        if not equals or name not in fields:
            raise InputError(
                f"A choice of the space must be FIELD=VALUE,VALUE,..., the field one of {', '.join(fields)}. "
                f"Received: {text!r}.{suggest(name, fields)}"
            )
        if name in given:
            raise InputError(f"A field of the space may be given once. Received: {name} twice.")
        given[name] = tuple(
            _parse_value(fields[name], item.strip(), text) for item in listed.split(",") if item.strip()
        )
    return Space(**given)


def _parse_value(field: dataclasses.Field[Any], item: str, text: str) -> Any:
    parse = field.metadata["parse"]
    try:
        return parse(item)
    except ValueError:
        kind = "integers" if parse is int else "numbers"
        raise InputError(f"The values of {field.name} must be {kind}. Received: {text!r}.") from None


def _round(value: float) -> float:
    return float(f"{value:.4g}")
