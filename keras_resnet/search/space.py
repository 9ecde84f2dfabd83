"""`Space`: the values a search chooses among, as frozen data with JSON both ways."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from keras_resnet.errors import InputError, suggest
from keras_resnet.records import Record, check_choice, is_count
from keras_resnet.specs import STEM_STRIDES

BLOCKS = ("basic", "bottleneck", "resnext")  # "resnext": a bottleneck whose 3x3 convolution has groups
ACTIVATION_ORDERS = ("post", "pre")  # BN and ReLU after each convolution, or before it (pre-activation)
TUNERS = ("random", "bayesian", "hyperband", "grid")  # KerasTuner's, by the names of the command line
_SMALL_SIDE, _LARGE_SIDE = (
    32,
    64,
)  # pixels: below, a stride-4 stem leaves too little; above, a stride-1 stem is too much


@dataclass(frozen=True)
class Space(Record):
    """The values each hyperparameter of a search may take; a field with one value is not searched."""

    blocks: tuple[str, ...] = BLOCKS
    activation_orders: tuple[str, ...] = ACTIVATION_ORDERS
    stems: tuple[str, ...] | None = None  # None: by the input's size, "cifar" up to 64 pixels, strided ones from 32 on
    stages: tuple[int, ...] | None = None  # how many; None: 2 to 4, as far as the last one keeps 2 pixels of the input
    depths: tuple[int, ...] = (1, 2, 3, 4)  # blocks of a stage
    widths: tuple[int, ...] = (8, 16, 24, 32, 48, 64, 96, 128)  # filters of the stem and of stage 1
    growths: tuple[float, ...] = (1.0, 1.5, 2.0)  # filters of a later stage by those before it; (2.0,): the usual rule
    groups: tuple[int, ...] = (2, 4, 8, 16, 32)  # of "resnext"
    widths_per_group: tuple[int, ...] = (4, 8, 16, 32)  # of "resnext": width of a group at 64 filters
    learning_rates: tuple[float, ...] | None = None  # (lowest, highest); None: 1/8 to 4 times the recipe's
    weight_decays: tuple[float, ...] = (5e-4, 5e-2)  # (lowest, highest)
    shift_fractions: tuple[float, ...] = (0.0, 0.0625, 0.125, 0.1875)  # only where the search makes its own batches

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            values = getattr(self, field.name)
            if values is None and field.default is None:
                continue
            if isinstance(values, (str, bytes)) or not isinstance(values, Iterable) or not (values := tuple(values)):
                raise InputError(
                    f"A search space needs at least one value for {field.name}. Received: {getattr(self, field.name)!r}."
                )
            if len(set(values)) != len(values) and field.name not in ("learning_rates", "weight_decays"):
                raise InputError(f"The values of {field.name} must differ. Received: {values!r}.")
            object.__setattr__(self, field.name, values)
        for name, allowed in (
            ("blocks", BLOCKS),
            ("activation_orders", ACTIVATION_ORDERS),
            ("stems", tuple(kind for kind in STEM_STRIDES if kind != "none")),
        ):
            for value in getattr(self, name) or ():
                check_choice(f"A search space: {name}", value, allowed)
        for name in ("stages", "depths", "widths", "groups", "widths_per_group"):
            values = getattr(self, name)
            if values is None:
                continue
            if not all(map(is_count, values)):
                raise InputError(f"A search space: {name} must be integers of at least 1. Received: {values!r}.")
            object.__setattr__(self, name, tuple(sorted(int(value) for value in values)))
        for name, low in (("learning_rates", 0), ("weight_decays", 0)):
            values = getattr(self, name)
            if values is not None and not (
                len(values) in (1, 2) and all(_is_number(v) and v > low for v in values) and values[0] <= values[-1]
            ):
                raise InputError(
                    f"A search space: {name} must be (lowest, highest), both above 0, or one value. Received: {values!r}."
                )
        if not all(_is_number(value) and value >= 1 for value in self.growths):
            raise InputError(f"A search space: growths must be numbers of at least 1. Received: {self.growths!r}.")
        object.__setattr__(self, "growths", tuple(sorted(map(float, self.growths))))
        if not all(_is_number(value) and 0 <= value < 1 for value in self.shift_fractions):
            raise InputError(
                f"A search space: shift_fractions must be numbers in [0, 1). Received: {self.shift_fractions!r}."
            )
        object.__setattr__(self, "shift_fractions", tuple(sorted(map(float, self.shift_fractions))))
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
        given[name] = tuple(_parse_value(name, item.strip(), text) for item in listed.split(",") if item.strip())
    return Space(**given)


def _parse_value(name: str, item: str, text: str) -> Any:
    kinds: dict[str, type] = {
        **dict.fromkeys(("stages", "depths", "widths", "groups", "widths_per_group"), int),
        **dict.fromkeys(("growths", "learning_rates", "weight_decays", "shift_fractions"), float),
    }
    try:
        return kinds.get(name, str)(item)
    except ValueError:
        raise InputError(
            f"The values of {name} must be {'integers' if kinds[name] is int else 'numbers'}. Received: {text!r}."
        ) from None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _round(value: float) -> float:
    return float(f"{value:.4g}")
