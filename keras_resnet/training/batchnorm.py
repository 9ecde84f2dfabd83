"""BN statistics over many batches in place of a moving average ("precise BN")."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from keras_resnet.errors import InputError
from keras_resnet.private import flatten_layers
from keras_resnet.recipes import SHORT_TRAINING_STEPS, Recipe

# Precise BN needs no more images than this: the mean of a channel over 8,192 images is known to about 1 %.
REESTIMATION_IMAGES = 8192


class BatchNormEstimator:
    """Re-estimates the BN statistics of one model, as often as asked; `reestimate_batchnorm` says how."""

    def __init__(self, model: keras.Model) -> None:
        self.layers = [
            layer
            for layer in flatten_layers(model)
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


def reestimation_batches(recipe: Recipe, steps: int) -> int:
    """Returns on how many batches BN is re-estimated in a training of `steps` steps; 0 where it is not short.

    No more than there are steps, so that it takes at most about a third of the training's own time.
    """
    wanted = steps < SHORT_TRAINING_STEPS if recipe.reestimate_bn is None else recipe.reestimate_bn
    return min(steps, -(-REESTIMATION_IMAGES // recipe.batch_size)) if wanted else 0
