"""`search.json` as records: what was asked for, what all trials share, what has come of it; of every version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras_resnet.environment import Machine
from keras_resnet.errors import InputError
from keras_resnet.inputs import DataSource, InputOptions, Preprocessing
from keras_resnet.jobs.stored import DataFacts
from keras_resnet.recipes import Recipe
from keras_resnet.records import Record, check_choice, check_types, take_counts
from keras_resnet.search import TUNERS, Budget, Candidates, Space
from keras_resnet.specs import ResNetSpec

OBJECTIVES = ("val_accuracy", "val_loss")
_FORMAT = 2  # 1: written by 0.1
_MAY_CHANGE = "trials"  # a search that is gone on with may be given more


@dataclass(frozen=True)
class SearchRequest(Record):
    """What a user asked for; whoever asks for the same goes on with the same search."""

    source: DataSource
    input: InputOptions
    tuner: str
    objective: str
    trials: int  # at most so many
    budget: Budget
    space: Space
    recipe: dict[str, Any]  # the fields of a `Recipe` that were given

    def __post_init__(self) -> None:
        check_choice("tuner", self.tuner, TUNERS)
        check_choice("objective", self.objective, OBJECTIVES)
        take_counts(self, ("trials",))
        whole = Recipe.from_dict(self.recipe)
        object.__setattr__(self, "recipe", {name: getattr(whole, name) for name in self.recipe})

    def find_differences(self, other: SearchRequest) -> list[str]:
        """Returns "NAME OLD there, NEW now" for each value that `other`, asked for now, has otherwise."""
        there, now = self._by_typed_name(), other._by_typed_name()
        return [
            f"{name} {there.get(name)!r} there, {now.get(name)!r} now"
            for name in dict.fromkeys((*there, *now))
            if there.get(name) != now.get(name) and name != _MAY_CHANGE
        ]

    def _by_typed_name(self) -> dict[str, Any]:
        """The values by the names that users of `search` type."""
        source = self.source.to_dict()
        return {
            "data": source.pop("name"),
            **source,
            **self.input.to_dict(),
            "tuner": self.tuner,
            "objective": self.objective,
            "trials": self.trials,
            **self.budget.to_dict(),
            **{f"space.{name}": value for name, value in self.space.to_dict().items()},
            **{f"recipe.{name}": value for name, value in self.recipe.items()},
        }


@dataclass(frozen=True)
class SearchPlan(Record):
    """What all trials share: found where the data was read, before the first of them."""

    data: DataFacts  # its test images stay unread, and count as 0
    preprocessing: Preprocessing
    recipe: Recipe  # whole; what is searched is at its default
    budget: Budget  # with the limit of memory that a worker's own memory sets
    space: Space  # with what the input's size decides
    versions: dict[str, str]
    machine: Machine

    def __post_init__(self) -> None:
        check_types(self)

    def make_candidates(self) -> Candidates:
        """The networks and recipes among which the search chooses."""
        return Candidates(
            self.preprocessing.input_shape,
            len(self.data.class_names),
            space=self.space,
            recipe=self.recipe,
            budget=self.budget,
            augment=True,
        )


@dataclass(frozen=True)
class ProcessFacts(Record):
    """What a process of a search took."""

    name: str  # "supervisor", "chief", "worker0", ...
    starts: int  # above 1: it died, or was replaced, and was started again
    peak_bytes: int  # the most resident memory that was seen

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class BestRecord(Record):
    """The winner of a search."""

    trial_id: str
    spec: ResNetSpec
    recipe: Recipe
    parameters: int
    multiply_adds: int
    val_accuracy: float
    val_loss: float

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class SearchRecord(Record):
    """All of `search.json`; from `seconds` on it tells what the search had come to when it last ended."""

    request: SearchRequest
    plan: SearchPlan
    seconds: float = 0.0  # in all its runs
    status: str | None = None  # "finished", or "stopped" before its end; None: it has not ended yet
    updated: str | None = None  # when it last ended, ISO 8601
    processes: tuple[ProcessFacts, ...] = ()  # of the last run, on the machine of the chief
    trials: int = 0  # that have begun
    completed: int = 0  # trials
    best: BestRecord | None = None

    def __post_init__(self) -> None:
        check_types(self)

    def to_json(self) -> dict[str, Any]:
        """Returns what `search.json` holds; `read_record` reads it."""
        return {"format": _FORMAT, **self.to_dict()}


def read_record(values: Mapping[str, Any]) -> SearchRecord:
    """Returns the record that a `search.json` of any version holds.

    Raises:
        KeyError, ValueError, TypeError: it is none; an InputError is a ValueError.
    """
    if values["format"] == 1:
        return SearchRecord.from_dict(_translate_0_1(values))
    if values["format"] != _FORMAT:
        raise InputError(f"format {values['format']}")
    return SearchRecord.from_dict({name: value for name, value in values.items() if name != "format"})


def _translate_0_1(values: Mapping[str, Any]) -> dict[str, Any]:
    """The record of 0.1 in today's words; its early ones have neither memory_limit_bytes nor on_error nor normalize."""
    asked, plan, best = values["request"], values["plan"], values.get("best")
    processes = dict(values.get("processes", {}))
    supervisor_bytes = processes.pop("supervisor_bytes", None)
    if supervisor_bytes is not None:
        processes = {"supervisor": {"starts": 1, "peak_bytes": supervisor_bytes}, **processes}
    return {
        "request": {
            "source": {
                "name": asked["data"],
                "data_dir": asked["data_dir"],
                "memory_limit_bytes": asked.get("memory_limit_bytes"),
                "on_error": asked.get("on_error", "stop"),
            },
            "input": {
                "image_size_pixels": asked["image_size_pixels"],
                "normalize": asked.get("normalize", "dataset"),
                "train_size": asked["train_size"],
            },
            **{name: asked[name] for name in ("tuner", "objective", "trials", "budget", "space", "recipe")},
        },
        "plan": {
            "data": {
                "origin": plan["source"],
                "class_names": plan["class_names"],
                "channels": plan["channels"],
                "streamed": None,  # which 0.1 did not write down
                "skipped_images": plan.get("skipped_images", []),
                "train_images": plan["train_images"],
                "validation_images": plan["validation_images"],
                "test_images": 0,
            },
            **{name: plan[name] for name in ("preprocessing", "recipe", "budget", "space", "versions", "machine")},
        },
        **{name: values[name] for name in ("seconds", "status", "updated", "trials", "completed") if name in values},
        "processes": [{"name": name, **facts} for name, facts in processes.items()],
        "best": best
        and {
            "trial_id": best["trial"],
            **{name: best[name] for name in ("spec", "recipe", "parameters", "multiply_adds")},
            "val_accuracy": best["validation"]["accuracy"],
            "val_loss": best["validation"]["loss"],
        },
    }
