"""Callbacks of a training: which epoch is kept, when it ends."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from keras_resnet.errors import InputError

log = logging.getLogger(__name__)


def needs_each_step(callback: keras.callbacks.Callback) -> bool:
    """Returns whether a callback does something in each training step, and does not say that every few will do."""
    names = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
    acts = any(getattr(type(callback), name) is not getattr(keras.callbacks.Callback, name) for name in names)
    # Those of LambdaCallback are attributes of the instance.
    acts = acts or any(name in vars(callback) for name in names)
    return acts and not getattr(callback, "some_steps_will_do", False)


class BestEpoch(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the lowest validation loss (the latest epoch without validation).

    In a short training `fit` has it re-estimate BN before each validation, so that epochs are compared as they will
    be used.

    Args:
        on_epoch: called with the records of all epochs so far after each.
        on_best: called after each epoch that is the best so far.
        load_best: puts the weights back that `on_best` has saved; without it they are kept in memory.
        records: of the epochs that an interrupted training has done, to go on from.
    """

    def __init__(
        self,
        *,
        on_epoch: Callable[[list[dict[str, float]]], object] | None = None,
        on_best: Callable[[], object] | None = None,
        load_best: Callable[[], object] | None = None,
        records: Iterable[dict[str, float]] = (),
    ) -> None:
        super().__init__()
        self.records: list[dict[str, float]] = []  # one per epoch: its number, Keras' logs, the learning rate
        self.best_epoch: int | None = None  # counted from 1
        self.stop: StopAtInterrupt | None = None  # of the training that this belongs to
        self._on_epoch, self._on_best, self._load_best = on_epoch, on_best, load_best
        self._weights: list[np.ndarray] = []
        self._lowest = float("inf")
        self._training = False
        self.steps_taken = 0  # of this training; the model's own counter goes back with the weights of the best epoch
        self._reestimate: Callable[[int], int] | None = None  # takes the steps that decide whether training is short
        self._planned_steps = 0
        for record in records:
            self._keep(record)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the training, or is about to: its last epoch is then not whole."""
        return self.stop is not None and self.stop.stopped

    def use_estimator(self, reestimate: Callable[[int], int], planned_steps: int) -> None:
        """Has BN re-estimated by `reestimate(steps)`, in a training of `planned_steps` steps."""
        self._reestimate, self._planned_steps = reestimate, planned_steps

    def reestimate(self) -> int:
        """Re-estimates BN if the steps taken were few; returns on how many images, 0 where they were not."""
        if self._reestimate is None:
            return 0
        return self._reestimate(self.steps_taken)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Validations from here on belong to this training."""
        self._training = True

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Re-estimates BN before a validation of a short training."""
        if self._training and self._reestimate is not None:
            self._reestimate(self._planned_steps)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Records the epoch and keeps its weights if it is the best."""
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        logs = {key: float(value) for key, value in (logs or {}).items()}
        is_best = self._keep({"epoch": epoch + 1, **logs, "learning_rate": rate})
        if self._on_epoch is not None:
            self._on_epoch(self.records)
        if is_best:
            if self._load_best is None:
                self._weights = self.model.get_weights()
            if self._on_best is not None:
                self._on_best()

    def _keep(self, record: dict[str, float]) -> bool:
        """Adds the record of an epoch and returns whether it is the best so far."""
        self.records.append(record)
        epoch = int(record["epoch"])
        loss = record.get("val_loss", -epoch)  # without validation, later is better
        is_best = bool(np.isfinite(loss) and np.isfinite(record.get("loss", 0.0)) and loss < self._lowest)
        if is_best:
            self._lowest, self.best_epoch = loss, epoch
        return is_best

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Later evaluations are not of this training."""
        self._training = False
        self.steps_taken = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))

    def restore(self) -> int:
        """Puts the best epoch's weights back and returns its number; InputError where no epoch had a finite loss."""
        if self.best_epoch is None:
            raise InputError(
                "No epoch ended with a finite loss: the training diverged. Lower the learning rate or set a clip norm. "
                f"Received: losses {[record.get('val_loss', record.get('loss')) for record in self.records]}."
            )
        if self._load_best is None:
            self.model.set_weights(self._weights)
        else:
            self._load_best()
        return self.best_epoch


class StopAtStep(keras.callbacks.Callback):
    """Ends the training after a number of steps in all, even within an epoch."""

    def __init__(self, max_steps: int, steps_per_epoch: int) -> None:
        super().__init__()
        self._left, self._steps_per_epoch = max_steps, steps_per_epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Counts the steps up to this one, of which Keras may have taken several at a time."""
        if batch + 1 >= self._left:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Counts the epoch's steps; the last number that Keras gave may lie beyond them."""
        self._left -= self._steps_per_epoch


class StopAtInterrupt(keras.callbacks.Callback):
    """Ends a training at the next step after Ctrl-C; a second Ctrl-C interrupts at once. Also a context manager.

    An exception raised wherever the signal happens to arrive would be lost in a destructor or leave half a step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stopped = False
        self._previous: Any = None

    def __enter__(self) -> StopAtInterrupt:
        if threading.current_thread() is threading.main_thread():  # only there can signals be handled
            self._previous = signal.signal(signal.SIGINT, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _stop(self, *_: object) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True
        log.warning("stopping after this step, to keep the best epoch; Ctrl-C again stops at once")

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Ends the training after this step if it was stopped."""
        if self.stopped:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Ends the training after this epoch if it was stopped during validation."""
        self.on_train_batch_end(0)
