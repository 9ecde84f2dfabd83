"""`Epoch` and `EpochLog`: what a training's epochs came to, and which of them is the best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from keras_resnet.records import Record


@dataclass(frozen=True)
class Epoch(Record):
    """One pass over the training images and what was measured at its end."""

    number: int  # counted from 1
    learning_rate: float  # at its end
    figures: dict[str, float] = field(default_factory=dict)  # Keras' logs: loss, accuracy, val_loss, val_accuracy, ...

    @property
    def loss(self) -> float | None:
        """The training loss."""
        return self.figures.get("loss")

    @property
    def val_loss(self) -> float | None:
        """The validation loss; None without a validation."""
        return self.figures.get("val_loss")

    @property
    def val_accuracy(self) -> float | None:
        """The validation accuracy; None without a validation."""
        return self.figures.get("val_accuracy")

    def to_row(self) -> dict[str, float]:
        """Returns the epoch as a row of `history.csv`: its number, the figures, the learning rate."""
        return {"epoch": self.number, **self.figures, "learning_rate": self.learning_rate}

    @classmethod
    def from_row(cls, row: Mapping[str, float]) -> Self:
        """Reads what `to_row` returned."""
        figures = {name: value for name, value in row.items() if name not in ("epoch", "learning_rate")}
        return cls(int(row["epoch"]), row["learning_rate"], figures)


class EpochLog:
    """The epochs of a training in their order; the best is the one with the lowest validation loss.

    Without a validation the latest is. An epoch with a loss that is no number is never the best.

    Args:
        epochs: of an earlier part of the same training.
    """

    def __init__(self, epochs: Iterable[Epoch] = ()) -> None:
        self.epochs: list[Epoch] = []
        self.best: Epoch | None = None
        self._lowest = math.inf
        for epoch in epochs:
            self.add(epoch)

    def add(self, epoch: Epoch) -> None:
        """Adds the epoch that ended just now."""
        self.epochs.append(epoch)
        loss = -epoch.number if epoch.val_loss is None else epoch.val_loss
        if math.isfinite(loss) and math.isfinite(epoch.loss or 0.0) and loss < self._lowest:
            self._lowest, self.best = loss, epoch

    @property
    def latest_is_best(self) -> bool:
        """Whether the epoch that was added last is the best so far."""
        return bool(self.epochs) and self.epochs[-1] is self.best
