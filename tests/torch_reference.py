"""Residual networks in PyTorch, written from He et al. 2015 (arXiv:1512.03385), for the tests to compare with.

Nothing here comes from keras_resnet: shapes are written out a second time, so that an error in our table or blocks
shows as a difference. Parameters are called as in torchvision (`layer1.0.downsample.0.weight`).
"""

import torch
from torch import nn

BN_EPSILON = 1e-5
BN_MOMENTUM = 0.1  # PyTorch's convention: the share of the new value


def conv(inputs, outputs, kernel, stride=1):
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


def batch_norm(channels):
    return nn.BatchNorm2d(channels, eps=BN_EPSILON, momentum=BN_MOMENTUM)


class PaddedIdentity(nn.Module):
    """Shortcut A of section 3.3: every stride-th pixel, and zeros as the channels that are missing; no parameters."""

    def __init__(self, missing, stride):
        super().__init__()
        self.missing, self.stride = missing, stride

    def forward(self, x):
        x = x[:, :, :: self.stride, :: self.stride]
        zeros = x.new_zeros(x.shape[0], self.missing, *x.shape[2:])
        return torch.cat([x, zeros], dim=1)


def make_downsample(inputs, outputs, stride, shortcut):
    if stride == 1 and inputs == outputs:
        return None
    if shortcut == "A":
        return PaddedIdentity(outputs - inputs, stride)
    return nn.Sequential(conv(inputs, outputs, 1, stride), batch_norm(outputs))


class BasicBlock(nn.Module):
    """Figure 5, left: two 3x3 convolutions."""

    expansion = 1

    def __init__(self, inputs, filters, stride, shortcut, width_per_group):
        super().__init__()
        assert width_per_group == 64, "a basic block has no inner width"
        self.conv1, self.bn1 = conv(inputs, filters, 3, stride), batch_norm(filters)
        self.conv2, self.bn2 = conv(filters, filters, 3), batch_norm(filters)
        self.downsample = make_downsample(inputs, filters, stride, shortcut)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """Figure 5, right: 1x1, 3x3, 1x1, with the stride on the 3x3 ("v1.5"; the paper has it on the first 1x1)."""

    expansion = 4

    def __init__(self, inputs, filters, stride, shortcut, width_per_group):
        super().__init__()
        width = filters * width_per_group // 64
        outputs = filters * self.expansion
        self.conv1, self.bn1 = conv(inputs, width, 1), batch_norm(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride), batch_norm(width)
        self.conv3, self.bn3 = conv(width, outputs, 1), batch_norm(outputs)
        self.downsample = make_downsample(inputs, outputs, stride, shortcut)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Stem, `layer1`, `layer2`, ... (the first has stride 1, every other 2), mean over the pixels, `fc`.

    `stem` is "imagenet" (7x7 at stride 2, then a 3x3 max pool at stride 2) or "cifar" (3x3 at stride 1).
    """

    def __init__(
        self, block, depths, filters, *, stem, stem_filters, shortcut="B", width_per_group=64, channels=3, classes=1000
    ):
        super().__init__()
        self.conv1 = conv(channels, stem_filters, 7, 2) if stem == "imagenet" else conv(channels, stem_filters, 3)
        self.bn1 = batch_norm(stem_filters)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem == "imagenet" else nn.Identity()
        width = stem_filters
        self.stages = []
        for stage, (depth, stage_filters) in enumerate(zip(depths, filters, strict=True), start=1):
            blocks = []
            for index in range(depth):
                stride = 2 if stage > 1 and index == 0 else 1
                blocks.append(block(width, stage_filters, stride, shortcut, width_per_group))
                width = stage_filters * block.expansion
            self.stages.append(f"layer{stage}")
            self.add_module(self.stages[-1], nn.Sequential(*blocks))
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        return stage_outputs(self, x)["logits"]


def stage_outputs(net, x):
    """Returns {"stem": ..., "layer1": ..., ..., "logits": ...} of images (batch, channels, height, width)."""
    outputs = {"stem": net.maxpool(torch.relu(net.bn1(net.conv1(x))))}
    x = outputs["stem"]
    for stage in net.stages:
        x = outputs[stage] = net.get_submodule(stage)(x)
    outputs["logits"] = net.fc(x.mean(dim=(2, 3)))
    return outputs


IMAGENET = {  # table 1
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
}


def imagenet_resnet(depth, **kwargs):
    block, depths = IMAGENET[depth]
    return ResNet(block, depths, (64, 128, 256, 512), stem="imagenet", stem_filters=64, **kwargs)


def cifar_resnet(depth, **kwargs):
    """Section 4.2: 6n + 2 layers with weights; n blocks of 16, 32 and 64 filters."""
    return ResNet(BasicBlock, ((depth - 2) // 6,) * 3, (16, 32, 64), stem="cifar", stem_filters=16, **kwargs)


def randomise(net, seed):
    """Draws every parameter and statistic, so that none is at a value (0, 1) that would hide where it goes."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        return torch.rand(tensor.shape, generator=generator) * (high - low) + low

    def normal(tensor, deviation):
        return torch.randn(tensor.shape, generator=generator) * deviation

    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_(normal(module.weight, (2 / module.weight[0].numel()) ** 0.5))
            elif isinstance(module, nn.Linear):
                module.weight.copy_(normal(module.weight, module.in_features**-0.5))
                module.bias.copy_(normal(module.bias, 0.5))
            elif isinstance(module, nn.BatchNorm2d):
                # Some variances are small enough for the epsilon to matter; gamma follows their root, so that
                # gamma / sqrt(variance) stays near 1 and deep nets neither explode nor die out.
                module.running_var.copy_(10 ** uniform(module.running_var, -3, 0))
                module.running_mean.copy_(normal(module.running_mean, 0.3))
                module.weight.copy_(uniform(module.weight, 0.5, 1.0) * module.running_var.sqrt())
                module.bias.copy_(normal(module.bias, 0.3))
    return net
