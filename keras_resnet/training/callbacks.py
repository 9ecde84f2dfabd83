"""Callbacks of a training: what is kept of its epochs, what comes before a validation, when it ends."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from typing import Any

import keras

from keras_resnet.epochs import Epoch, EpochLog
from keras_resnet.training.checkpoints import Checkpoint

log = logging.getLogger(__name__)


def needs_each_step(callback: keras.callbacks.Callback) -> bool:
    """Returns whether a callback does something in each training step, and does not say that every few will do."""
    names = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
    acts = any(getattr(type(callback), name) is not getattr(keras.callbacks.Callback, name) for name in names)
    # Those of LambdaCallback are attributes of the instance.
    acts = acts or any(name in vars(callback) for name in names)
    return acts and not getattr(callback, "some_steps_will_do", False)


class KeepEpochs(keras.callbacks.Callback):
    """Adds each epoch to a log and has a checkpoint keep it.

    Args:
        log: of this training's epochs.
        checkpoint: where they are kept.
        stop: of this training: an epoch that it ended is not whole.
    """

    def __init__(self, log: EpochLog, checkpoint: Checkpoint, stop: StopAtInterrupt) -> None:
        super().__init__()
        self._log, self._checkpoint, self._stop = log, checkpoint, stop

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keeps the epoch with its figures."""
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        figures = {name: float(value) for name, value in (logs or {}).items()}
        self._log.add(Epoch(epoch + 1, rate, figures))
        self._checkpoint.save_epoch(self.model, self._log, whole=not self._stop.stopped)


class ReestimateBatchNorm(keras.callbacks.Callback):
    """Re-estimates BN before each validation of a training; other evaluations are left alone."""

    def __init__(self, reestimate: Callable[[], object]) -> None:
        super().__init__()
        self._reestimate, self._training = reestimate, False

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Counts validations from here on to this training."""
        self._training = True

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Re-estimates BN."""
        if self._training:
            self._reestimate()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Leaves later evaluations alone."""
        self._training = False


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
