"""`Candidates`: the networks and recipes a space holds for one input, kept inside a budget by arithmetic alone."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from keras_resnet.errors import InputError
from keras_resnet.recipes import Recipe
from keras_resnet.records import Record, take_counts
from keras_resnet.search.space import Space
from keras_resnet.specs import (
    ResNetSpec,
    check_classes,
    check_input_shape,
    count_totals,
    estimate_memory,
    get_dialect,
)

_DIALECTS = {"post": "torchvision", "pre": "torchvision_v2"}
_DIGITS = 4  # significant digits of learning rates and decays: the same on whichever side of a wire they are read
_KINDS = ("block", "activation_order", "stem")  # hyperparameters whose values have no order of size
_OPTIMIZER_SLOTS = {"sgd": 1, "adam": 2, "adamw": 2}  # values an optimizer keeps per parameter

Values = Mapping[str, Any]  # hyperparameter name -> value; inactive ones may be there and are ignored


@dataclass(frozen=True)
class Budget(Record):
    """What no network of a search may exceed; None sets no limit."""

    max_params: int | None = None  # as Keras counts: BN's statistics included
    max_macs: int | None = None  # multiply-adds of one forward pass of one input
    max_memory: int | None = None  # bytes of a training step at the recipe's batch size, as `estimate_memory` has it

    def __post_init__(self) -> None:
        take_counts(self, ("max_params", "max_macs", "max_memory"), optional=True)


class Candidates:
    """Every `(spec, recipe)` of a space for one input: declared, made, checked against the budget, moved into it.

    Args:
        input_shape: (height, width, channels) or (steps, channels).
        classes: outputs of the head.
        space: what may be chosen; by default `Space()`.
        recipe: everything of the training that is not searched.
        budget: what no network may exceed.
        augment: whether the strength of the augmentation is searched.

    Raises:
        InputError: a shape without sizes, a recipe with max_steps, a budget that no network of the space meets.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        space: Space | None = None,
        recipe: Recipe | None = None,
        budget: Budget | None = None,
        augment: bool = False,
    ) -> None:
        self.recipe = recipe or Recipe()
        self.budget = budget or Budget()
        self.augment = augment
        self.classes = check_classes(classes)
        if self.recipe.max_steps is not None:
            raise InputError(
                f"A search trains by epochs: its recipe must have max_steps=None. Received: {self.recipe.max_steps}."
            )
        self.rank = len(tuple(input_shape)) - 1
        if self.rank not in (1, 2) or None in input_shape:
            raise InputError(
                "A search needs an input_shape of (height, width, channels) or (steps, channels), all known. "
                f"Received: {input_shape!r}."
            )
        probe = ResNetSpec("probe", "basic", (1,), (1,), (1,), rank=self.rank, stem="none")
        self.input_shape = check_input_shape(probe, input_shape)
        self.space = (space or Space()).complete(self.input_shape, self.recipe.peak_learning_rate)
        self._check_reachable()

    def declare(self, hp: Any) -> None:
        """Declares every hyperparameter on a `keras_tuner.HyperParameters`, those that depend on others under them."""
        space, stages = self.space, self.space.stages or ()
        hp.Choice("block", list(space.blocks))
        hp.Choice("activation_order", list(space.activation_orders))
        hp.Choice("stem", list(space.stems or ()))
        hp.Choice("stages", list(stages), default=_near(stages, 3), ordered=True)
        hp.Choice("width", list(space.widths), default=_near(space.widths, 16), ordered=True)
        for stage in range(1, max(stages) + 1):
            with _under(hp, "stages", stages, [n for n in stages if n >= stage]):
                hp.Choice(f"blocks{stage}", list(space.depths), default=_near(space.depths, 2), ordered=True)
                if stage > 1:
                    hp.Choice(f"growth{stage}", list(space.growths), default=_near(space.growths, 2), ordered=True)
        if "resnext" in space.blocks:
            with _under(hp, "block", space.blocks, ["resnext"]):
                hp.Choice("groups", list(space.groups), default=_near(space.groups, 8), ordered=True)
                hp.Choice(
                    "width_per_group",
                    list(space.widths_per_group),
                    default=_near(space.widths_per_group, 8),
                    ordered=True,
                )
        for name, values, default in (
            ("learning_rate", space.learning_rates or (), self.recipe.peak_learning_rate),
            ("weight_decay", space.weight_decays, self.recipe.weight_decay),
        ):
            low, high = values[0], values[-1]
            hp.Float(name, low, high, sampling="log", default=min(max(default, low), high))
        if self.augment:
            fractions = space.shift_fractions
            hp.Choice(
                "shift_fraction",
                list(fractions),
                default=_near(fractions, self.recipe.shift_fraction),
                ordered=True,
            )

    def make(self, values: Values) -> tuple[ResNetSpec, Recipe]:
        """Returns `(spec, recipe)` of one set of values; raises InputError where they give no network."""
        return self._make_spec(values), self._make_recipe(values)

    def _make_spec(self, values: Values) -> ResNetSpec:
        stages = values["stages"]
        depths = tuple(values[f"blocks{stage}"] for stage in range(1, stages + 1))
        filters, block, order, stem = self._filters(values), values["block"], values["activation_order"], values["stem"]
        name = f"{block}_{order}_{stem}_d{_join(depths)}_w{_join(filters)}"
        groups = width_per_group = None
        if block == "resnext":
            groups, width_per_group = values["groups"], values["width_per_group"]
            name += f"_g{groups}x{width_per_group}d"
        return ResNetSpec(
            name,
            block="basic" if block == "basic" else "bottleneck",
            depths=depths,
            filters=filters,
            strides=(1, *(2,) * (stages - 1)),
            stem=stem,
            stem_filters=values["width"],
            rank=self.rank,
            groups=groups or 1,
            width_per_group=width_per_group or 64,
            dialect=get_dialect(_DIALECTS[order]),
        )

    @staticmethod
    def _filters(values: Values) -> tuple[int, ...]:
        """Returns `width * growth2 * ... * growth_s` of each stage, from stage 2 on rounded up to a multiple of 4."""
        exact, filters = float(values["width"]), [values["width"]]
        for stage in range(2, values["stages"] + 1):
            exact *= values[f"growth{stage}"]
            filters.append(4 * math.ceil(exact / 4) if values[f"growth{stage}"] > 1 else filters[-1])
        return tuple(filters)

    def _make_recipe(self, values: Values) -> Recipe:
        changes: dict[str, Any] = {
            name: float(f"{values[name]:.{_DIGITS}g}") for name in ("learning_rate", "weight_decay")
        }
        if self.augment:
            changes["shift_fraction"] = values["shift_fraction"]
        return replace(self.recipe, **changes)

    def admits(self, values: Values) -> bool:
        """Returns whether the values give a network inside the budget; nothing is built."""
        return self._overrun(values) <= 1

    def _overrun(self, values: Values) -> float:
        """Returns the largest share of a limit that the network takes; infinity where the values give no network."""
        try:
            spec = self._make_spec(values)
        except InputError:
            return float("inf")
        return max((used / limit for used, limit in self._measure(spec)), default=0.0)

    def _measure(self, spec: ResNetSpec) -> Iterator[tuple[int, int]]:
        """Yields what the network takes of each limit that is set, and that limit."""
        budget = self.budget
        if budget.max_params is not None or budget.max_macs is not None:
            totals = count_totals(spec, self.input_shape, self.classes)
            if budget.max_params is not None:
                yield totals.parameters, budget.max_params
            if budget.max_macs is not None:
                yield totals.multiply_adds, budget.max_macs
        if budget.max_memory is not None:
            yield self.estimate_memory(spec), budget.max_memory

    def estimate_memory(self, spec: ResNetSpec) -> int:
        """Returns the bytes of a training step of the network at the recipe's batch size, by estimate."""
        return estimate_memory(
            spec,
            self.input_shape,
            self.classes,
            batch_size=self.recipe.batch_size,
            optimizer_slots=_OPTIMIZER_SLOTS[self.recipe.optimizer],
        )

    def may_admit(self, beginning: Values) -> bool:
        """Returns whether values for the first hyperparameters leave any network inside the budget."""
        kinds = {name: beginning[name] for name in _KINDS if name in beginning}
        if len(kinds) < len(_KINDS):
            return True
        return any(self.admits({**point, **beginning}) for point in self._lowest(kinds, beginning.get("stages")))

    def move(self, values: Values) -> dict[str, Any]:
        """Moves values to the nearest ones inside the budget, and returns those inside it unchanged.

        Sizes (stages, blocks, width, growths, groups, width per group) go down by one notch of their lists at a time: where
        one such notch is enough, the one that gives up least; otherwise the one that saves most. Then each goes back
        up as far as the budget allows, so that in the end no single size could be a notch nearer to what was asked.
        Where the smallest sizes are still too large, block, activation order and stem change too, as few
        of them as possible. Learning rate, weight decay and augmentation stay.
        """
        if self.admits(values):
            return dict(values)
        wanted = {**self._defaults(), **values}
        for kinds in self._kinds_by_distance(wanted):
            lowest = [point for point in self._lowest(kinds) if self.admits({**wanted, **point})]
            if lowest:
                return self._grow(self._shrink({**wanted, **kinds}, {**wanted, **lowest[0]}), wanted)
        raise AssertionError("_check_reachable found a network that admits now refuses")  # not from any input

    def _shrink(self, point: dict[str, Any], lowest: dict[str, Any]) -> dict[str, Any]:
        while not self.admits(point):
            lower: list[tuple[float, int, dict[str, Any]]] = []
            for name, choices in self._sizes(point).items():
                index = bisect.bisect_left(choices, point[name])
                if index:
                    other = {**point, name: choices[index - 1]}
                    lower.append((self._overrun(other), len(lower), other))
            enough = [item for item in lower if item[0] <= 1]
            best = max(enough, key=lambda item: (item[0], -item[1])) if enough else min(lower, default=None)
            if best is None or best[0] == float("inf"):
                return lowest
            point = best[2]
        return point

    def _grow(self, point: dict[str, Any], wanted: Values) -> dict[str, Any]:
        moved = True
        while moved:
            moved = False
            for name, choices in self._sizes(point).items():
                now, target = point[name], wanted[name]
                notches = [value for value in choices if now < value <= target or target <= value < now]
                if notches:
                    other = {**point, name: min(notches, key=lambda value: abs(value - now))}
                    if self.admits(other):
                        point, moved = other, True
        return point

    def _sizes(self, values: Values) -> dict[str, tuple[Any, ...]]:
        """Returns the hyperparameters that make a network larger and are active at these values, with their choices.

        Choices are in ascending order, as `Space` keeps them.
        """
        space, stages = self.space, values["stages"]
        sizes: dict[str, tuple[Any, ...]] = {"stages": space.stages or ()}
        sizes |= {f"blocks{stage}": space.depths for stage in range(1, stages + 1)}
        sizes["width"] = space.widths
        sizes |= {f"growth{stage}": space.growths for stage in range(2, stages + 1)}
        if values["block"] == "resnext":
            sizes |= {"groups": space.groups, "width_per_group": space.widths_per_group}
        return sizes

    def _defaults(self) -> dict[str, Any]:
        """Returns a value for every size, also for those that are inactive."""
        space, most = self.space, max(self.space.stages or ())
        values: dict[str, Any] = {f"blocks{stage}": _near(space.depths, 2) for stage in range(1, most + 1)}
        values |= {f"growth{stage}": _near(space.growths, 2) for stage in range(2, most + 1)}
        return values | {"groups": _near(space.groups, 8), "width_per_group": _near(space.widths_per_group, 8)}

    def _kinds(self) -> Iterator[dict[str, str]]:
        space = self.space
        for choice in itertools.product(space.blocks, space.activation_orders, space.stems or ()):
            yield dict(zip(_KINDS, choice, strict=True))

    def _kinds_by_distance(self, wanted: Values) -> list[dict[str, str]]:
        return sorted(self._kinds(), key=lambda kinds: sum(wanted[name] != value for name, value in kinds.items()))

    def _lowest(self, kinds: Mapping[str, str], stages: int | None = None) -> Iterator[dict[str, Any]]:
        """Yields the smallest networks of a kind: every figure of the budget grows with every size.

        Of resnext there may be several: a narrow group needs a wide stage to have one channel at all.
        """
        space = self.space
        stages = stages or (space.stages or ())[0]
        for width_per_group in space.widths_per_group if kinds["block"] == "resnext" else (64,):
            width = next((width for width in space.widths if width * width_per_group >= 64 or width_per_group == 64), 0)
            if not width:
                continue
            yield {
                **kinds,
                "stages": stages,
                "width": width,
                "groups": space.groups[0],
                "width_per_group": width_per_group,
                **{f"blocks{stage}": space.depths[0] for stage in range(1, stages + 1)},
                **{f"growth{stage}": space.growths[0] for stage in range(2, stages + 1)},
            }

    def _check_reachable(self) -> None:
        specs = [self._make_spec(point) for kinds in self._kinds() for point in self._lowest(kinds)]
        if not specs:
            raise InputError(
                "A search space must hold at least one network: a group of a resnext has "
                "width * width_per_group // 64 channels, at least 1. Received: "
                f"widths={self.space.widths}, widths_per_group={self.space.widths_per_group}."
            )
        limits = {name: value for name, value in self.budget.to_dict().items() if value is not None}
        measured = [[used for used, _ in self._measure(spec)] for spec in specs]
        if any(all(used <= limit for used, limit in zip(row, limits.values(), strict=True)) for row in measured):
            return
        for index, (name, limit) in enumerate(limits.items()):
            least, spec = min((row[index], spec.name) for row, spec in zip(measured, specs, strict=True))
            if least > limit:
                raise InputError(
                    f"{name} must be at least {least:,}, which the smallest network of the space takes "
                    f"({spec} at {'x'.join(map(str, self.input_shape))}, {self.classes} classes). Received: {limit:,}."
                )
        reachable = ", ".join(f"{name} {min(row[index] for row in measured):,}" for index, name in enumerate(limits))
        raise InputError(
            "No network of the space meets all limits at once. Received: "
            f"{', '.join(f'{name}={limit:,}' for name, limit in limits.items())}; each alone reaches {reachable}."
        )


@contextlib.contextmanager
def _under(hp: Any, parent: str, all_values: tuple[Any, ...], values: list[Any]) -> Iterator[None]:
    """Opens a conditional scope, or none where the parent can have no other value."""
    if len(values) == len(all_values):
        yield
    else:
        with hp.conditional_scope(parent, values):
            yield


def _near(values: tuple[Any, ...], wanted: float) -> Any:
    return min(values, key=lambda value: abs(value - wanted))


def _join(numbers: tuple[int, ...]) -> str:
    return "-".join(map(str, numbers))
