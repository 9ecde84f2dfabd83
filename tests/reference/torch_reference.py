"""Residual networks in PyTorch, written from the papers, for the tests to compare with.

Nothing here comes from keras_resnet: shapes are written out a second time, so that an error in our table or blocks
shows as a difference. Parameters are called as in torchvision (`layer1.0.downsample.0.weight`); what torchvision has
not is called `norm` (the last BN in pre-activation), `se.fc1`, `se.fc2`, `conv1.k3` (one of several kernels) and, in
ResNet-D's stem, `conv1.0` to `conv1.6`.
"""

import re
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

BN_EPSILON = 1e-5
BN_MOMENTUM = 0.1  # PyTorch's convention: the share of the new value

CONVS = {1: nn.Conv1d, 2: nn.Conv2d}
BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
MAX_POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d}
AVG_POOLS = {1: nn.AvgPool1d, 2: nn.AvgPool2d}


@dataclass(frozen=True)
class Form:
    """What all blocks of a network have in common."""

    rank: int = 2  # 1: sequences, 2: images
    shortcut: str = "B"
    kernels: tuple[int, ...] = (3,)
    groups: int = 1  # the cardinality of ResNeXt
    width_per_group: int = 64  # of the 3x3 convolution of a bottleneck in a stage of 64 filters
    se: bool = False
    preactivation: bool = False


def conv(form, inputs, outputs, kernel, stride=1, dilation=1, groups=1):
    padding = dilation * (kernel // 2)
    return CONVS[form.rank](inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)


def batch_norm(form, channels):
    return BATCH_NORMS[form.rank](channels, eps=BN_EPSILON, momentum=BN_MOMENTUM)


class ParallelConvs(nn.Module):
    """Kernels side by side over the same input, joined; channels as even as can be, the first kernels get the rest."""

    def __init__(self, form, inputs, outputs, **options):
        super().__init__()
        shares = torch.arange(outputs).tensor_split(len(form.kernels))
        for kernel, share in zip(form.kernels, shares, strict=True):
            self.add_module(f"k{kernel}", conv(form, inputs, len(share), kernel, **options))

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.children()], dim=1)


def spatial_conv(form, inputs, outputs, **options):
    if len(form.kernels) > 1:
        return ParallelConvs(form, inputs, outputs, **options)
    return conv(form, inputs, outputs, *form.kernels, **options)


class SqueezeExcite(nn.Module):
    """Hu et al. 2017, section 3: each channel times a gate; reduction ratio 16."""

    def __init__(self, channels):
        super().__init__()
        width = max(1, round(channels / 16))
        self.fc1, self.fc2 = nn.Linear(channels, width), nn.Linear(width, channels)

    def forward(self, x):
        squeezed = x.flatten(2).mean(2)
        gates = torch.sigmoid(self.fc2(torch.relu(self.fc1(squeezed))))
        return x * gates.reshape(*gates.shape, *[1] * (x.ndim - 2))


class PaddedIdentity(nn.Module):
    """Shortcut A of He et al. 2015, section 3.3: every stride-th pixel, and zeros as the channels that are missing."""

    def __init__(self, missing, stride):
        super().__init__()
        self.missing, self.stride = missing, stride

    def forward(self, x):
        x = x[(..., *[slice(None, None, self.stride)] * (x.ndim - 2))]
        zeros = x.new_zeros(x.shape[0], self.missing, *x.shape[2:])
        return torch.cat([x, zeros], dim=1)


class NoShortcut(nn.Module):
    """A plain net adds nothing."""

    def forward(self, x):
        return 0.0


def make_downsample(form, inputs, outputs, stride):
    """Returns the module of a shortcut: A, B and C of He et al. 2015, section 4.1; D of He et al. 2018, figure 2c."""
    if form.shortcut == "none":
        return NoShortcut()
    if form.shortcut != "C" and stride == 1 and inputs == outputs:
        return nn.Identity()
    if form.shortcut == "A":
        assert not form.preactivation
        return PaddedIdentity(outputs - inputs, stride)
    parts = OrderedDict()
    if form.shortcut == "D" and stride == 2:
        # The last window of an odd side holds one pixel, and is the mean of that one.
        parts["pool"] = AVG_POOLS[form.rank](2, 2, ceil_mode=True, count_include_pad=False)
        stride = 1
    parts["0"] = conv(form, inputs, outputs, 1, stride)
    if not form.preactivation:
        parts["1"] = batch_norm(form, outputs)
    return nn.Sequential(parts)


class Block(nn.Module):
    """What the four blocks share: a gate where asked, and a shortcut.

    `before` is the dilation that the incoming grid has, `after` that of the outgoing one.
    """

    def __init__(self, form, inputs, outputs, stride):
        super().__init__()
        self.se = SqueezeExcite(outputs) if form.se else nn.Identity()
        self.downsample = make_downsample(form, inputs, outputs, stride)

    def skip(self, x, activated):
        """He et al. 2016: an identity passes on what came in, a projection takes it after BN and ReLU."""
        return self.downsample(activated if isinstance(self.downsample, nn.Sequential) else x)


class BasicBlock(Block):
    """He et al. 2015, figure 5, left: two 3x3 convolutions."""

    expansion = 1

    def __init__(self, form, inputs, filters, stride, before, after):
        super().__init__(form, inputs, filters, stride)
        assert (form.groups, form.width_per_group) == (1, 64), "a basic block has no inner width"
        self.conv1 = spatial_conv(form, inputs, filters, stride=stride, dilation=before)
        self.bn1 = batch_norm(form, filters)
        self.conv2 = spatial_conv(form, filters, filters, dilation=after)
        self.bn2 = batch_norm(form, filters)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(self.se(y) + self.downsample(x))


class PreactivationBasicBlock(BasicBlock):
    """He et al. 2016, figure 1b."""

    def __init__(self, form, inputs, filters, stride, before, after):
        super().__init__(form, inputs, filters, stride, before, after)
        self.bn1 = batch_norm(form, inputs)

    def forward(self, x):
        activated = torch.relu(self.bn1(x))
        y = self.conv1(activated)
        y = self.conv2(torch.relu(self.bn2(y)))
        return self.se(y) + self.skip(x, activated)


class Bottleneck(Block):
    """He et al. 2015, figure 5, right: 1x1, 3x3, 1x1, the 3x3 in groups as in Xie et al. 2016, figure 3c.

    The 3x3 has the stride ("v1.5"; the paper has it on the first 1x1), and of a dilated stage's first block so the
    dilation before it.
    """

    expansion = 4

    def __init__(self, form, inputs, filters, stride, before, after):
        outputs = filters * self.expansion
        super().__init__(form, inputs, outputs, stride)
        width = form.groups * form.width_per_group * filters // 64
        self.conv1, self.bn1 = conv(form, inputs, width, 1), batch_norm(form, width)
        self.conv2 = spatial_conv(form, width, width, stride=stride, dilation=before, groups=form.groups)
        self.bn2 = batch_norm(form, width)
        self.conv3, self.bn3 = conv(form, width, outputs, 1), batch_norm(form, outputs)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(self.se(y) + self.downsample(x))


class PreactivationBottleneck(Bottleneck):
    """He et al. 2016, figure 1b, for three convolutions."""

    def __init__(self, form, inputs, filters, stride, before, after):
        super().__init__(form, inputs, filters, stride, before, after)
        self.bn1 = batch_norm(form, inputs)
        self.bn3 = batch_norm(form, self.conv3.in_channels)

    def forward(self, x):
        activated = torch.relu(self.bn1(x))
        y = self.conv1(activated)
        y = self.conv2(torch.relu(self.bn2(y)))
        y = self.conv3(torch.relu(self.bn3(y)))
        return self.se(y) + self.skip(x, activated)


BLOCKS = {  # (name, pre-activation)
    ("basic", False): BasicBlock,
    ("basic", True): PreactivationBasicBlock,
    ("bottleneck", False): Bottleneck,
    ("bottleneck", True): PreactivationBottleneck,
}


def make_stem(form, kind, channels, filters):
    """Returns (convolutions up to the last BN, pool).

    "imagenet": 7x7 at stride 2 and a 3x3 max pool at stride 2 (He et al. 2015, table 1); "deep": 3x3 at stride 2 and
    two 3x3 for the 7x7 (He et al. 2018, figure 2b); "cifar": 3x3, no pool (He et al. 2015, section 4.2).
    """
    if kind == "cifar":
        return conv(form, channels, filters, 3), nn.Identity()
    pool = MAX_POOLS[form.rank](3, stride=2, padding=1)  # pads with minus infinity
    if kind == "imagenet":
        return conv(form, channels, filters, 7, 2), pool
    half = filters // 2
    first = (conv(form, channels, half, 3, 2), batch_norm(form, half), nn.ReLU())
    second = (conv(form, half, half, 3), batch_norm(form, half), nn.ReLU())
    return nn.Sequential(*first, *second, conv(form, half, filters, 3)), pool


class ResNet(nn.Module):
    """Stem, `layer1`, `layer2`, ... (the first has stride 1, every other 2), mean over the pixels, `fc`.

    In the stages `dilated`, counted from 1, the stride becomes a dilation of what follows it (Chen et al. 2017,
    arXiv:1706.05587, figure 3).
    """

    def __init__(self, block, depths, filters, *, stem, stem_filters, dilated=(), channels=3, classes=1000, **form):
        super().__init__()
        form = Form(**form)
        self.conv1, self.maxpool = make_stem(form, stem, channels, stem_filters)
        self.preactivation = form.preactivation
        if not self.preactivation:
            self.bn1 = batch_norm(form, stem_filters)
        width, dilation = stem_filters, 1
        self.stages = range(1, len(depths) + 1)
        for stage, depth, stage_filters in zip(self.stages, depths, filters, strict=True):
            blocks = []
            for index in range(depth):
                stride, before = (2 if stage > 1 and index == 0 else 1), dilation
                if stage in dilated:
                    stride, dilation = 1, dilation * stride
                make = BLOCKS[block, form.preactivation]
                blocks.append(make(form, width, stage_filters, stride, before, dilation))
                width = stage_filters * make.expansion
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        if self.preactivation:
            self.norm = batch_norm(form, width)
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        return stage_outputs(self, x)["logits"]


def stage_outputs(net, x):
    """Returns {"stem": ..., "stage1": ..., ..., "logits": ...} of (batch, channels, height, width) or one side."""
    x = net.conv1(x)
    if not net.preactivation:
        x = torch.relu(net.bn1(x))
    x = net.maxpool(x)
    outputs = {"stem": x}
    for stage in net.stages:
        x = outputs[f"stage{stage}"] = net.get_submodule(f"layer{stage}")(x)
    if net.preactivation:
        x = torch.relu(net.norm(x))
    outputs["logits"] = net.fc(x.flatten(2).mean(2))
    return outputs


IMAGENET = {  # He et al. 2015, table 1
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}


def imagenet(depth, groups=1, width_per_group=64, *, stem="imagenet", **options):
    block, depths = IMAGENET[depth]
    options = {"stem": stem, "stem_filters": 64, "groups": groups, "width_per_group": width_per_group, **options}
    return ResNet(block, depths, (64, 128, 256, 512), **options)


def imagenet_1d(depth, *, channels=1, **options):
    return imagenet(depth, rank=1, channels=channels, **options)


def cifar(depth, *, filters=(16, 32, 64), extra=2, classes=10, **options):
    """He et al. 2015, section 4.2: 6n + 2 layers with weights, n blocks of 16, 32 and 64 filters."""
    blocks, rest = divmod(depth - extra, 6)
    assert rest == 0
    return ResNet("basic", (blocks,) * 3, filters, stem="cifar", stem_filters=16, classes=classes, **options)


def cifar_bottleneck(depth, *, classes=10, **options):
    """He et al. 2016, section 3.1: 9n + 2 layers with weights, the widths of the basic form in front of the 1x1."""
    blocks, rest = divmod(depth - 2, 9)
    assert rest == 0
    options = {"stem": "cifar", "stem_filters": 16, "classes": classes, **options}
    return ResNet("bottleneck", (blocks,) * 3, (16, 32, 64), **options)


def wide_cifar(depth, width, **options):
    """Zagoruyko and Komodakis 2016, table 1: 6n + 4 counts convolutions, with the first and three projections."""
    return cifar(depth, filters=(16 * width, 32 * width, 64 * width), extra=4, preactivation=True, **options)


def resnext_cifar(depth, groups, width_per_group, *, classes=10, **options):
    """Xie et al. 2016, section 5.2: three stages of bottlenecks, 256, 512 and 1024 channels wide, after 64 filters."""
    blocks, rest = divmod(depth - 2, 9)
    assert rest == 0
    options = {"groups": groups, "width_per_group": width_per_group, "classes": classes, **options}
    return ResNet("bottleneck", (blocks,) * 3, (64, 128, 256), stem="cifar", stem_filters=64, **options)


NETWORKS = {  # name -> function of the numbers in it
    r"resnet(\d+)": imagenet,
    r"resnetv2_(\d+)": partial(imagenet, preactivation=True),
    r"resnet(\d+)_d": partial(imagenet, stem="deep", shortcut="D"),
    r"resnext(\d+)_(\d+)x(\d+)d": imagenet,
    r"wide_resnet(\d+)_2": partial(imagenet, width_per_group=128),
    r"seresnet(\d+)": partial(imagenet, se=True),
    r"seresnext(\d+)_(\d+)x(\d+)d": partial(imagenet, se=True),
    r"plain(\d+)": partial(imagenet, shortcut="none"),
    r"resnet(\d+)_cifar": partial(cifar, shortcut="A"),
    r"resnet(\d+)_cifar_b": cifar,
    r"plain(\d+)_cifar": partial(cifar, shortcut="none"),
    r"resnetv2_(\d+)_cifar": partial(cifar, preactivation=True),
    r"resnetv2_(\d+)_cifar_bottleneck": partial(cifar_bottleneck, preactivation=True),
    r"resnext(\d+)_(\d+)x(\d+)d_cifar": resnext_cifar,
    r"wrn(\d+)_(\d+)_cifar": wide_cifar,
    r"resnet(\d+)_1d": imagenet_1d,
    r"resnet(\d+)_multiscale_1d": partial(imagenet_1d, kernels=(3, 5, 7)),
    r"resnet(\d+)_multiscale": partial(imagenet, kernels=(3, 5, 7)),
}


def reference(name, **options):
    """Returns the network called `name`, with the channels and classes of its source unless `options` say others."""
    for pattern, make in NETWORKS.items():
        if match := re.fullmatch(pattern, name):
            return make(*map(int, match.groups()), **options)
    raise KeyError(f"There is no PyTorch module of {name!r} yet.")


def randomise(net, seed):
    """Draws every parameter and statistic, so that none is at a value (0, 1) that would hide where it goes."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        return torch.rand(tensor.shape, generator=generator) * (high - low) + low

    def normal(tensor, deviation):
        return torch.randn(tensor.shape, generator=generator) * deviation

    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, tuple(CONVS.values())):
                module.weight.copy_(normal(module.weight, (2 / module.weight[0].numel()) ** 0.5))
            elif isinstance(module, nn.Linear):
                module.weight.copy_(normal(module.weight, module.in_features**-0.5))
                module.bias.copy_(normal(module.bias, 0.5))
            elif isinstance(module, tuple(BATCH_NORMS.values())):
                # Some variances are small enough for the epsilon to matter; gamma follows their root, so that
                # gamma / sqrt(variance) stays near 1 and deep nets neither explode nor die out.
                module.running_var.copy_(10 ** uniform(module.running_var, -3, 0))
                module.running_mean.copy_(normal(module.running_mean, 0.3))
                module.weight.copy_(uniform(module.weight, 0.75, 1.25) * module.running_var.sqrt())
                module.bias.copy_(normal(module.bias, 0.3))
    return net
