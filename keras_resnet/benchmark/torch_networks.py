"""`build_torch(spec)`: the network of a spec in PyTorch, to compare speeds with.

It follows the plan of convolutions that our own builder follows, and its modules are called as our layers are: a parameter
of the layer `stage1_block1_conv1` is that of the module `stage1_block1.branch.conv1`, one of `stem_conv` that of
`stem.conv` (`layer_name` maps them).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from keras_resnet.benchmark.plan import check_torch_can
from keras_resnet.specs import (
    POOLED_STEMS,
    Block,
    Conv,
    ResNetSpec,
    iter_blocks,
    se_width,
    stem_convs,
)


def build_torch(spec: ResNetSpec, channels: int, classes: int) -> nn.Sequential:
    """`head(stages(stem(x)))`: (batch, channels, height, width), or (batch, channels, steps), to logits.

    Raises:
        InputError: what PyTorch has no layer for, or only training would show; see `plan.check_torch_can`.
    """
    check_torch_can(spec)
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=_make_stem(spec, channels))
    convs = stem_convs(spec.stem, spec.stem_filters)
    width = convs[-1].filters if convs else channels
    for described in iter_blocks(spec):
        block = _Block(spec, described, width)
        parts[described.name], width = block, block.outputs
    head: OrderedDict[str, nn.Module] = OrderedDict()
    if spec.dialect.preactivation:
        head["bn"], head["relu"] = _batch_norm(spec, width), nn.ReLU(inplace=True)
    head["pool"], head["flatten"] = _of_rank(spec, "AdaptiveAvgPool")(1), nn.Flatten()
    head["logits"] = nn.Linear(width, classes)
    parts["head"] = nn.Sequential(head)
    return nn.Sequential(parts)


def layer_name(module_name: str) -> str:
    """The name that our layer has for a module: `stage1_block1.branch.conv1` is `stage1_block1_conv1`."""
    return "_".join(part for part in module_name.split(".") if part not in ("branch", "activation"))


def _of_rank(spec: ResNetSpec, kind: str) -> Any:
    return getattr(nn, f"{kind}{spec.rank}d")


def _batch_norm(spec: ResNetSpec, channels: int) -> nn.Module:
    dialect = spec.dialect  # its momentum is Keras', the share of the old value
    return _of_rank(spec, "BatchNorm")(channels, eps=dialect.bn_epsilon, momentum=1 - dialect.bn_momentum)


class _SideBySide(nn.Module):
    """`concat_k conv_k(x)`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.children()], dim=1)


def _conv(spec: ResNetSpec, channels: int, plan: Conv, *, bn_follows: bool) -> nn.Module:
    def make(size: int, filters: int) -> nn.Module:
        dilation = plan.dilation if size > 1 else 1
        return _of_rank(spec, "Conv")(
            channels,
            filters,
            size,
            plan.stride,
            dilation * (size // 2),
            dilation,
            plan.groups,
            bias=spec.dialect.has_bias(bn_follows=bn_follows),
        )

    if len(plan.kernel_sizes) == 1:
        return make(plan.kernel_sizes[0], plan.filters)
    joined = _SideBySide()
    for size, filters in plan.shares:
        joined.add_module(f"k{size}", make(size, filters))
    return joined


def _make_stem(spec: ResNetSpec, channels: int) -> nn.Module:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    convs = stem_convs(spec.stem, spec.stem_filters)
    for number, plan in enumerate(convs, start=1):
        index = str(number) if len(convs) > 1 else ""
        normalized = number < len(convs) or not spec.dialect.preactivation
        parts[f"conv{index}"] = _conv(spec, channels, plan, bn_follows=normalized)
        if normalized:
            parts[f"bn{index}"], parts[f"relu{index}"] = _batch_norm(spec, plan.filters), nn.ReLU(inplace=True)
        channels = plan.filters
    if spec.stem in POOLED_STEMS:
        zeros = spec.dialect.preactivation and spec.dialect.pool_padding == "zeros"
        if zeros:
            parts["pool_pad"] = _of_rank(spec, "ConstantPad")(1, 0.0)
        parts["pool"] = _of_rank(spec, "MaxPool")(3, 2, 0 if zeros else 1)
    return nn.Sequential(parts)


class _SqueezeExcite(nn.Module):
    """`x * sigmoid(W2 relu(W1 mean(x)))`."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        width = se_width(channels, ratio)
        self.reduce, self.expand = nn.Linear(channels, width), nn.Linear(width, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gates = torch.sigmoid(self.expand(torch.relu(self.reduce(x.flatten(2).mean(2)))))
        return x * gates.reshape(*gates.shape, *[1] * (x.ndim - 2))


class _Subsample(nn.Module):
    """`pad_channels(x[::stride, ::stride])`: a shortcut without weights."""

    def __init__(self, stride: int, missing: int) -> None:
        super().__init__()
        self.stride, self.missing = stride, missing

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride > 1:
            x = x[(slice(None),) * 2 + (slice(None, None, self.stride),) * (x.ndim - 2)]
        if self.missing:
            x = nn.functional.pad(x, (0, 0) * (x.ndim - 2) + (0, self.missing))
        return x


class _Block(nn.Module):
    """`relu(branch(x) + shortcut(x))`, or in pre-activation `branch(relu(bn(x))) + shortcut(x)`."""

    def __init__(self, spec: ResNetSpec, block: Block, channels: int) -> None:
        super().__init__()
        before, convs = spec.dialect.preactivation, block.convs
        branch: OrderedDict[str, nn.Module] = OrderedDict()
        width = channels
        for index, plan in enumerate(convs, start=1):
            last = index == len(convs)
            if before:
                branch[f"bn{index}"], branch[f"relu{index}"] = _batch_norm(spec, width), nn.ReLU(inplace=True)
            branch[f"conv{index}"] = _conv(spec, width, plan, bn_follows=not (last and before))
            width = plan.filters
            if not before:
                branch[f"bn{index}"] = _batch_norm(spec, width)
                if not last:
                    branch[f"relu{index}"] = nn.ReLU(inplace=True)
        # What a projection in pre-activation takes is what the branch's first convolution takes.
        first = OrderedDict((name, branch.pop(name)) for name in ("bn1", "relu1") if before)
        self.activation, self.branch = nn.Sequential(first), nn.Sequential(branch)
        self.se = _SqueezeExcite(width, spec.se_ratio) if spec.se_ratio else nn.Identity()
        self.projects = block.has_projection(channels, width)
        self.shortcut = self._make_shortcut(spec, channels, width, block.stride)
        self.relu = nn.Identity() if before else nn.ReLU(inplace=True)
        self.outputs = width
        if spec.zero_gamma:
            nn.init.zeros_(branch[f"conv{len(convs)}" if before else f"bn{len(convs)}"].weight)  # type: ignore[arg-type]

    def _make_shortcut(self, spec: ResNetSpec, channels: int, width: int, stride: int) -> nn.Module | None:
        if spec.shortcut == "none":
            return None
        if not self.projects:
            same = stride == 1 and channels == width
            return nn.Identity() if same else _Subsample(stride, width - channels)
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        if spec.shortcut == "D" and stride > 1:
            # The last window of an odd side holds one pixel, and is the mean of that one.
            parts["pool"] = _of_rank(spec, "AvgPool")(stride, stride, ceil_mode=True, count_include_pad=False)
            stride = 1
        parts["conv"] = _conv(spec, channels, Conv(width, (1,), stride), bn_follows=spec.dialect.shortcut_bn)
        if spec.dialect.shortcut_bn:
            parts["bn"] = _batch_norm(spec, width)
        return nn.Sequential(parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = self.activation(x)
        y = self.se(self.branch(activated))
        if self.shortcut is not None:
            y = y + self.shortcut(activated if self.projects else x)
        return self.relu(y)
