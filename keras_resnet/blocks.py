"""The parts of a residual network: functions from tensor to tensor, made of built-in Keras layers.

Layer names are an interface (checkpoints map by them); what a dialect means for a convolution and its BN is written
here once, in `conv_bn`. Every layer is channels_last, whatever the global Keras setting.
"""

from __future__ import annotations

from typing import Any

from keras import initializers, layers

from keras_resnet.errors import InputError
from keras_resnet.specs import EXPANSIONS, TORCHVISION, Dialect, inner_width

NHWC = "channels_last"

Tensor = Any  # a keras.KerasTensor while building, or a backend's tensor


def _kernel_initializer(dialect: Dialect) -> initializers.Initializer:
    if dialect.initializer == "glorot_uniform":
        return initializers.GlorotUniform()
    return initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")


def conv_bn(
    x: Tensor,
    filters: int,
    kernel_size: int,
    *,
    stride: int = 1,
    dialect: Dialect = TORCHVISION,
    activation: bool = True,
    bn: bool = True,
    zero_gamma: bool = False,
    prefix: str,
    index: int | str = "",
) -> Tensor:
    """`relu(bn(conv(x)))`, padded as the dialect says; without the ReLU or the BN where asked.

    Args:
        x: (batch, height, width, channels).
        filters: output channels.
        kernel_size: side of the square kernel, odd.
        stride: stride along both sides.
        dialect: padding, bias, initialiser and BN constants.
        activation: whether a ReLU follows.
        bn: whether BN follows the convolution.
        zero_gamma: whether BN's scale starts at 0 instead of 1.
        prefix: of the layer names `{prefix}_pad{index}`, `_conv{index}`, `_bn{index}`, `_relu{index}`.
        index: the convolution's number within its block, or nothing.

    Returns:
        (batch, ceil(height / stride), ceil(width / stride), filters).
    """
    x = layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        padding="valid" if _needs_pad_layer(kernel_size, stride, dialect) else "same",
        use_bias=dialect.conv_bias,
        kernel_initializer=_kernel_initializer(dialect),
        data_format=NHWC,
        name=f"{prefix}_conv{index}",
    )(_pad(x, kernel_size, stride, dialect, f"{prefix}_pad{index}"))
    if bn:
        x = layers.BatchNormalization(
            axis=-1,
            epsilon=dialect.bn_epsilon,
            momentum=dialect.bn_momentum,
            gamma_initializer="zeros" if zero_gamma else "ones",
            name=f"{prefix}_bn{index}",
        )(x)
    return layers.ReLU(name=f"{prefix}_relu{index}")(x) if activation else x


def _needs_pad_layer(kernel_size: int, stride: int, dialect: Dialect) -> bool:
    # At stride 1 "same" pads k // 2 on both sides by itself; at stride 2 TensorFlow's "same" is uneven.
    return dialect.padding == "symmetric" and stride > 1 and kernel_size > 1


def _pad(x: Tensor, kernel_size: int, stride: int, dialect: Dialect, name: str) -> Tensor:
    if not _needs_pad_layer(kernel_size, stride, dialect):
        return x
    return layers.ZeroPadding2D(kernel_size // 2, data_format=NHWC, name=name)(x)


def stem(x: Tensor, kind: str, filters: int, *, dialect: Dialect = TORCHVISION) -> Tensor:
    """`pool(relu(bn(conv7x7/2(x))))` for "imagenet", `relu(bn(conv3x3(x)))` for "cifar".

    Maps (batch, height, width, channels) to (batch, height/4, width/4, filters), or to the same size for "cifar".
    """
    if kind == "cifar":
        return conv_bn(x, filters, 3, dialect=dialect, prefix="stem")
    x = conv_bn(x, filters, 7, stride=2, dialect=dialect, prefix="stem")
    # Padding with zeros equals padding with minus infinity here: x comes out of a ReLU.
    padding = "valid" if _needs_pad_layer(3, 2, dialect) else "same"
    x = _pad(x, 3, 2, dialect, "stem_pool_pad")
    return layers.MaxPooling2D(3, strides=2, padding=padding, data_format=NHWC, name="stem_pool")(x)


def shortcut(
    x: Tensor, filters: int, *, kind: str = "B", stride: int = 1, dialect: Dialect = TORCHVISION, name: str
) -> Tensor:
    """`x` where shape stays; else "A": `pad_channels(x[::stride, ::stride])`, or "B": `bn(conv1x1(x))`.

    Decided by shape: identity and projection are this one function. Maps (batch, height, width, channels) to
    (batch, height/stride, width/stride, filters). He et al. 2015, section 4.1.

    Raises:
        InputError: another kind, or fewer filters than channels for "A".
    """
    if kind not in ("A", "B"):
        raise InputError(f"A shortcut must be 'A' or 'B'. Received: {kind!r}.")
    channels = x.shape[-1]
    if kind == "A" and filters < channels:
        raise InputError(f"Shortcut 'A' only appends channels. Received: {channels} channels for {filters} filters.")
    if stride == 1 and channels == filters:
        return x
    if kind == "B":
        return conv_bn(
            x,
            filters,
            1,
            stride=stride,
            dialect=dialect,
            activation=False,
            bn=dialect.shortcut_bn,
            prefix=f"{name}_shortcut",
        )
    if stride > 1:  # pooling over one pixel only subsamples
        x = layers.AveragePooling2D(1, strides=stride, data_format=NHWC, name=f"{name}_shortcut_pool")(x)
    if filters > channels:
        # Read as channels_first, (height, width, channels) has its channels where the width is padded: the one
        # built-in layer that appends zero channels, at any image size.
        x = layers.ZeroPadding2D(
            ((0, 0), (0, filters - channels)), data_format="channels_first", name=f"{name}_shortcut_pad"
        )(x)
    return x


def basic_block(
    x: Tensor,
    filters: int,
    *,
    stride: int = 1,
    width_per_group: int = 64,
    shortcut_kind: str = "B",
    zero_gamma: bool = False,
    dialect: Dialect = TORCHVISION,
    name: str,
) -> Tensor:
    """`relu(bn(conv3x3(relu(bn(conv3x3(x))))) + shortcut(x))`.

    Maps (batch, height, width, channels) to (batch, height/stride, width/stride, filters); the first convolution
    takes the stride. `width_per_group` is there for the common signature only: a basic block has no inner width, and a
    spec refuses any other than 64. He et al. 2015, figure 2.
    """
    y = conv_bn(x, filters, 3, stride=stride, dialect=dialect, prefix=name, index=1)
    y = conv_bn(y, filters, 3, dialect=dialect, activation=False, zero_gamma=zero_gamma, prefix=name, index=2)
    return _join(y, shortcut(x, filters, kind=shortcut_kind, stride=stride, dialect=dialect, name=name), name)


def bottleneck_block(
    x: Tensor,
    filters: int,
    *,
    stride: int = 1,
    width_per_group: int = 64,
    shortcut_kind: str = "B",
    zero_gamma: bool = False,
    dialect: Dialect = TORCHVISION,
    name: str,
) -> Tensor:
    """`relu(bn(conv1x1(relu(bn(conv3x3(relu(bn(conv1x1(x)))))))) + shortcut(x))`.

    Maps (batch, height, width, channels) to (batch, height/stride, width/stride, 4 * filters) over an inner width
    of `filters * width_per_group // 64`. The dialect says whether the 3x3 takes the stride ("v1.5") or the first
    1x1 (the paper). He et al. 2015, figure 5.
    """
    inner, outer = inner_width(filters, width_per_group), EXPANSIONS["bottleneck"] * filters
    strides = (stride, 1) if dialect.bottleneck_stride == "1x1" else (1, stride)
    y = conv_bn(x, inner, 1, stride=strides[0], dialect=dialect, prefix=name, index=1)
    y = conv_bn(y, inner, 3, stride=strides[1], dialect=dialect, prefix=name, index=2)
    y = conv_bn(y, outer, 1, dialect=dialect, activation=False, zero_gamma=zero_gamma, prefix=name, index=3)
    return _join(y, shortcut(x, outer, kind=shortcut_kind, stride=stride, dialect=dialect, name=name), name)


def _join(branch: Tensor, skipped: Tensor, name: str) -> Tensor:
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([branch, skipped]))


BLOCK_FUNCTIONS = {"basic": basic_block, "bottleneck": bottleneck_block}


def pool(x: Tensor, kind: str) -> Tensor:
    """`mean(x)` or `max(x)` over height and width: (batch, height, width, channels) to (batch, channels)."""
    layer = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}[kind]
    return layer(data_format=NHWC, name="head_pool")(x)


def classifier(
    x: Tensor, classes: int, *, activation: str | None = "softmax", dialect: Dialect = TORCHVISION
) -> Tensor:
    """`activation(W x + b)`: (batch, channels) to (batch, classes), in float32 whatever the policy."""
    initializer: Any = "glorot_uniform"
    if dialect.initializer == "he_fan_out":  # torch.nn.Linear's: uniform within 1 / sqrt(channels)
        initializer = initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")
    x = layers.Dense(classes, kernel_initializer=initializer, dtype="float32", name="head_logits")(x)
    if activation is None:
        return x
    return layers.Activation(activation, dtype="float32", name="head_probabilities")(x)
