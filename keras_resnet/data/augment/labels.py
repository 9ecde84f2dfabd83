"""Labels that are a weight for each class."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def smooth(labels: Any, smoothing: float) -> tf.Tensor:
    """`(1 - smoothing) * label + smoothing / classes`: float32 (batch, classes) that sum to 1 to the same.

    Szegedy et al. 2016, Rethinking the Inception Architecture, section 7; as Keras' losses do it.
    """
    labels = tf.convert_to_tensor(labels, tf.float32)
    if not smoothing:
        return labels
    return labels * (1.0 - smoothing) + smoothing / labels.shape[-1]
