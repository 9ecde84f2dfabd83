"""`fit`: a training by its recipe, from a fresh model to the best epoch."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from keras_resnet.epochs import Epoch, EpochLog
from keras_resnet.errors import InputError
from keras_resnet.recipes import Recipe
from keras_resnet.training.batchnorm import BatchNormEstimator, reestimation_batches
from keras_resnet.training.callbacks import (
    KeepEpochs,
    ReestimateBatchNorm,
    StopAtInterrupt,
    StopAtStep,
    needs_each_step,
)
from keras_resnet.training.checkpoints import Checkpoint, MemoryCheckpoint
from keras_resnet.training.compiling import (
    choose_steps_per_execution,
    compile_model,
    leave_soft_labels,
    schedule_steps,
)
from keras_resnet.training.optimizers import count_steps


class Diverged(InputError):
    """No epoch of a training ended with a finite loss."""


@dataclass(frozen=True)
class Batches:
    """What a training reads."""

    train: Any  # batches, one epoch per iteration, with soft labels only if the recipe has them
    steps_per_epoch: int  # batches in one iteration of `train`
    validation: Any = None  # batches that pick the best epoch; without them the last epoch is kept
    bn: Iterable[Any] | None = None  # batches that BN is re-estimated on; by default one more iteration of `train`


@dataclass(frozen=True)
class Trained:
    """What a training came to."""

    epochs: tuple[Epoch, ...]
    best_epoch: int  # counted from 1; its weights are in the model
    steps: int  # optimizer steps taken, those of an earlier part of the training included
    bn_images: int  # that BN was re-estimated on; 0 where training was long enough for moving averages
    bn_seconds: float  # what that took
    interrupted: bool  # whether Ctrl-C ended it: its last epoch is then not whole


def fit(
    model: keras.Model,
    batches: Batches,
    recipe: Recipe,
    *,
    checkpoint: Checkpoint | None = None,
    first_epoch: int = 0,
    multiply_adds: int | None = None,
    compiled: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **fit_options: Any,
) -> Trained:
    """Trains a model by a recipe; afterwards it has the best epoch's weights, and BN statistics as it will be used.

    BN is re-estimated where the steps were few (`reestimate_bn` of the recipe), before each validation too, so that
    epochs are compared as they will be used. Ctrl-C ends the training after the current step, which then is the last
    of its epoch; a second one interrupts at once.

    Args:
        model: ends in logits.
        batches: to train and to validate on.
        recipe: of the training.
        checkpoint: where epochs are kept, and where an interrupted training goes on; by default in memory.
        first_epoch: epochs of the recipe that another training has done. The schedule spans those that are left.
        multiply_adds: of one image, forward; with it, small steps are taken several at a time, unless one of
            `callbacks` acts in each step.
        compiled: whether the model keeps the loss, metrics and optimizer that it is compiled with; only the schedule
            is set then. By default it is compiled by the recipe.
        callbacks: as for `model.fit`; they run after an epoch is kept.
        fit_options: further arguments of `model.fit`.

    Raises:
        Diverged: no epoch ended with a finite loss.
        InputError: less than one step.
    """
    checkpoint = MemoryCheckpoint() if checkpoint is None else checkpoint
    per_epoch = batches.steps_per_epoch
    steps = count_steps(replace(recipe, epochs=recipe.epochs - first_epoch), per_epoch)
    if any(map(needs_each_step, callbacks)):
        multiply_adds = None
    at_once = choose_steps_per_execution(recipe, steps, per_epoch, multiply_adds)
    (schedule_steps if compiled else compile_model)(model, recipe, steps=steps, steps_per_execution=at_once)
    log = EpochLog(checkpoint.epochs)
    if log.epochs:
        model.optimizer.build(model.trainable_variables)
        checkpoint.resume(model)
    estimate, bn_batches = BatchNormEstimator(model), batches.train if batches.bn is None else batches.bn

    def reestimate(steps: int) -> int:
        count = reestimation_batches(recipe, steps)
        return estimate(bn_batches, count) if count else 0

    stop = StopAtInterrupt()
    every = [ReestimateBatchNorm(lambda: reestimate(steps)), KeepEpochs(log, checkpoint, stop), *callbacks, stop]
    if recipe.max_steps is not None:
        every.append(StopAtStep(recipe.max_steps, per_epoch))
    with stop:
        model.fit(
            batches.train,
            epochs=first_epoch - (-steps // per_epoch),
            initial_epoch=log.epochs[-1].number if log.epochs else first_epoch,
            validation_data=batches.validation,
            callbacks=every,
            shuffle=False,  # the dataset shuffles
            **fit_options,
        )
    # The counter of the optimizer goes back with the weights of the best epoch.
    taken = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
    leave_soft_labels(model)  # as it would be saved by the caller, it loads without this package
    if log.best is None:
        losses = [epoch.loss if epoch.val_loss is None else epoch.val_loss for epoch in log.epochs]
        raise Diverged(
            "No epoch ended with a finite loss: the training diverged. Lower the learning rate or set a clip norm. "
            f"Received: losses {losses}."
        )
    start, images = time.monotonic(), 0
    if checkpoint.load_best(model):
        images = reestimate(taken)
    return Trained(
        tuple(log.epochs), log.best.number, taken, images, time.monotonic() - start, interrupted=stop.stopped
    )
