"""KerasTuner's four oracles, inside a budget and safe against an end at any moment."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner import oracles
from keras_tuner.engine.base_tuner import BaseTuner

from keras_resnet.files import write_beside
from keras_resnet.records import check_choice
from keras_resnet.search.candidates import Candidates
from keras_resnet.search.space import TUNERS

REASON_FILE = "reason.txt"  # in a trial's folder: why it failed; KerasTuner's wire has no place for it
_MOST_DRAWS = 2000  # random points before one is moved into the budget instead of drawn again
_BAYESIAN_DRAWS, _BAYESIAN_NEIGHBOURS = 400, 200  # points the acquisition is looked at
_NO_LIMIT = 10**9
# Ties in accuracy are broken by the loss, whose weight stays far below the accuracy of one image.
_LOSS_WEIGHT = 1e-9


class _Feasible(keras_tuner.Oracle):
    """What all four share: `candidates` decides which values may become a trial; the state on disk is always whole."""

    def __init__(self, *args: Any, candidates: Candidates, **kwargs: Any) -> None:
        self.candidates = candidates
        hyperparameters = keras_tuner.HyperParameters()
        candidates.declare(hyperparameters)
        # A failed trial says why and the search goes on; what is a bug of the caller's stops it elsewhere.
        super().__init__(*args, hyperparameters=hyperparameters, max_consecutive_failed_trials=_NO_LIMIT, **kwargs)

    def _next_generator(self) -> random.Random:
        """The generator of one proposal: a function of the seed and of how many there were, as saved with the state.

        KerasTuner's seed + count would give a search with the next seed the same points, one later.
        """
        count = self._seed_state - self.seed
        self._seed_state += 1
        return random.Random(f"{self.seed}/{count}")

    def _draw(self, generator: random.Random) -> dict[str, Any]:
        """One random point, active hyperparameters only."""
        values: dict[str, Any] = {}
        for hp in self.hyperparameters.space:
            if all(condition.is_active(values) for condition in hp.conditions):
                values[hp.name] = hp.prob_to_value(generator.random())
        return values

    def _draw_admitted(self, generator: random.Random) -> dict[str, Any]:
        for _ in range(_MOST_DRAWS):
            values = self._draw(generator)
            if self.candidates.admits(values):
                return values
        return self._active(self.candidates.move(values))

    def _active(self, values: Mapping[str, Any]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for hp in self.hyperparameters.space:
            if all(condition.is_active(kept) for condition in hp.conditions):
                kept[hp.name] = values.get(hp.name, hp.default)
        return kept

    def _random_values(self) -> dict[str, Any] | None:
        """As KerasTuner's, which all random proposals go through, but only points inside the budget."""
        generator = self._next_generator()
        for _ in range(self._max_collisions + 1):
            values = self._draw_admitted(generator)
            if not self._duplicate(values):
                return values
        return None

    def score_trial(self, trial: Any) -> None:
        """The objective's best value; of equal accuracies the one with the lower loss is ahead."""
        super().score_trial(trial)
        if self.objective.name == "val_accuracy" and trial.metrics.exists("val_loss"):
            trial.score -= _LOSS_WEIGHT * trial.metrics.get_best_value("val_loss")

    def end_trial(self, trial: Any) -> None:
        """Ends a trial, with the reason that its worker left if it failed."""
        reason = Path(self._get_trial_dir(trial.trial_id)) / REASON_FILE
        if trial.status in ("FAILED", "INVALID") and not trial.message and reason.exists():
            trial.message = reason.read_text("utf-8")
        super().end_trial(trial)
        self.save()  # KerasTuner's own save in between still has the trial among the ongoing ones

    def save(self) -> None:
        """Writes the state beside and renames it: KerasTuner's own writing can be cut in two."""
        self._write(self._get_oracle_fname(), super(keras_tuner.Oracle, self).save)

    def _save_trial(self, trial: Any) -> None:
        self._write(str(Path(self._get_trial_dir(trial.trial_id)) / "trial.json"), trial.save)

    @staticmethod
    def _write(path: str, save: Callable[[str], object]) -> None:
        write_beside(path, lambda partial: save(str(partial)))

    def reload(self) -> None:
        """Goes on from the files, whenever the process that wrote them ended."""
        super().reload()
        known = set(self.start_order)
        for trial_id in [trial_id for trial_id in self.trials if trial_id not in known]:
            # Ended between a trial's own file and the oracle's: no worker has heard of it, and the oracle, which
            # does not remember it, draws the same again.
            shutil.rmtree(Path(self._project_dir) / f"trial_{trial_id}")
            del self.trials[trial_id]
        # KerasTuner has them in the order in which the file system lists them, which decides between equal scores.
        for trial_id in self.start_order:
            if trial_id in self.trials:
                self.trials[trial_id] = self.trials.pop(trial_id)
        for trial in self.trials.values():
            if trial.status in ("COMPLETED", "FAILED") and trial.trial_id not in self.end_order:
                self.end_order.append(trial.trial_id)  # ended between the two files at the trial's end
        done = set(self.end_order)
        retries = list(self._retry_queue)  # type: ignore[has-type]
        self._retry_queue = [trial_id for trial_id in dict.fromkeys(reversed(retries)) if trial_id not in done]
        self.tuner_ids: set[str] = set()


class WholeTuner(BaseTuner):
    """KerasTuner's base of all tuners; its own file, too, is written beside and renamed."""

    def save(self) -> None:
        """Writes the oracle's state, where it has the oracle, and its own."""
        if not self._is_worker():
            self.oracle.save()
        text = json.dumps(self.get_state())
        write_beside(self._get_tuner_fname(), lambda path: path.write_text(text, "utf-8"))


class RandomSearchOracle(_Feasible, oracles.RandomSearchOracle):
    """KerasTuner's random search over the points inside the budget."""


class HyperbandOracle(_Feasible, oracles.HyperbandOracle):
    """KerasTuner's Hyperband over the points inside the budget; at most `max_trials` trials, rungs counted singly."""

    def __init__(self, *args: Any, max_trials: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.max_trials = max_trials


class BayesianOptimizationOracle(_Feasible, oracles.BayesianOptimizationOracle):
    """KerasTuner's Bayesian optimization; the lower confidence bound is looked at inside the budget only.

    Candidates are random points and neighbours of the best trials: of a space of choices the bound has no gradient.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next trial's values, or that the space is exhausted."""
        done = [trial for trial in self.trials.values() if trial.status == "COMPLETED"]
        if len(done) < (self.num_initial_points or 3):
            return self._random_populate_space()
        # KerasTuner starts its generator anew after an interruption; this one goes on.
        generator = self._next_generator()
        sign = -1.0 if self.objective.direction == "max" else 1.0
        x = np.array([self._vector(trial.hyperparameters.values) for trial in done])
        y = np.array([sign * trial.score for trial in done])
        self.gpr.fit(x, y)
        running = [trial for trial in self.ongoing_trials.values() if trial.status != "COMPLETED"]
        if running:  # a pessimistic guess at what they will come to, so that none is proposed twice
            x_running = np.array([self._vector(trial.hyperparameters.values) for trial in running])
            mean, deviation = self.gpr.predict(x_running, return_std=True)
            self.gpr.fit(np.concatenate([x, x_running]), np.concatenate([y, mean + deviation]))
        best = sorted(done, key=lambda trial: sign * trial.score)[:5]
        points = [self._draw_admitted(generator) for _ in range(_BAYESIAN_DRAWS)]
        points += [self._neighbour(best[n % len(best)], generator) for n in range(_BAYESIAN_NEIGHBOURS)]
        points = [values for values in points if self.candidates.admits(values) and not self._duplicate(values)]
        if not points:
            return self._random_populate_space()
        mean, deviation = self.gpr.predict(np.array([self._vector(values) for values in points]), return_std=True)
        return {"status": "RUNNING", "values": points[int(np.argmin(mean - self.beta * deviation))]}

    def _vector(self, values: Mapping[str, Any]) -> list[float]:
        """Each hyperparameter as a number in [0, 1]; inactive ones at their default."""
        space = self.hyperparameters.space
        return [min(max(hp.value_to_prob(values.get(hp.name, hp.default)), 0.0), 1.0) for hp in space]

    def _neighbour(self, trial: Any, generator: random.Random) -> dict[str, Any]:
        values = dict(trial.hyperparameters.values)
        for hp in generator.sample(self.hyperparameters.space, k=generator.randint(1, 3)):
            values[hp.name] = hp.prob_to_value(generator.random())
        return self._active(values)


class GridSearchOracle(_Feasible, oracles.GridSearchOracle):
    """Every point of the grid that lies inside the budget, in KerasTuner's order, each once.

    A continuous hyperparameter has its default and the ten values into which KerasTuner divides it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._last: dict[str, Any] | None = None  # the latest point; KerasTuner's own list is not in its saved state

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next point of the grid, or that there is none."""
        values = self._active({}) if self._last is None else self._advance(self._last)
        while values is not None and not self.candidates.admits(values):
            values = self._advance(values, self._hopeless_at(values))
        if values is None:
            return {"status": "STOPPED", "values": None}
        self._last = values
        return {"status": "RUNNING", "values": dict(values)}

    def _advance(self, values: Mapping[str, Any], position: int | None = None) -> dict[str, Any] | None:
        """The next point that differs at `position` or before it; the hyperparameters behind start at their default."""
        space = self.hyperparameters.space
        for index in reversed(range(len(space) if position is None else position + 1)):
            hp = space[index]
            if hp.name not in values:
                continue
            order = [hp.default, *(value for value in sorted(hp.values) if value != hp.default)]
            place = order.index(values[hp.name])
            if place + 1 < len(order):
                before = {other.name: values[other.name] for other in space[:index] if other.name in values}
                return self._active({**before, hp.name: order[place + 1]})
        return None

    def _hopeless_at(self, values: Mapping[str, Any]) -> int | None:
        """The first hyperparameter from which on no point with the same beginning lies inside the budget."""
        beginning: dict[str, Any] = {}
        for index, hp in enumerate(self.hyperparameters.space):
            if hp.name in values:
                beginning[hp.name] = values[hp.name]
                if not self.candidates.may_admit(beginning):
                    return index
        return None

    def get_state(self) -> dict[str, Any]:
        """KerasTuner's state and the place in the grid."""
        return {**super().get_state(), "last": self._last}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """The other way."""
        super().set_state(state)
        self._last = state["last"]


def make_oracle(
    kind: str,
    candidates: Candidates,
    *,
    objective: str | keras_tuner.Objective = "val_accuracy",
    max_trials: int | None = 20,
    epochs: int | None = None,
    seed: int | None = None,
    **options: Any,
) -> _Feasible:
    """Returns the oracle called `kind`, whose every proposal is inside the budget of `candidates`.

    Args:
        kind: "random", "bayesian", "hyperband" or "grid".
        candidates: space, input and budget.
        objective: what is optimized, as for KerasTuner.
        max_trials: at most so many; None for all of a grid, or one full Hyperband.
        epochs: of Hyperband's last rung; by default the recipe's.
        seed: of the draws.
        options: further arguments of KerasTuner's oracle.

    Raises:
        InputError: another kind, saying which there are.
    """
    check_choice("tuner", kind, TUNERS)
    # KerasTuner takes a seed of 0 for none.
    seed = None if seed is None else seed + 1
    options = {"objective": objective, "seed": seed, "candidates": candidates, **options}
    if kind == "hyperband":
        epochs = epochs or candidates.recipe.epochs
        # 0: goes on with further brackets until there are max_trials.
        options.setdefault("hyperband_iterations", 1 if max_trials is None else 0)
        return HyperbandOracle(max_epochs=epochs, max_trials=max_trials, **options)
    if kind == "grid":
        return GridSearchOracle(max_trials=max_trials, **options)
    if kind == "bayesian":
        # KerasTuner's default, three times the number of hyperparameters, is more than most searches have trials.
        options.setdefault("num_initial_points", max(4, (max_trials or 20) // 4))
        return BayesianOptimizationOracle(max_trials=max_trials or 20, **options)
    return RandomSearchOracle(max_trials=max_trials or 20, **options)
