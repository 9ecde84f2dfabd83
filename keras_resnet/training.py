"""Compile, fit, re-estimate BN, evaluate: from a model and datasets to a trained model and its figures."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_resnet.callbacks import BestEpoch, StopAtInterrupt, StopAtStep, needs_each_step
from keras_resnet.errors import InputError
from keras_resnet.fused import fuse_model
from keras_resnet.recipes import SHORT_TRAINING_STEPS, Recipe

# Precise BN needs no more images than this: the mean of a channel over 8,192 images is known to about 1 %.
REESTIMATION_IMAGES = 8192
# Below about 50 ms on two cores, returning to Python in each step takes 7 to 15 % of a training's time (measured).
_SMALL_STEP_MULTIPLY_ADDS = 10**9
_STEPS_OF_SMALL = 8  # 32 measured no better
_STAIRCASE_STEPS = 20  # levels of the warm-up before a "step" schedule, which Keras has no warm-up for


def count_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    """Returns how many optimizer steps a recipe takes."""
    steps = recipe.epochs * steps_per_epoch
    return steps if recipe.max_steps is None else min(steps, recipe.max_steps)


def make_schedule(recipe: Recipe, steps: int) -> Any:
    """`peak * warmup(t) * decay(t)`: Keras' learning-rate schedule over `steps` steps, or a plain float."""
    peak, warmup = recipe.peak_learning_rate, min(round(recipe.warmup_fraction * steps), steps - 1)
    schedules = keras.optimizers.schedules
    if recipe.schedule == "step":
        ramp = np.unique(np.linspace(0, warmup, min(warmup, _STAIRCASE_STEPS) + 1).round().astype(int))[1:]
        drops = [step for step in (steps // 2, 3 * steps // 4) if step > warmup]
        rates = [peak * float(end) / warmup for end in ramp] + [peak * 0.1**k for k in range(len(drops) + 1)]
        ends = [int(step) - 1 for step in (*ramp, *drops)]  # the last step of each rate but the final one
        return schedules.PiecewiseConstantDecay(ends, rates) if ends else peak
    if recipe.schedule == "constant" and not warmup:
        return peak
    return schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else peak,
        decay_steps=max(steps - warmup, 1),
        alpha=1.0 if recipe.schedule == "constant" else 0.0,
        warmup_target=peak if warmup else None,
        warmup_steps=warmup,
    )


def make_optimizer(model: keras.Model, recipe: Recipe, steps: int) -> keras.optimizers.Optimizer:
    """Returns the recipe's optimizer, with its schedule; BN's scales and offsets and all biases do not decay."""
    shared: dict[str, Any] = {
        "learning_rate": make_schedule(recipe, steps),
        # With 0 Keras would subtract 0 from every kernel in each step; its AdamW takes no None.
        "weight_decay": recipe.weight_decay if recipe.optimizer == "adamw" else recipe.weight_decay or None,
        "global_clipnorm": recipe.clip_norm,
    }
    if recipe.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(momentum=recipe.momentum, nesterov=recipe.momentum > 0, **shared)
    else:
        optimizer = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}[recipe.optimizer](**shared)
    if recipe.weight_decay:
        not_kernels = [weight for weight in model.trainable_weights if len(weight.shape) == 1]
        optimizer.exclude_from_weight_decay(var_list=not_kernels)
    return optimizer


def compile_model(model: keras.Model, recipe: Recipe, *, steps: int, steps_per_execution: int = 1) -> None:
    """Compiles a model that ends in logits: cross-entropy, accuracy, the recipe's optimizer.

    Labels are integers. Where the recipe makes them soft, batches with a weight for each class are taken as well as
    integers, which those of a validation are.

    Args:
        model: from `build(..., classifier_activation=None)`.
        recipe: optimizer, learning rate, schedule, weight decay.
        steps: optimizer steps the schedule spans, epochs times batches per epoch.
        steps_per_execution: as for `model.compile`; see `choose_steps_per_execution`.

    Raises:
        InputError: fewer than one step.
    """
    if steps < 1:
        raise InputError(f"A training must have at least 1 step. Received: {steps}.")
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


class BatchNormEstimator:
    """Re-estimates the BN statistics of one model, as often as asked; `reestimate_batchnorm` says how."""

    def __init__(self, model: keras.Model) -> None:
        self.layers = [
            layer
            for layer in model._flatten_layers(include_self=False, recursive=True)
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        ]
        self._forward: Callable[[Any], Any] = lambda x: model(x, training=True)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # A graph of its own, traced once: it keeps the momentum of 0 that it is traced with.
            self._forward = tf.function(self._forward, reduce_retracing=True)

    def __call__(self, dataset: Iterable[Any], batches: int | None = None) -> int:
        """Re-estimates on `batches` batches of `dataset` and returns the number of images."""
        if not self.layers:
            return 0
        momenta = [bn.momentum for bn in self.layers]
        statistics = [
            (keras.ops.convert_to_numpy(bn.moving_mean), keras.ops.convert_to_numpy(bn.moving_variance))
            for bn in self.layers
        ]
        first = [np.zeros(bn.moving_mean.shape) for bn in self.layers]  # sums of x over images, in float64
        second = [np.zeros(bn.moving_mean.shape) for bn in self.layers]  # sums of x squared
        images = 0
        try:
            for bn in self.layers:
                bn.momentum = 0.0  # the moving statistics become those of the last batch
            for batch in itertools.islice(dataset, batches):
                x = batch[0] if isinstance(batch, (tuple, list)) else batch
                self._forward(x)
                count = int(x.shape[0])
                images += count
                for index, bn in enumerate(self.layers):
                    mean = np.asarray(keras.ops.convert_to_numpy(bn.moving_mean), np.float64)
                    first[index] += count * mean
                    second[index] += count * (keras.ops.convert_to_numpy(bn.moving_variance) + mean**2)
            if images:
                statistics = [
                    (total / images, squares / images - (total / images) ** 2)
                    for total, squares in zip(first, second, strict=True)
                ]
        finally:  # whatever happened, no layer is left with the statistics of one batch
            for bn, momentum, (mean, variance) in zip(self.layers, momenta, statistics, strict=True):
                bn.momentum = momentum
                bn.moving_mean.assign(np.asarray(mean, np.float32))
                bn.moving_variance.assign(np.maximum(variance, 0).astype(np.float32))
        if not images:
            raise InputError("Re-estimating BN needs at least one batch. Received: an empty dataset.")
        return images


def reestimate_batchnorm(model: keras.Model, dataset: Iterable[Any], *, batches: int | None = None) -> int:
    """`mean = E[batch mean], variance = E[batch variance + batch mean^2] - mean^2` in every BN layer ("precise BN").

    Moving averages lag behind the weights: after few steps they describe a network that is no more (Wu and
    Johnson 2021, Rethinking "Batch" in BatchNorm, section 3). Weights do not change.

    Args:
        model: any Keras model; without BN layers nothing happens, and frozen ones stay as they are.
        dataset: batches as for `model.fit`, well mixed; what comes after the images in a batch is ignored.
        batches: how many to use; by default all.

    Returns:
        The number of images used.

    Raises:
        InputError: the dataset is empty; the statistics are then unchanged.
    """
    return BatchNormEstimator(model)(dataset, batches)


def fit(
    model: keras.Model,
    train: Any,
    recipe: Recipe,
    *,
    validation: Any = None,
    steps_per_epoch: int,
    verbose: int | str = "auto",
    best: BestEpoch | None = None,
    bn_data: Iterable[Any] | None = None,
    first_epoch: int = 0,
    resume: Callable[[], int] | None = None,
    multiply_adds: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **fit_options: Any,
) -> BestEpoch:
    """Compiles and trains; returns the callback that holds the best epoch: `restore()` it, then `reestimate()` BN.

    Ctrl-C ends the training after the current step, which then is the last of its epoch.

    Args:
        model: ends in logits.
        train: batches, one epoch per iteration, with soft labels only if the recipe has them.
        recipe: of the training.
        validation: batches that pick the best epoch; without them the last epoch is kept.
        steps_per_epoch: batches in one iteration of `train`.
        verbose: of `model.fit`.
        best: a callback with actions of the caller's; by default a new one.
        bn_data: batches that BN is re-estimated on; by default `train`, one more iteration each time.
        first_epoch: epochs of the recipe that an earlier training has done. The schedule spans those that are left.
        resume: called once the model is compiled; loads a checkpoint of this very training, weights and optimizer,
            and returns how many epochs of the recipe it has seen.
        multiply_adds: of one image, forward; with it, small steps are taken several at a time, unless
            one of `callbacks` acts in each step.
        callbacks: further ones; they run after `best`.
        fit_options: further arguments of `model.fit`.
    """
    best = best or BestEpoch()
    steps = count_steps(replace(recipe, epochs=recipe.epochs - first_epoch), steps_per_epoch)
    if any(map(needs_each_step, callbacks)):
        multiply_adds = None
    at_once = choose_steps_per_execution(recipe, steps, steps_per_epoch, multiply_adds)
    compile_model(model, recipe, steps=steps, steps_per_execution=at_once)
    initial_epoch = first_epoch
    if resume is not None:
        model.optimizer.build(model.trainable_variables)
        initial_epoch = resume()
    estimator = BatchNormEstimator(model)

    def reestimate(steps: int) -> int:
        batches = reestimation_batches(recipe, steps)
        return estimator(train if bn_data is None else bn_data, batches) if batches else 0

    best.use_estimator(reestimate, steps)
    best.stop = stop = StopAtInterrupt()
    callbacks = [best, *callbacks, stop]
    if recipe.max_steps is not None:
        callbacks.append(StopAtStep(recipe.max_steps, steps_per_epoch))
    with stop:
        model.fit(
            train,
            epochs=first_epoch - (-steps // steps_per_epoch),
            initial_epoch=initial_epoch,
            validation_data=validation,
            callbacks=callbacks,
            shuffle=False,  # the dataset shuffles
            verbose=verbose,
            **fit_options,
        )
    if recipe.soft_labels:  # as it would be saved by the caller, it loads without this package
        compile_for_integer_labels(model, optimizer=model.optimizer)
    return best


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


def reestimation_batches(recipe: Recipe, steps: int) -> int:
    """Returns on how many batches BN is re-estimated in a training of `steps` steps; 0 where it is not short.

    No more than there are steps, so that it takes at most about a third of the training's own time.
    """
    wanted = steps < SHORT_TRAINING_STEPS if recipe.reestimate_bn is None else recipe.reestimate_bn
    return min(steps, -(-REESTIMATION_IMAGES // recipe.batch_size)) if wanted else 0


@dataclass(frozen=True)
class Evaluation:
    """The figures of a model on labelled images."""

    accuracy: float
    loss: float  # mean cross-entropy, in nats
    num_examples: int
    confusion: np.ndarray  # [true class, predicted class] counts

    def to_dict(self) -> dict[str, float | int]:
        """Returns accuracy, loss and number as JSON values."""
        return {"accuracy": self.accuracy, "loss": self.loss, "num_examples": self.num_examples}


def evaluate(model: keras.Model, dataset: Any, labels: np.ndarray, *, verbose: int | str = "auto") -> Evaluation:
    """Runs a model that ends in logits over a dataset in order, once.

    Args:
        model: ends in logits.
        dataset: batches of (images, labels) or images, in the order of `labels`.
        labels: the true classes.
        verbose: of `model.predict`.

    Returns:
        Accuracy, mean cross-entropy, number of images, and the confusion matrix.

    Raises:
        InputError: the dataset has more or fewer images than there are labels.
    """
    from sklearn.metrics import confusion_matrix

    logits = np.asarray(model.predict(dataset, verbose=verbose), np.float64)
    if len(logits) != len(labels):
        raise InputError(f"There must be one label per image. Received: {len(logits)} images, {len(labels)} labels.")
    shifted = logits - logits.max(-1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    predicted = logits.argmax(-1)
    return Evaluation(
        accuracy=float((predicted == labels).mean()),
        loss=float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        num_examples=len(labels),
        confusion=confusion_matrix(labels, predicted, labels=np.arange(logits.shape[-1])),
    )
