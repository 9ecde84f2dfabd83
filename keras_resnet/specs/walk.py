"""The path of a network from input to logits: shapes, weights and multiply-adds of its layers, one after the other."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from math import prod

from keras_resnet.names import HEAD, HEAD_DENSE, STEM, layer_name
from keras_resnet.specs.block import Block, se_width
from keras_resnet.specs.conv import POINT, Conv, make_conv
from keras_resnet.specs.spec import ResNetSpec
from keras_resnet.specs.stem import POOLED_STEMS, stem_convs


@dataclass(frozen=True)
class LayerCost:
    """One layer with weights: its name in the built model and what it holds and costs for one input."""

    name: str
    parameters: int  # trainable
    statistics: int  # not trainable: BN's moving mean and variance
    multiply_adds: int  # a bias addition counts as one; BN, ReLU, pooling, additions and gating count nothing
    output_shape: tuple[int, ...]  # (height, width, channels), (steps, channels), or (classes,)


class Walk:
    """Follows the path of a network, keeps the shape, adds up all layers and, with `record`, lists those with weights.

    Its methods are called in the order of a forward pass. A layer is named only where it is recorded: adding up has to
    be fast enough for a search over many specs.
    """

    __slots__ = (
        "activations",
        "channels",
        "has_bias",
        "layers",
        "multiply_adds",
        "normalized",
        "pixels",
        "preactivation",
        "rank",
        "sides",
        "spec",
        "weights",
    )

    def __init__(self, spec: ResNetSpec, shape: tuple[int, ...], *, record: bool) -> None:
        dialect = spec.dialect
        self.spec, self.rank, self.preactivation = spec, spec.rank, dialect.preactivation
        self.has_bias = (dialect.has_bias(bn_follows=False), dialect.has_bias(bn_follows=True))
        *sides, self.channels = map(operator.index, shape)  # Python's integers do not overflow
        self.sides, self.pixels = tuple(sides), prod(sides)
        self.layers: list[LayerCost] | None = [] if record else None
        self.weights = 0  # of convolutions and dense layers
        self.normalized = 0  # channels that go through BN: each has a scale, an offset, a mean and a variance
        self.multiply_adds = 0
        self.activations = 0  # values that all layers put out but for the input and padding

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what the last layer put out: (height, width, channels), (steps, channels), or (classes,)."""
        return (*self.sides, self.channels)

    @property
    def trainable(self) -> int:
        """Parameters so far, without BN's moving statistics."""
        return self.weights + 2 * self.normalized

    @property
    def parameters(self) -> int:
        """All parameters so far."""
        return self.weights + 4 * self.normalized

    def cut(self) -> tuple[LayerCost, ...]:
        """Returns what was recorded since the last cut."""
        layers, self.layers = tuple(self.layers or ()), []
        return layers

    def stem(self) -> None:
        """Walks from the input to the first block."""
        spec = self.spec
        convs = stem_convs(spec.stem, spec.stem_filters)
        self._convs(STEM, convs, numbered=len(convs) > 1, bn_last=not self.preactivation)
        if spec.stem in POOLED_STEMS:
            dialect = spec.dialect
            if self.preactivation and dialect.padding != "same" and dialect.pool_padding == "minus_infinity":
                self.activations += self.pixels * self.channels  # `blocks.stem` pools at stride 1 before it strides
            self._stride(2)
            self.activations += self.pixels * self.channels

    def run(self, block: Block, times: int) -> None:
        """Walks through as many equal blocks, of which only the first is looked at."""
        if times == 1:
            self.block(block)
            return
        weights, normalized = self.weights, self.normalized
        multiply_adds, activations = self.multiply_adds, self.activations
        self.block(block)
        more = times - 1
        self.weights += more * (self.weights - weights)
        self.normalized += more * (self.normalized - normalized)
        self.multiply_adds += more * (self.multiply_adds - multiply_adds)
        self.activations += more * (self.activations - activations)

    def block(self, block: Block) -> None:
        """Walks through one block."""
        channels, name, convs = self.channels, block.name, block.convs
        if self.preactivation:
            self._bn_relu(name, 1)
            self._convs(name, convs, bn_shift=1, bn_last=False)
        else:
            self._convs(name, convs)  # the last one's ReLU comes behind the addition
        size = self.pixels * self.channels
        if block.block_dropout:
            self.activations += self.pixels * convs[-2].filters
        if block.se_ratio:
            self._squeeze_excite(block)
        if block.stochastic_depth:
            self.activations += size
        if block.shortcut != "none":
            self._shortcut(channels, block)
            self.activations += size

    def _shortcut(self, channels: int, block: Block) -> None:
        """Walks from a block's input, which had `channels`, to its output, whose sides have been reached."""
        end = self.channels
        projects = block.has_projection(channels, end)
        if block.stride > 1 and (block.shortcut == "D" or not projects):
            self.activations += self.pixels * channels  # a pool takes the stride
        if projects:
            self.channels = channels
            prefix, with_bn = f"{block.name}_shortcut", block.dialect.shortcut_bn
            self._convs(prefix, (make_conv((end, POINT, 1, 1, 1)),), numbered=False, bn_last=with_bn, relus=0)

    def head(self, classes: int | None) -> None:
        """Walks from the last block to the logits, or with None to what the blocks put out."""
        if self.preactivation:
            self._bn_relu(HEAD)
        if classes is None:
            return
        self.sides, self.pixels = (), 1
        self.activations += self.channels * (2 if self.spec.dropout else 1)  # the mean, and what dropout leaves of it
        self._dense(HEAD_DENSE, classes)

    def _stride(self, stride: int) -> None:
        # ceil(side / stride) under both kinds of padding, since kernels are odd: with k // 2 on both sides it is
        # (side - 1) // stride + 1. A dilated kernel is padded so that it changes nothing.
        self.sides = tuple([-(-side // stride) for side in self.sides])
        self.pixels = prod(self.sides)

    def _convs(
        self,
        prefix: str,
        convs: tuple[Conv, ...],
        *,
        numbered: bool = True,
        bn_last: bool = True,
        bn_shift: int = 0,
        relus: int = 1,
    ) -> None:
        """Walks through convolutions, each with BN and `relus` ReLUs behind it, but for the last without `bn_last`.

        A BN has the number of its convolution, plus `bn_shift`.
        """
        rank, channels, pixels, layers, count = self.rank, self.channels, self.pixels, self.layers, len(convs)
        all_weights = multiply_adds = normalized = activations = 0
        for number, conv in enumerate(convs, start=1):
            filters, kernel_sizes, stride, _, groups = conv
            if stride > 1:
                self._stride(stride)
                pixels = self.pixels
            with_bn = bn_last or number < count
            inputs, bias = channels // groups, self.has_bias[with_bn]
            if len(kernel_sizes) == 1:
                outputs, weights = 1, (kernel_sizes[0] ** rank * inputs + bias) * filters
            else:
                outputs = 2  # those side by side are joined
                weights = sum([(kernel**rank * inputs + bias) * share for kernel, share in conv.shares])
            if with_bn:
                normalized += filters
                outputs += 1 + relus
            all_weights += weights
            multiply_adds += pixels * weights
            activations += outputs * pixels * filters
            channels = filters
            if layers is not None:
                index = number if numbered else None
                self._record_conv(prefix, index, conv, inputs, bias)
                if with_bn:
                    self._record_bn(prefix, index and index + bn_shift, filters)
        self.channels = channels
        self.weights += all_weights
        self.normalized += normalized
        self.multiply_adds += multiply_adds
        self.activations += activations

    def _record_conv(self, prefix: str, index: int | None, conv: Conv, inputs: int, bias: bool) -> None:
        for kernel, share in conv.shares:
            weights = (kernel**self.rank * inputs + bias) * share
            name = layer_name(prefix, "conv", index, kernel if len(conv.kernel_sizes) > 1 else None)
            self._record(LayerCost(name, weights, 0, self.pixels * weights, (*self.sides, share)))

    def _record_bn(self, prefix: str, index: int | None, channels: int) -> None:
        name = layer_name(prefix, "bn", index)
        self._record(LayerCost(name, 2 * channels, 2 * channels, 0, (*self.sides, channels)))

    def _record(self, layer: LayerCost) -> None:
        if self.layers is not None:
            self.layers.append(layer)

    def _bn_relu(self, prefix: str, index: int | None = None) -> None:
        channels = self.channels
        self.normalized += channels
        self.activations += 2 * self.pixels * channels
        if self.layers is not None:
            self._record_bn(prefix, index, channels)

    def _dense(self, name: str, units: int) -> None:
        weights = (self.channels + 1) * units
        self.channels = units
        self.weights += weights
        self.multiply_adds += weights
        self.activations += units
        if self.layers is not None:
            self.layers.append(LayerCost(name, weights, 0, weights, self.shape))

    def _squeeze_excite(self, block: Block) -> None:
        sides, pixels, channels = self.sides, self.pixels, self.channels
        self.sides = (1,) * len(sides)
        self.activations += channels  # the mean
        self._dense(layer_name(block.name, "se_reduce"), se_width(channels, block.se_ratio))
        self._dense(layer_name(block.name, "se_expand"), channels)
        self.sides = sides
        self.activations += pixels * channels  # the product
