"""`Checkpoint`: where a training keeps what it must not lose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import keras
import numpy as np

from keras_resnet.epochs import Epoch, EpochLog


class Checkpoint(Protocol):
    """What `fit` asks of the place that keeps its state; a run folder and a trial of a search are such places."""

    @property
    def epochs(self) -> Sequence[Epoch]:
        """The epochs of an earlier part of this very training, to go on from; none for a new one."""

    def resume(self, model: keras.Model) -> None:
        """Puts back weights and optimizer as they were after the last of `epochs`; called only where there are any."""

    def save_epoch(self, model: keras.Model, log: EpochLog, *, whole: bool) -> None:
        """Keeps the epoch that ended just now, and its weights if it is the best (`log.latest_is_best`).

        `whole` is False where Ctrl-C cut it short.
        """

    def load_best(self, model: keras.Model) -> bool:
        """Puts the weights of the best epoch back; returns False where nobody will use the model, and leaves it."""


class MemoryCheckpoint:
    """Keeps the best epoch's weights in memory."""

    epochs: Sequence[Epoch] = ()

    def __init__(self) -> None:
        self._weights: list[np.ndarray] = []

    def resume(self, model: keras.Model) -> None:
        """There is nothing to resume."""

    def save_epoch(self, model: keras.Model, log: EpochLog, *, whole: bool) -> None:
        """Keeps a copy of the weights if the epoch is the best so far."""
        if log.latest_is_best:
            self._weights = model.get_weights()

    def load_best(self, model: keras.Model) -> bool:
        """Puts the copy back."""
        model.set_weights(self._weights)
        return True
