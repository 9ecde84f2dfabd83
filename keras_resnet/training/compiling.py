"""Compiling a model that ends in logits: loss, metric, optimizer, how many steps are taken at once."""

from __future__ import annotations

from typing import Any

import keras

from keras_resnet.errors import InputError
from keras_resnet.fused import fuse_model
from keras_resnet.recipes import Recipe
from keras_resnet.training.optimizers import make_optimizer, make_schedule

# Below about 50 ms on two cores, returning to Python in each step takes 7 to 15 % of a training's time (measured).
_SMALL_STEP_MULTIPLY_ADDS = 10**9
_STEPS_OF_SMALL = 8  # 32 measured no better


def compile_model(
    model: keras.Model, recipe: Recipe, *, steps: int | None = None, steps_per_execution: int = 1
) -> None:
    """Compiles a model that ends in logits: cross-entropy, accuracy, the recipe's optimizer.

    Labels are integers. Where the recipe makes them soft, batches with a weight for each class are taken as well as
    integers, which those of a validation are.

    Args:
        model: from `build(..., classifier_activation=None)`.
        recipe: optimizer, learning rate, schedule, weight decay.
        steps: optimizer steps the schedule spans, epochs times batches per epoch; None where they are not known yet:
            the rate is then the peak, until `schedule_steps` says more.
        steps_per_execution: as for `model.compile`; see `choose_steps_per_execution`.

    Raises:
        InputError: fewer than one step.
    """
    _check_steps(steps)
    fuse_model(model)  # a loaded or cloned model; what `build` makes is fused already
    soft = recipe.soft_labels
    model.compile(
        optimizer=make_optimizer(model, recipe, steps),
        loss=_cross_entropy if soft else keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.MeanMetricWrapper(_is_hit, name="accuracy") if soft else "accuracy"],
        # On a CPU, XLA's convolutions are slower than TensorFlow's (measured: 1.3 times on resnet50, 1.4 on
        # resnet20_cifar).
        jit_compile="auto" if _has_accelerator() else False,
        steps_per_execution=steps_per_execution,
    )


def schedule_steps(model: keras.Model, recipe: Recipe, *, steps: int, steps_per_execution: int) -> None:
    """Gives a model that is compiled but has not trained yet the recipe's schedule over `steps` steps.

    Arguments and errors as `compile_model`.
    """
    _check_steps(steps)
    model.optimizer.learning_rate = make_schedule(recipe, steps)
    model.steps_per_execution = steps_per_execution  # read when the training step is first traced


def _check_steps(steps: int | None) -> None:
    if steps is not None and steps < 1:
        raise InputError(f"A training must have at least 1 step. Received: {steps}.")


def leave_soft_labels(model: keras.Model) -> None:
    """Compiles a model for integer labels if its loss is that of soft ones, with its optimizer and its state."""
    if getattr(model, "loss", None) is _cross_entropy:
        compile_for_integer_labels(model, optimizer=model.optimizer)


def compile_for_integer_labels(model: keras.Model, *, optimizer: keras.optimizers.Optimizer | None = None) -> None:
    """Compiles a model that ends in logits with Keras' own loss and metric alone, so that it loads without this package.

    Args:
        model: whose loss may have been that of soft labels.
        optimizer: kept with its state; by default a new one, so that no state of a training is saved.
    """
    model.compile(
        optimizer=optimizer or keras.optimizers.SGD(),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=model.jit_compile if optimizer else False,
    )


def _cross_entropy(labels: Any, logits: Any) -> Any:
    """`-sum(label * log softmax(logits))` for each image; labels are integers (batch,) or weights (batch, classes)."""
    if _are_integers(labels, logits):
        return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    return keras.losses.categorical_crossentropy(labels, logits, from_logits=True)


def _is_hit(labels: Any, logits: Any) -> Any:
    """1 where the greatest logit is that of the label, or of its greatest weight, and 0 elsewhere."""
    if _are_integers(labels, logits):
        return keras.metrics.sparse_categorical_accuracy(labels, logits)
    return keras.metrics.categorical_accuracy(labels, logits)


def _are_integers(labels: Any, logits: Any) -> bool:
    # Keras may have given integer labels an axis of 1; shapes are known when a step is traced, and one compiled loss
    # serves training and validation, which are traced apart.
    return len(labels.shape) < len(logits.shape) or labels.shape[-1] == 1


def _has_accelerator() -> bool:
    if keras.backend.backend() != "tensorflow":
        return True  # JAX is XLA throughout, torch decides by itself
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU"))


def choose_steps_per_execution(
    recipe: Recipe, steps: int, steps_per_epoch: int, multiply_adds: int | None = None
) -> int:
    """Returns how many steps of a training `model.fit` takes before it returns to Python and to its callbacks.

    What the recipe says; if it says nothing, 8 for steps so small that the way to Python and back is a part of their
    time, else 1: Ctrl-C then ends a training without delay. An epoch that `max_steps` cuts short must end between two
    executions, so the number is lowered to a divisor of its steps.

    Args:
        recipe: of the training.
        steps: optimizer steps in all.
        steps_per_epoch: batches in an epoch.
        multiply_adds: of one image, forward; unknown counts as large.
    """
    wanted = recipe.steps_per_execution
    if wanted is None:
        small = multiply_adds is not None and multiply_adds * recipe.batch_size < _SMALL_STEP_MULTIPLY_ADDS
        wanted = _STEPS_OF_SMALL if small and keras.backend.backend() == "tensorflow" else 1
    last = steps % steps_per_epoch or steps_per_epoch
    if last == steps_per_epoch:  # the end of the data ends an execution
        return min(wanted, steps_per_epoch)
    return max(number for number in range(1, min(wanted, last) + 1) if last % number == 0)
