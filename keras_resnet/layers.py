"""The very few layers that Keras lacks: grouped convolutions that train on a CPU and export without XLA.

Keras 3 wraps every grouped convolution on TensorFlow in an XLA-compiled function: about 40 times slower than a native
one on a CPU, and refused by TensorFlow Serving. Importing this module registers the layers, which is all that
loading a saved model with them takes.
"""

from __future__ import annotations

import functools
from typing import Any

import keras


def convolve_in_groups(
    inputs: Any, kernel: Any, *, strides: tuple[int, ...], padding: str, dilations: tuple[int, ...]
) -> Any:
    """`concat_g conv(inputs_g, kernel_g)` by TensorFlow's own grouped convolution, with a gradient everywhere.

    The graph of a forward pass is one plain `tf.nn.convolution`. Where TensorFlow has no gradient of it (on a
    CPU without oneDNN) the gradient is that of one convolution per group.

    Args:
        inputs: (batch, [height,] width, channels), a TensorFlow tensor.
        kernel: ([kernel height,] kernel width, channels / groups, filters).
        strides: one per spatial axis.
        padding: "valid" or "same".
        dilations: one per spatial axis.
    """
    import tensorflow as tf

    options = {"strides": list(strides), "padding": padding.upper(), "dilations": list(dilations)}

    def forward(x: Any, k: Any) -> Any:
        y = tf.nn.convolution(x, k, **options)
        # TensorFlow's graph optimizer fuses a convolution with the bias or BN behind it, into a kernel that without
        # oneDNN refuses groups. It does not look past this operation, which costs nothing.
        return tf.ensure_shape(y, y.shape)

    if _has_grouped_gradient(inputs.dtype.name):
        return forward(inputs, kernel)
    groups = inputs.shape[-1] // kernel.shape[-2]

    @tf.custom_gradient
    def convolve(x: Any, k: Any) -> Any:
        def gradient(upstream: Any) -> Any:
            with tf.GradientTape() as tape:  # in a graph what this computes forward is not needed, and is pruned
                tape.watch((x, k))
                parts = zip(tf.split(x, groups, axis=-1), tf.split(k, groups, axis=-1), strict=True)
                y = tf.concat([tf.nn.convolution(*part, **options) for part in parts], axis=-1)
            return tape.gradient(y, (x, k), upstream)

        return forward(x, k), gradient

    # A variable would have to be handed to the gradient by name.
    return convolve(tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel))


@functools.cache
def _has_grouped_gradient(dtype: str) -> bool:
    """Tries the gradient of a tiny grouped convolution where TensorFlow runs by default."""
    import tensorflow as tf

    with tf.init_scope():  # out of a graph that may be in the making
        try:
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=(1, 4, 4, 4),
                filter=tf.ones((3, 3, 2, 4), dtype),
                out_backprop=tf.ones((1, 4, 4, 4), dtype),
                strides=(1, 1, 1, 1),
                padding="SAME",
            )
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
            return False
    return True


class _GroupedConvolution:
    """Replaces Keras' operation where Keras would compile a grouped convolution with XLA."""

    def _is_native(self: Any) -> bool:
        on_tensorflow = keras.backend.backend() == "tensorflow" and self.data_format == "channels_last"
        return on_tensorflow and self.groups > 1

    def convolution_op(self: Any, inputs: Any, kernel: Any) -> Any:
        """Convolves as `keras.layers.Conv2D` does, on TensorFlow without XLA."""
        if not self._is_native():
            return super().convolution_op(inputs, kernel)  # type: ignore[misc]
        return convolve_in_groups(
            inputs,
            kernel,
            strides=self.strides,
            padding="valid" if self.padding == "causal" else self.padding,
            dilations=self.dilation_rate,
        )


@keras.saving.register_keras_serializable(package="keras_resnet")
class GroupedConv2D(_GroupedConvolution, keras.layers.Conv2D):
    """`concat_g conv2d(x_g, kernel_g) + bias`: `keras.layers.Conv2D(groups=...)` that trains fast on a CPU.

    Arguments, weights and shapes as `keras.layers.Conv2D`: (batch, height, width, channels) to (batch, new height,
    new width, filters), the kernel (height, width, channels / groups, filters). Raises ValueError where groups divide
    neither the channels nor the filters. On other backends than TensorFlow, and with channels_first, it is Keras' own.
    Krizhevsky et al. 2012; Xie et al. 2016, section 3.
    """


@keras.saving.register_keras_serializable(package="keras_resnet")
class GroupedConv1D(_GroupedConvolution, keras.layers.Conv1D):
    """`concat_g conv1d(x_g, kernel_g) + bias`: `keras.layers.Conv1D(groups=...)` that trains fast on a CPU.

    Arguments, weights and shapes as `keras.layers.Conv1D`: (batch, steps, channels) to (batch, new steps, filters).
    Otherwise as `GroupedConv2D`.
    """

    def call(self, inputs: Any) -> Any:
        """Maps (batch, steps, channels) to (batch, new steps, filters)."""
        if not self._is_native():
            return super().call(inputs)
        if self.padding == "causal":
            reach = self.dilation_rate[0] * (self.kernel_size[0] - 1)
            inputs = keras.ops.pad(inputs, [[0, 0], [reach, 0], [0, 0]])
        # Conv1D's own call goes past convolution_op; that of its base adds bias and activation to it.
        return super(keras.layers.Conv1D, self).call(inputs)
