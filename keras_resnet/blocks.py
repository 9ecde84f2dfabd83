"""The parts of a residual network: functions from tensor to tensor, made of built-in Keras layers.

Layer names are an interface (checkpoints map by them); what a dialect means for a convolution and its BN is written
here once, in `conv` and `batch_norm`. Every layer is channels_last, whatever the global Keras setting, and every function
takes images (batch, height, width, channels) and sequences (batch, steps, channels) alike.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from keras import initializers
from keras import layers as keras_layers

from keras_resnet.errors import InputError
from keras_resnet.layers import GroupedConv1D, GroupedConv2D
from keras_resnet.names import HEAD, HEAD_ACTIVATION, HEAD_DENSE, HEAD_POOL, STEM, layer_name
from keras_resnet.records import check_choice
from keras_resnet.specs import POOLED_STEMS, TORCHVISION, Block, Conv, Dialect, check_stem, se_width, stem_convs

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
    convolution: Conv,
    *,
    bn_follows: bool = True,
    zero_kernel: bool = False,
    dialect: Dialect = TORCHVISION,
    prefix: str,
    index: int | None = None,
) -> Tensor:
    """`conv(x)`, or `concat_k conv_k(x)` over several kernel sizes; padded and biased as the dialect says.

    Args:
        x: (batch, height, width, channels) or (batch, steps, channels).
        convolution: filters, kernel sizes, stride, dilation and groups.
        bn_follows: whether BN comes next, which may make a bias needless.
        zero_kernel: whether the kernel starts at 0.
        dialect: padding, bias, initialiser.
        prefix: of the layer names `{prefix}_pad{index}`, `{prefix}_conv{index}`; with several kernel sizes
            `..._k{size}` for each and `{prefix}_join{index}`; see `keras_resnet.names`.
        index: the convolution's number within its block; None for none.

    Returns:
        (batch, ceil(height / stride), ceil(width / stride), filters), or the same in one dimension.

    Raises:
        InputError: an even kernel size.
    """
    if any(size % 2 == 0 for size in convolution.kernel_sizes):  # has no middle, so that no padding keeps the size
        raise InputError(
            f"{layer_name(prefix, 'conv', index)}: kernel sizes must be odd. Received: {convolution.kernel_sizes!r}."
        )
    outputs = []
    for size, filters in convolution.shares:
        side_by_side = size if len(convolution.kernel_sizes) > 1 else None
        padded = _pad(x, size, convolution.stride, dialect, layer_name(prefix, "pad", index, side_by_side))
        options = {
            "strides": convolution.stride,
            "padding": "valid" if _needs_pad_layer(size, convolution.stride, dialect) else "same",
            "dilation_rate": convolution.dilation if size > 1 else 1,
            "use_bias": dialect.has_bias(bn_follows=bn_follows),
            "kernel_initializer": "zeros" if zero_kernel else _kernel_initializer(dialect),
            "data_format": NHWC,
            "name": layer_name(prefix, "conv", index, side_by_side),
        }
        if convolution.groups > 1:
            grouped: Any = {1: GroupedConv1D, 2: GroupedConv2D}[_rank(x)]
            outputs.append(grouped(filters, size, groups=convolution.groups, **options)(padded))
        else:
            outputs.append(_layer("Conv", padded, filters, size, **options))
    return keras_layers.Concatenate(name=layer_name(prefix, "join", index))(outputs) if len(outputs) > 1 else outputs[0]


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
    index: int | None = None,
) -> Tensor:
    """`relu(bn(conv(x)))`, padded as the dialect says; without the ReLU where asked.

    Maps (batch, height, width, channels) to (batch, ceil(height / stride), ceil(width / stride), filters). Layers are
    called `{prefix}_pad{index}`, `_conv{index}`, `_bn{index}`, `_relu{index}`.
    """
    x = conv(x, Conv(filters, (kernel_size,), stride), dialect=dialect, prefix=prefix, index=index)
    x = batch_norm(x, dialect=dialect, name=layer_name(prefix, "bn", index))
    return relu(x, layer_name(prefix, "relu", index)) if activation else x


def stem(x: Tensor, kind: str, filters: int, *, dialect: Dialect = TORCHVISION) -> Tensor:
    """`pool(relu(bn(conv7x7/2(x))))`; "deep": three 3x3 for the 7x7; "cifar": `relu(bn(conv3x3(x)))`; "none": `x`.

    In pre-activation the last BN and ReLU are left to the blocks. Maps (batch, height, width, channels) to (batch,
    height/4, width/4, filters), or to the same size for "cifar". He et al. 2015, table 1; He et al. 2018, figure 2b.
    """
    check_stem(kind, filters)
    convs = stem_convs(kind, filters)
    for number, convolution in enumerate(convs, start=1):
        index = number if len(convs) > 1 else None
        normalized = number < len(convs) or not dialect.preactivation
        x = conv(x, convolution, bn_follows=normalized, dialect=dialect, prefix=STEM, index=index)
        if normalized:
            x = batch_norm(x, dialect=dialect, name=layer_name(STEM, "bn", index))
            x = relu(x, layer_name(STEM, "relu", index))
    return _stem_pool(x, dialect) if kind in POOLED_STEMS else x


def _stem_pool(x: Tensor, dialect: Dialect) -> Tensor:
    name = layer_name(STEM, "pool")
    if dialect.padding == "same":
        return _layer("MaxPooling", x, 3, strides=2, padding="same", name=name)
    if dialect.preactivation and dialect.pool_padding == "minus_infinity":
        # Padding with zeros would cut off negative values at the border. No built-in layer pads with minus infinity at
        # stride 2; at stride 1 the pool does it by itself, and a second one takes every other pixel.
        x = _layer("MaxPooling", x, 3, strides=1, padding="same", name=name)
        return _layer("MaxPooling", x, 1, strides=2, name=layer_name(STEM, "pool_stride"))
    # After a ReLU padding with zeros is padding with minus infinity.
    return _layer("MaxPooling", _pad(x, 3, 2, dialect, layer_name(STEM, "pool_pad")), 3, strides=2, name=name)


def shortcut(x: Tensor, block: Block, filters: int, *, activated: Tensor = None) -> Tensor:
    """`x` where shape stays; else "A": `pad_channels(x[::stride, ::stride])`; "B": `bn(conv1x1(x))`; "D": `bn(conv1x1(pool(x)))`.

    "C" projects everywhere. Decided by shape: identity and projection are this one function. Maps (batch, height,
    width, channels) to (batch, height/stride, width/stride, filters). He et al. 2015, section 4.1; He et al. 2018,
    figure 2c for "D".

    Args:
        x: what enters the block.
        block: its shortcut, stride, dialect and name.
        filters: channels that the block puts out.
        activated: what a projection takes instead of `x`: in pre-activation `relu(bn(x))`.

    Raises:
        InputError: a block without a shortcut, or fewer filters than channels for "A".
    """
    kind, stride, dialect, channels = block.shortcut, block.stride, block.dialect, x.shape[-1]
    if kind == "none":
        raise InputError(f"{block.name}: a block without a shortcut has none to build. Received: shortcut='none'.")
    if kind == "A" and filters < channels:
        raise InputError(f"Shortcut 'A' only appends channels. Received: {channels} channels for {filters} filters.")
    prefix = layer_name(block.name, "shortcut")
    if block.has_projection(channels, filters):
        x = x if activated is None else activated
        if kind == "D" and stride > 1:
            pool_name = layer_name(prefix, "pool")
            x = _layer("AveragePooling", x, stride, strides=stride, padding="same", name=pool_name)
            stride = 1
        x = conv(x, Conv(filters, (1,), stride), bn_follows=dialect.shortcut_bn, dialect=dialect, prefix=prefix)
        return batch_norm(x, dialect=dialect, name=layer_name(prefix, "bn")) if dialect.shortcut_bn else x
    if stride > 1:  # pooling over one pixel only subsamples
        x = _layer("AveragePooling", x, 1, strides=stride, name=layer_name(prefix, "pool"))
    if filters > channels:
        # Read as channels_first, (height, width, channels) has its channels where the width is padded: the one
        # built-in layer that appends zero channels, at any image size.
        missing = (0, filters - channels)
        padding = missing if _rank(x) == 1 else ((0, 0), missing)
        x = _layer("ZeroPadding", x, padding, data_format="channels_first", name=layer_name(prefix, "pad"))
    return x


def squeeze_excite(x: Tensor, se_ratio: float, *, name: str) -> Tensor:
    """`x * sigmoid(W2 relu(W1 mean(x)))`: each channel scaled by what all channels' means say; shape stays.

    W1 maps the channels to `max(1, round(channels * se_ratio))`, W2 back; both have biases. Hu et al. 2017.
    """
    channels = x.shape[-1]
    y = _layer("GlobalAveragePooling", x, keepdims=True, name=layer_name(name, "se_pool"))
    y = keras_layers.Dense(se_width(channels, se_ratio), activation="relu", name=layer_name(name, "se_reduce"))(y)
    y = keras_layers.Dense(channels, activation="sigmoid", name=layer_name(name, "se_expand"))(y)
    return keras_layers.Multiply(name=layer_name(name, "se_scale"))([x, y])


def basic_block(x: Tensor, block: Block) -> Tensor:
    """`relu(bn(conv3x3(relu(bn(conv3x3(x))))) + shortcut(x))`.

    In pre-activation `conv3x3(relu(bn(conv3x3(relu(bn(x)))))) + shortcut(x)`. With several `kernel_sizes` each 3x3 is
    `concat_k conv_kxk`, a multi-scale block. Maps (batch, height, width, channels) to (batch, height/stride,
    width/stride, filters); the first convolution takes the stride. He et al. 2015, figure 2; He et al. 2016.

    Args:
        x: (batch, height, width, channels) or (batch, steps, channels).
        block: such as `Block("stage1_block1", "basic", filters=64)`. Of whatever kind it is, a basic block is built from
            its other fields.

    Raises:
        InputError: no `Block`, one that has no basic form, or a shortcut that cannot reach the shape.
    """
    return _residual(x, _of_kind(block, "basic"))


def bottleneck_block(x: Tensor, block: Block) -> Tensor:
    """`relu(bn(conv1x1(relu(bn(conv3x3(relu(bn(conv1x1(x)))))))) + shortcut(x))`.

    In pre-activation BN and ReLU come before each convolution and none after the addition. Maps (batch, height,
    width, channels) to (batch, height/stride, width/stride, 4 * filters) over an inner width of
    `filters * width_per_group // 64 * groups`, whose 3x3 convolution has `groups` groups (ResNeXt). The dialect
    says whether the 3x3 takes the stride ("v1.5") or the first 1x1 (the paper). He et al. 2015, figure 5; Xie et al.
    2016, figure 3c. Arguments and errors as `basic_block`.

    `groups` is their number, as in torchvision. In the d2l chapter's `ResNeXtBlock(channels, groups, multiplier)` it is
    the width of one: `ResNeXtBlock(32, 16, 1)` is `filters=8, groups=2, width_per_group=128` here.
    """
    return _residual(x, _of_kind(block, "bottleneck"))


def _of_kind(block: Block, kind: str) -> Block:
    """The block as one of this kind, which is checked anew where it was another."""
    if not isinstance(block, Block):
        raise InputError(
            f"block must be a Block, such as Block('stage1_block1', '{kind}', filters=64). Received: {block!r}."
        )
    return block if block.kind == kind else replace(block, kind=kind)


def _residual(x: Tensor, block: Block) -> Tensor:
    """`relu(branch(x) + shortcut(x))`, or in pre-activation `branch(relu(bn(x))) + shortcut(x)`."""
    name, dialect, convs = block.name, block.dialect, block.convs
    y, activated = x, None
    for index, convolution in enumerate(convs, start=1):
        last = index == len(convs)
        bn_name, relu_name = layer_name(name, "bn", index), layer_name(name, "relu", index)
        if dialect.preactivation:
            y = relu(batch_norm(y, dialect=dialect, name=bn_name), relu_name)
            activated = y if index == 1 else activated
        if last and block.block_dropout:
            y = keras_layers.Dropout(block.block_dropout, name=layer_name(name, "dropout"))(y)
        y = conv(
            y,
            convolution,
            bn_follows=not (last and dialect.preactivation),
            # With BN before the convolution a zero gamma would leave nothing but zeros behind a ReLU, for ever.
            zero_kernel=last and block.zero_gamma and dialect.preactivation,
            dialect=dialect,
            prefix=name,
            index=index,
        )
        if not dialect.preactivation:
            y = batch_norm(y, zero_gamma=last and block.zero_gamma, dialect=dialect, name=bn_name)
            y = y if last else relu(y, relu_name)
    if block.se_ratio:
        y = squeeze_excite(y, block.se_ratio, name=name)
    if block.stochastic_depth:
        one_draw = (None,) + (1,) * (_rank(x) + 1)  # for each example
        y = keras_layers.Dropout(block.stochastic_depth, noise_shape=one_draw, name=layer_name(name, "drop"))(y)
    if block.shortcut != "none":
        skipped = shortcut(x, block, y.shape[-1], activated=activated)
        y = keras_layers.Add(name=layer_name(name, "add"))([y, skipped])
    return y if dialect.preactivation else relu(y, layer_name(name, "out"))


BLOCK_FUNCTIONS = {"basic": basic_block, "bottleneck": bottleneck_block}


def head_activation(x: Tensor, *, dialect: Dialect) -> Tensor:
    """`relu(bn(x))` behind the last block in pre-activation, where no block has done it; otherwise `x`."""
    if not dialect.preactivation:
        return x
    return relu(batch_norm(x, dialect=dialect, name=layer_name(HEAD, "bn")), layer_name(HEAD, "relu"))


def pool(x: Tensor, kind: str) -> Tensor:
    """`mean(x)` or `max(x)` over all pixels: (batch, height, width, channels) to (batch, channels), in float32."""
    check_choice("pooling", kind, ("avg", "max"))
    layer = {"avg": "GlobalAveragePooling", "max": "GlobalMaxPooling"}[kind]
    return _layer(layer, x, dtype="float32", name=HEAD_POOL)


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
        x = keras_layers.Dropout(dropout, dtype="float32", name=layer_name(HEAD, "dropout"))(x)
    x = keras_layers.Dense(classes, kernel_initializer=initializer, dtype="float32", name=HEAD_DENSE)(x)
    if activation is None:
        return x
    return keras_layers.Activation(activation, dtype="float32", name=HEAD_ACTIVATION)(x)
