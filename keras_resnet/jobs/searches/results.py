"""`Search` and `TrialResult`: what a search has come to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_resnet.epochs import Epoch, EpochLog
from keras_resnet.errors import InputError
from keras_resnet.jobs.searches.record import BestRecord, SearchRecord
from keras_resnet.recipes import Recipe
from keras_resnet.specs import ResNetSpec


@dataclass(frozen=True)
class TrialResult:
    """One trial of a search, as far as it has come."""

    trial_id: str
    status: str  # "RUNNING", "COMPLETED", "FAILED"
    spec: ResNetSpec
    recipe: Recipe
    parameters: int
    multiply_adds: int
    first_epoch: int  # epochs done by the trial that this one goes on from (Hyperband), else 0
    epochs: int  # that the network is to have seen in the end
    history: tuple[Epoch, ...]  # as far as the trial has come
    seconds: float
    reason: str  # why it failed, else ""

    @property
    def kept(self) -> Epoch | None:
        """The epoch whose weights are kept, that of the lowest validation loss; None before the first has ended."""
        return EpochLog(self.history).best

    @property
    def epochs_done(self) -> int:
        """The number of epochs that the network has seen."""
        return self.history[-1].number if self.history else self.first_epoch

    def to_row(self, rank: int | None) -> dict[str, Any]:
        """Returns the trial as a row of the leaderboard; what it does not have is ""."""
        kept = self.kept
        return {
            "rank": rank or "",
            "trial": self.trial_id,
            "status": self.status.lower(),
            "network": self.spec.name,
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "epochs": self.epochs_done,
            "val_accuracy": kept.val_accuracy if kept else "",
            "val_loss": kept.val_loss if kept else "",
            "learning_rate": self.recipe.learning_rate,
            "weight_decay": self.recipe.weight_decay,
            "shift_fraction": self.recipe.shift_fraction,
            "seconds": round(self.seconds, 1),
            "reason": self.reason,
        }

    def to_best(self) -> BestRecord:
        """Returns the trial as the winner that `search.json` tells of; it must have an epoch."""
        kept = self.kept
        assert kept is not None
        assert kept.val_accuracy is not None
        assert kept.val_loss is not None
        return BestRecord(
            self.trial_id,
            self.spec,
            self.recipe,
            self.parameters,
            self.multiply_adds,
            kept.val_accuracy,
            kept.val_loss,
        )


@dataclass(frozen=True)
class Search:
    """A search as its folder tells it, finished or not."""

    path: Path
    record: SearchRecord  # search.json
    trials: tuple[TrialResult, ...]  # in the order of their beginning

    @property
    def ranking(self) -> list[TrialResult]:
        """The completed trials, the best by validation first: by the objective, ties by the loss."""
        by_accuracy = self.record.request.objective == "val_accuracy"
        ranked = [
            (-(kept.val_accuracy or 0.0) if by_accuracy else 0.0, kept.val_loss or 0.0, index)
            for index, trial in enumerate(self.trials)
            if trial.status == "COMPLETED" and (kept := trial.kept) is not None
        ]
        return [self.trials[index] for *_, index in sorted(ranked)]

    @property
    def best(self) -> TrialResult:
        """The trial that is best by validation; raises InputError where none is completed."""
        ranking = self.ranking
        if not ranking:
            raise InputError(
                f"A search must have at least one completed trial. Received: {self.path}, where "
                f"{len(self.trials)} have begun."
            )
        return ranking[0]
