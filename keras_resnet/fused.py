"""BN layers of Keras, computed in training by TensorFlow's fused operation.

Keras writes BN as a dozen element-wise operations, each of which reads and writes a whole feature map. TensorFlow has
one operation for it, into which its graph optimizer can take the ReLU behind it as well. What is set here is how an
instance computes, not what it is: it is saved, cloned and loaded as the Keras class that it is, and needs nothing of
this package.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from typing import Any

import keras

from keras_resnet.private import flatten_layers, is_onednn_on

log = logging.getLogger(__name__)


def fuse_batch_norm(
    layer: keras.layers.BatchNormalization, *, relu_may_join: bool = False
) -> keras.layers.BatchNormalization:
    """`gamma (x - mean(x)) / sqrt(var(x) + epsilon) + beta` in one operation when `layer` trains; returns the layer.

    Same numbers, same moving statistics (of the biased variance, as Keras has them). What the operation does not know stays
    Keras' own: inference, masks, float64, another axis, other ranks than sequences and images, other backends.

    Args:
        layer: of exactly Keras' class.
        relu_may_join: whether TensorFlow may take a ReLU behind it into the operation, which with oneDNN makes 0 of NaN.
            Only where NaN has another way to the loss, such as the shortcut around a branch: a loss must show it.
    """
    if keras.backend.backend() == "tensorflow" and type(layer) is keras.layers.BatchNormalization:
        layer.call = functools.partial(_batch_norm, layer, relu_may_join)
    return layer


def fuse_model(model: keras.Model, *, relu_may_join: Callable[[keras.Layer], bool] = lambda layer: False) -> None:
    """Has every BN layer of a model train by `fuse_batch_norm`; those that do so already stay as they are.

    Args:
        model: any.
        relu_may_join: which of them a ReLU may join.
    """
    for layer in flatten_layers(model):
        if "call" not in vars(layer):
            fuse_batch_norm(layer, relu_may_join=relu_may_join(layer))


def _batch_norm(layer: Any, relu_may_join: bool, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
    if not (training and mask is None and _fits(layer, inputs)):
        return type(layer).call(layer, inputs, training=training, mask=mask)
    import tensorflow as tf

    rank = len(inputs.shape)
    x = tf.expand_dims(inputs, 1) if rank == 3 else inputs
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=tf.convert_to_tensor(layer.gamma),
        offset=tf.convert_to_tensor(layer.beta),
        mean=tf.constant([], tf.float32),
        variance=tf.constant([], tf.float32),
        epsilon=layer.epsilon,
        is_training=True,
    )
    # The operation's variance is divided by one less than the number of values; Keras' is not.
    count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
    variance *= (count - 1) / count
    for moving, new in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + new * (1.0 - layer.momentum))
    y = tf.squeeze(y, 1) if rank == 3 else y
    if relu_may_join:
        return y
    # The graph optimizer knows nothing of what is behind this operation, which costs nothing. It drops an EnsureShape
    # where shapes are static.
    apart = tf.raw_ops.PlaceholderWithDefault(input=y, shape=None)
    return tf.ensure_shape(apart, y.shape)


def _fits(layer: Any, inputs: Any) -> bool:
    rank = len(inputs.shape)
    return (
        layer.trainable
        and rank in (3, 4)
        and layer.axis in (-1, rank - 1)
        and layer.center
        and layer.scale
        and not layer.synchronized
        and not layer.renorm
        and layer.variable_dtype == "float32"
        and inputs.dtype.name == layer.compute_dtype
        and _has_kernel(inputs.dtype.name)
    )


@functools.cache
def _has_kernel(dtype: str) -> bool:
    """Tries the operation and its gradient where TensorFlow runs by default."""
    import tensorflow as tf

    if dtype not in ("float32", "bfloat16", "float16"):
        return False
    with tf.init_scope():  # out of a graph that may be in the making
        scale = tf.ones([2])
        try:
            with tf.GradientTape() as tape:
                tape.watch(scale)
                y, *_ = tf.compat.v1.nn.fused_batch_norm(tf.ones((1, 2, 2, 2), dtype), scale, scale)
            tape.gradient(y, scale)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, tf.errors.NotFoundError):
            return False
    return True


@functools.cache
def warn_without_onednn() -> None:
    """Logs, once, what to do where TensorFlow was loaded without oneDNN although nobody asked for that."""
    if keras.backend.backend() != "tensorflow" or "TF_ENABLE_ONEDNN_OPTS" in os.environ:
        return
    import tensorflow as tf

    if is_onednn_on() is not False or tf.config.list_physical_devices("GPU"):
        return
    log.warning(
        "TensorFlow was loaded without oneDNN, its faster operations: training takes up to twice as long, networks with "
        "grouped convolutions longer still. Import keras_resnet before tensorflow and keras, or set "
        "TF_ENABLE_ONEDNN_OPTS=1 before Python starts."
    )
