"""A recipe's optimizer and its learning rate over time."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_resnet.recipes import Recipe

_STAIRCASE_STEPS = 20  # levels of the warm-up before a "step" schedule, which Keras has no warm-up for


def count_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    """Returns how many optimizer steps a recipe takes."""
    steps = recipe.epochs * steps_per_epoch
    return steps if recipe.max_steps is None else min(steps, recipe.max_steps)


def make_schedule(recipe: Recipe, steps: int | None) -> Any:
    """`peak * warmup(t) * decay(t)`: Keras' learning-rate schedule over `steps` steps, or a plain float.

    Where the number of steps is not known yet (None) it is the peak throughout, as a schedule where the recipe has one: an
    optimizer's variables are then those that it will have.
    """
    schedules = keras.optimizers.schedules
    peak, has_schedule = recipe.peak_learning_rate, recipe.schedule != "constant" or recipe.warmup_fraction > 0
    if steps is None:
        return schedules.CosineDecay(peak, decay_steps=1, alpha=1.0) if has_schedule else peak
    warmup = min(round(recipe.warmup_fraction * steps), steps - 1)
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


def make_optimizer(model: keras.Model, recipe: Recipe, steps: int | None) -> keras.optimizers.Optimizer:
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
