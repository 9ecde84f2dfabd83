"""The parts of a residual network: functions from tensor to tensor, made of built-in Keras layers.

Layer names are an interface (checkpoints map by them); what a dialect means for a convolution and its BN is written
here once, in `conv` and `batch_norm`. Every layer is channels_last, whatever the global Keras setting, and every function
takes images (batch, height, width, channels) and sequences (batch, steps, channels) alike.
"""

from __future__ import annotations

from typing import Any, TypedDict, Unpack

from keras import initializers
from keras import layers as keras_layers

from keras_resnet.errors import InputError
from keras_resnet.layers import GroupedConv1D, GroupedConv2D
from keras_resnet.records import check_choice
from keras_resnet.specs import (
    POOLED_STEMS,
    SHORTCUTS,
    TORCHVISION,
    Conv,
    Dialect,
    branch_convs,
    needs_projection,
    se_width,
    split_filters,
    stem_convs,
)

NHWC = "channels_last"

Tensor = Any  # a keras.KerasTensor while building, or a backend's tensor


def _rank(x: Tensor) -> int:
    return len(x.shape) - 2


def _layer(kind: str, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Applies `keras.layers.{kind}{rank}D(...)`, channels last, to `x`."""
    return getattr(keras_layers, f"{kind}{_rank(x)}D")(*args, **{"data_format": NHWC, **kwargs})(x)


def _kernel_initializer(dialect: Dialect) -> initializers.Initializer:
    if dialect.initializer == "glorot_uniform":
        return initializers.GlorotUniform()
    return initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")


def conv(
    x: Tensor,
    plan: Conv,
    *,
    bn_follows: bool = True,
    zero_kernel: bool = False,
    dialect: Dialect = TORCHVISION,
    prefix: str,
    index: int | str = "",
) -> Tensor:
    """`conv(x)`, or `concat_k conv_k(x)` over several kernel sizes; padded and biased as the dialect says.

    Args:
        x: (batch, height, width, channels) or (batch, steps, channels).
        plan: filters, kernel sizes, stride, dilation and groups.
        bn_follows: whether BN comes next, which may make a bias needless.
        zero_kernel: whether the kernel starts at 0.
        dialect: padding, bias, initialiser.
        prefix: of the layer names `{prefix}_pad{index}`, `{prefix}_conv{index}`; with several kernel sizes
            `..._k{size}` for each and `{prefix}_join{index}`.
        index: the convolution's number within its block, or nothing.

    Returns:
        (batch, ceil(height / stride), ceil(width / stride), filters), or the same in one dimension.

    Raises:
        InputError: an even kernel size.
    """
    if any(size % 2 == 0 for size in plan.kernel_sizes):  # has no middle, so that no padding keeps the size
        raise InputError(f"{prefix}_conv{index}: kernel sizes must be odd. Received: {plan.kernel_sizes!r}.")
    outputs = []
    for size, filters in zip(plan.kernel_sizes, split_filters(plan.filters, len(plan.kernel_sizes)), strict=True):
        suffix = f"{index}_k{size}" if len(plan.kernel_sizes) > 1 else str(index)
        padded = _pad(x, size, plan.stride, dialect, f"{prefix}_pad{suffix}")
        options = {
            "strides": plan.stride,
            "padding": "valid" if _needs_pad_layer(size, plan.stride, dialect) else "same",
            "dilation_rate": plan.dilation if size > 1 else 1,
            "use_bias": dialect.has_bias(bn_follows=bn_follows),
            "kernel_initializer": "zeros" if zero_kernel else _kernel_initializer(dialect),
            "data_format": NHWC,
            "name": f"{prefix}_conv{suffix}",
        }
        if plan.groups > 1:
            grouped: Any = {1: GroupedConv1D, 2: GroupedConv2D}[_rank(x)]
            outputs.append(grouped(filters, size, groups=plan.groups, **options)(padded))
        else:
            outputs.append(_layer("Conv", padded, filters, size, **options))
    return keras_layers.Concatenate(name=f"{prefix}_join{index}")(outputs) if len(outputs) > 1 else outputs[0]


def _needs_pad_layer(kernel_size: int, stride: int, dialect: Dialect) -> bool:
    # At stride 1 "same" pads k // 2 on both sides by itself; at stride 2 TensorFlow's "same" is uneven.
    return dialect.padding == "symmetric" and stride > 1 and kernel_size > 1


def _pad(x: Tensor, kernel_size: int, stride: int, dialect: Dialect, name: str) -> Tensor:
    if not _needs_pad_layer(kernel_size, stride, dialect):
        return x
    return _layer("ZeroPadding", x, kernel_size // 2, name=name)


def batch_norm(x: Tensor, *, zero_gamma: bool = False, dialect: Dialect = TORCHVISION, name: str) -> Tensor:
    """`gamma (x - mean) / sqrt(variance + epsilon) + beta` over the last axis, with the dialect's constants."""
    return keras_layers.BatchNormalization(
        axis=-1,
        epsilon=dialect.bn_epsilon,
        momentum=dialect.bn_momentum,
        gamma_initializer="zeros" if zero_gamma else "ones",
        name=name,
    )(x)


def relu(x: Tensor, name: str) -> Tensor:
    """`max(x, 0)`."""
    return keras_layers.ReLU(name=name)(x)


def conv_bn(
    x: Tensor,
    filters: int,
    kernel_size: int,
    *,
    stride: int = 1,
    dialect: Dialect = TORCHVISION,
    activation: bool = True,
    prefix: str,
    index: int | str = "",
) -> Tensor:
    """`relu(bn(conv(x)))`, padded as the dialect says; without the ReLU where asked.

    Maps (batch, height, width, channels) to (batch, ceil(height / stride), ceil(width / stride), filters). Layers are
    called `{prefix}_pad{index}`, `_conv{index}`, `_bn{index}`, `_relu{index}`.
    """
    x = conv(x, Conv(filters, (kernel_size,), stride), dialect=dialect, prefix=prefix, index=index)
    x = batch_norm(x, dialect=dialect, name=f"{prefix}_bn{index}")
    return relu(x, f"{prefix}_relu{index}") if activation else x


def stem(x: Tensor, kind: str, filters: int, *, dialect: Dialect = TORCHVISION) -> Tensor:
    """`pool(relu(bn(conv7x7/2(x))))`; "deep": three 3x3 for the 7x7; "cifar": `relu(bn(conv3x3(x)))`; "none": `x`.

    In pre-activation the last BN and ReLU are left to the blocks. Maps (batch, height, width, channels) to (batch,
    height/4, width/4, filters), or to the same size for "cifar". He et al. 2015, table 1; He et al. 2018, figure 2b.
    """
    convs = stem_convs(kind, filters)
    for number, plan in enumerate(convs, start=1):
        index = number if len(convs) > 1 else ""
        normalized = number < len(convs) or not dialect.preactivation
        x = conv(x, plan, bn_follows=normalized, dialect=dialect, prefix="stem", index=index)
        if normalized:
            x = relu(batch_norm(x, dialect=dialect, name=f"stem_bn{index}"), f"stem_relu{index}")
    return _stem_pool(x, dialect) if kind in POOLED_STEMS else x


def _stem_pool(x: Tensor, dialect: Dialect) -> Tensor:
    if dialect.padding == "same":
        return _layer("MaxPooling", x, 3, strides=2, padding="same", name="stem_pool")
    if dialect.preactivation and dialect.pool_padding == "minus_infinity":
        # Padding with zeros would cut off negative values at the border. No built-in layer pads with minus infinity at
        # stride 2; at stride 1 the pool does it by itself, and a second one takes every other pixel.
        x = _layer("MaxPooling", x, 3, strides=1, padding="same", name="stem_pool")
        return _layer("MaxPooling", x, 1, strides=2, name="stem_pool_stride")
    # After a ReLU padding with zeros is padding with minus infinity.
    return _layer("MaxPooling", _pad(x, 3, 2, dialect, "stem_pool_pad"), 3, strides=2, name="stem_pool")


def shortcut(
    x: Tensor,
    filters: int,
    *,
    kind: str = "B",
    stride: int = 1,
    activated: Tensor = None,
    dialect: Dialect = TORCHVISION,
    name: str,
) -> Tensor:
    """`x` where shape stays; else "A": `pad_channels(x[::stride, ::stride])`; "B": `bn(conv1x1(x))`; "D": `bn(conv1x1(pool(x)))`.

    "C" projects everywhere. Decided by shape: identity and projection are this one function. Maps (batch, height,
    width, channels) to (batch, height/stride, width/stride, filters). He et al. 2015, section 4.1; He et al. 2018,
    figure 2c for "D".

    Args:
        x: what enters the block.
        filters: channels of the block's output.
        kind: "A", "B", "C" or "D".
        stride: of the block.
        activated: what a projection takes instead of `x`: in pre-activation `relu(bn(x))`.
        dialect: padding, bias, BN.
        name: of the block.

    Raises:
        InputError: another kind, or fewer filters than channels for "A".
    """
    check_choice("A shortcut's kind", kind, SHORTCUTS[:-1])  # without one there is nothing to call
    channels = x.shape[-1]
    if kind == "A" and filters < channels:
        raise InputError(f"Shortcut 'A' only appends channels. Received: {channels} channels for {filters} filters.")
    prefix = f"{name}_shortcut"
    if needs_projection(kind, channels, filters, stride, dialect):
        x = x if activated is None else activated
        if kind == "D" and stride > 1:
            x = _layer("AveragePooling", x, stride, strides=stride, padding="same", name=f"{prefix}_pool")
            stride = 1
        x = conv(x, Conv(filters, (1,), stride), bn_follows=dialect.shortcut_bn, dialect=dialect, prefix=prefix)
        return batch_norm(x, dialect=dialect, name=f"{prefix}_bn") if dialect.shortcut_bn else x
    if stride > 1:  # pooling over one pixel only subsamples
        x = _layer("AveragePooling", x, 1, strides=stride, name=f"{prefix}_pool")
    if filters > channels:
        # Read as channels_first, (height, width, channels) has its channels where the width is padded: the one
        # built-in layer that appends zero channels, at any image size.
        missing = (0, filters - channels)
        x = _layer(
            "ZeroPadding",
            x,
            missing if _rank(x) == 1 else ((0, 0), missing),
            data_format="channels_first",
            name=f"{prefix}_pad",
        )
    return x


def squeeze_excite(x: Tensor, se_ratio: float, *, name: str) -> Tensor:
    """`x * sigmoid(W2 relu(W1 mean(x)))`: each channel scaled by what all channels' means say; shape stays.

    W1 maps the channels to `max(1, round(channels * se_ratio))`, W2 back; both have biases. Hu et al. 2017.
    """
    channels = x.shape[-1]
    y = _layer("GlobalAveragePooling", x, keepdims=True, name=f"{name}_se_pool")
    y = keras_layers.Dense(se_width(channels, se_ratio), activation="relu", name=f"{name}_se_reduce")(y)
    y = keras_layers.Dense(channels, activation="sigmoid", name=f"{name}_se_expand")(y)
    return keras_layers.Multiply(name=f"{name}_se_scale")([x, y])


class BlockOptions(TypedDict, total=False):
    """What every block takes besides its input, filters, stride and name, with its default."""

    first_dilation: int  # 1: of convolutions that see the incoming grid
    dilation: int  # 1: of those behind the stride
    kernel_sizes: tuple[int, ...]  # (3,): of the spatial convolutions; several run side by side and are joined
    groups: int  # 1
    width_per_group: int  # 64
    shortcut_kind: str  # "B"; "A", "C", "D" or "none"
    se_ratio: float  # 0: squeeze-and-excitation before the addition
    block_dropout: float  # 0: rate before the last convolution
    stochastic_depth: float  # 0: chance that an example skips the branch in training
    zero_gamma: bool  # False: whether the branch starts at 0
    dialect: Dialect  # TORCHVISION


def basic_block(x: Tensor, filters: int, *, stride: int = 1, name: str, **options: Unpack[BlockOptions]) -> Tensor:
    """`relu(bn(conv3x3(relu(bn(conv3x3(x))))) + shortcut(x))`.

    In pre-activation `conv3x3(relu(bn(conv3x3(relu(bn(x)))))) + shortcut(x)`. With several `kernel_sizes` each 3x3 is
    `concat_k conv_kxk`, a multi-scale block. Maps (batch, height, width, channels) to (batch, height/stride,
    width/stride, filters); the first convolution takes the stride. He et al. 2015, figure 2; He et al. 2016.

    Args:
        x: (batch, height, width, channels) or (batch, steps, channels).
        filters: output channels.
        stride: of the block.
        name: prefix of the layer names.
        **options: see `BlockOptions`. A basic block has no inner width: `groups` must be 1, `width_per_group` 64.

    Raises:
        InputError: an unknown kind of shortcut, or one that cannot reach the shape; options that do not go together.
    """
    return _residual(x, "basic", filters, stride, name, **options)


def bottleneck_block(x: Tensor, filters: int, *, stride: int = 1, name: str, **options: Unpack[BlockOptions]) -> Tensor:
    """`relu(bn(conv1x1(relu(bn(conv3x3(relu(bn(conv1x1(x)))))))) + shortcut(x))`.

    In pre-activation BN and ReLU come before each convolution and none after the addition. Maps (batch, height,
    width, channels) to (batch, height/stride, width/stride, 4 * filters) over an inner width of
    `filters * width_per_group // 64 * groups`, whose 3x3 convolution has `groups` groups (ResNeXt). The dialect
    says whether the 3x3 takes the stride ("v1.5") or the first 1x1 (the paper). He et al. 2015, figure 5; Xie et al.
    2016, figure 3c. Arguments and errors as `basic_block`; an inner width below `groups` is one, too.

    `groups` is their number, as in torchvision. In the d2l chapter's `ResNeXtBlock(channels, groups, multiplier)` it is
    the width of one: `ResNeXtBlock(32, 16, 1)` is `filters=8, groups=2, width_per_group=128` here.
    """
    return _residual(x, "bottleneck", filters, stride, name, **options)


def _residual(
    x: Tensor,
    block: str,
    filters: int,
    stride: int,
    name: str,
    *,
    first_dilation: int = 1,
    dilation: int = 1,
    kernel_sizes: tuple[int, ...] = (3,),
    groups: int = 1,
    width_per_group: int = 64,
    shortcut_kind: str = "B",
    se_ratio: float = 0.0,
    block_dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    zero_gamma: bool = False,
    dialect: Dialect = TORCHVISION,
) -> Tensor:
    """`relu(branch(x) + shortcut(x))`, or in pre-activation `branch(relu(bn(x))) + shortcut(x)`."""
    check_choice(f"{name}: shortcut_kind", shortcut_kind, SHORTCUTS)
    convs = branch_convs(
        block,
        filters,
        stride=stride,
        first_dilation=first_dilation,
        dilation=dilation,
        kernel_sizes=kernel_sizes,
        groups=groups,
        width_per_group=width_per_group,
        dialect=dialect,
    )
    y, activated = x, None
    for index, plan in enumerate(convs, start=1):
        last = index == len(convs)
        if dialect.preactivation:
            y = relu(batch_norm(y, dialect=dialect, name=f"{name}_bn{index}"), f"{name}_relu{index}")
            activated = y if index == 1 else activated
        if last and block_dropout:
            y = keras_layers.Dropout(block_dropout, name=f"{name}_dropout")(y)
        y = conv(
            y,
            plan,
            bn_follows=not (last and dialect.preactivation),
            # With BN before the convolution a zero gamma would leave nothing but zeros behind a ReLU, for ever.
            zero_kernel=last and zero_gamma and dialect.preactivation,
            dialect=dialect,
            prefix=name,
            index=index,
        )
        if not dialect.preactivation:
            y = batch_norm(y, zero_gamma=last and zero_gamma, dialect=dialect, name=f"{name}_bn{index}")
            y = y if last else relu(y, f"{name}_relu{index}")
    if se_ratio:
        y = squeeze_excite(y, se_ratio, name=name)
    if stochastic_depth:  # one draw per example
        y = keras_layers.Dropout(stochastic_depth, noise_shape=(None,) + (1,) * (_rank(x) + 1), name=f"{name}_drop")(y)
    if shortcut_kind != "none":
        skipped = shortcut(
            x, y.shape[-1], kind=shortcut_kind, stride=stride, activated=activated, dialect=dialect, name=name
        )
        y = keras_layers.Add(name=f"{name}_add")([y, skipped])
    return y if dialect.preactivation else relu(y, f"{name}_out")


BLOCK_FUNCTIONS = {"basic": basic_block, "bottleneck": bottleneck_block}


def head_activation(x: Tensor, *, dialect: Dialect) -> Tensor:
    """`relu(bn(x))` behind the last block in pre-activation, where no block has done it; otherwise `x`."""
    if not dialect.preactivation:
        return x
    return relu(batch_norm(x, dialect=dialect, name="head_bn"), "head_relu")


def pool(x: Tensor, kind: str) -> Tensor:
    """`mean(x)` or `max(x)` over all pixels: (batch, height, width, channels) to (batch, channels), in float32."""
    check_choice("pooling", kind, ("avg", "max"))
    layer = {"avg": "GlobalAveragePooling", "max": "GlobalMaxPooling"}[kind]
    return _layer(layer, x, dtype="float32", name="head_pool")


def classifier(
    x: Tensor,
    classes: int,
    *,
    dropout: float = 0.0,
    activation: str | None = "softmax",
    dialect: Dialect = TORCHVISION,
) -> Tensor:
    """`activation(W dropout(x) + b)`: (batch, channels) to (batch, classes), in float32 whatever the policy."""
    initializer: Any = "glorot_uniform"
    if dialect.initializer == "he_fan_out":  # torch.nn.Linear's: uniform within 1 / sqrt(channels)
        initializer = initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")
    if dropout:
        x = keras_layers.Dropout(dropout, dtype="float32", name="head_dropout")(x)
    x = keras_layers.Dense(classes, kernel_initializer=initializer, dtype="float32", name="head_logits")(x)
    if activation is None:
        return x
    return keras_layers.Activation(activation, dtype="float32", name="head_probabilities")(x)
