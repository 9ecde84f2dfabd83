"""Our networks and PyTorch's with the same weights, for the parity tests: which they are, and how their names map."""

import re
from dataclasses import replace
from functools import partial

import keras
import numpy as np
import torch
from reference.torch_reference import ResNet, randomise, reference

from keras_resnet import ResNetSpec, build, get_dialect, get_spec
from keras_resnet.models import stage_outputs

TOLERANCE = 1e-4  # of the largest absolute value of what is compared, float32
CLASSES = 10

V2 = get_dialect("torchvision_v2")


def small(name, block, ours=None, theirs=None, depths=(1, 1)):
    """The ImageNet form with a stage of stride 1 and one of stride 2: between them every kind of shortcut B.

    `ours` are further fields of the spec, `theirs` the same for PyTorch where they are called otherwise there.
    """
    shape = {"depths": depths, "filters": (8, 16), "stem_filters": 8}
    ours = ours or {}
    theirs = {"stem": "imagenet", **shape, **(ours if theirs is None else theirs)}
    return ResNetSpec(name, block, strides=(1, 2), **shape, **ours), partial(ResNet, block, **theirs)


def dilated(name, output_stride, stages):
    """The network `name` with the strides of `stages` made dilations, which is to end at `output_stride`."""
    return replace(get_spec(name), output_stride=output_stride), partial(reference, name, dilated=stages)


GROUPED = {"groups": 2, "width_per_group": 32}
# name -> what `build` takes and what makes the same network in PyTorch; any other name is a network of the table.
NETWORKS = {
    "resnet18_stride8": dilated("resnet18", 8, (3, 4)),
    "resnet50_stride8": dilated("resnet50", 8, (3, 4)),
    "resnet50_stride16": dilated("resnet50", 16, (4,)),
    "resnetv2_18_stride16": dilated("resnetv2_18", 16, (4,)),
    "small_basic": small("small_basic", "basic"),
    "small_bottleneck": small("small_bottleneck", "bottleneck"),
    "small_wide": small("small_wide", "bottleneck", {"width_per_group": 128}),
    "small_grouped": small("small_grouped", "bottleneck", GROUPED),
    "small_v2_basic": small("small_v2_basic", "basic", {"dialect": V2}, {"preactivation": True}),
    "small_v2_bottleneck": small("small_v2_bottleneck", "bottleneck", {"dialect": V2}, {"preactivation": True}),
    "small_v2_d": small(
        "small_v2_d",
        "basic",
        {"dialect": V2, "stem": "deep", "shortcut": "D"},
        {"preactivation": True, "stem": "deep", "shortcut": "D"},
    ),
    "small_se": small("small_se", "bottleneck", {"se_ratio": 1 / 16}, {"se": True}),
    "small_d": small("small_d", "bottleneck", {"stem": "deep", "shortcut": "D"}),
    "small_c_basic": small("small_c_basic", "basic", {"shortcut": "C"}, depths=(2, 2)),
    "small_c_bottleneck": small("small_c_bottleneck", "bottleneck", {"shortcut": "C"}, depths=(2, 2)),
    "small_multiscale_1d": small(
        "small_multiscale_1d", "basic", {"rank": 1, "kernel_sizes": (3, 5, 7)}, {"rank": 1, "kernels": (3, 5, 7)}
    ),
    "small_multiscale_grouped": small(
        "small_multiscale_grouped", "bottleneck", {**GROUPED, "kernel_sizes": (3, 5)}, {**GROUPED, "kernels": (3, 5)}
    ),
    "small_grouped_1d": small("small_grouped_1d", "bottleneck", {**GROUPED, "rank": 1}),
    # With two blocks in the stage the second has nothing but the new dilation.
    "small_dilated_basic": small("small_dilated_basic", "basic", {"output_stride": 4}, {"dilated": (2,)}, (1, 2)),
    "small_dilated_bottleneck": small(
        "small_dilated_bottleneck", "bottleneck", {"output_stride": 4}, {"dilated": (2,)}, (1, 2)
    ),
    "small_dilated_grouped_1d": small(
        "small_dilated_grouped_1d",
        "bottleneck",
        {**GROUPED, "rank": 1, "output_stride": 4},
        {**GROUPED, "rank": 1, "dilated": (2,)},
        (1, 2),
    ),
}

TORCH_VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
TORCH_MODULES = {
    "stem_conv": "conv1",
    "stem_bn": "bn1",
    "stem_conv1": "conv1.0",
    "stem_bn1": "conv1.1",
    "stem_conv2": "conv1.3",
    "stem_bn2": "conv1.4",
    "stem_conv3": "conv1.6",
    "stem_bn3": "bn1",
    "head_bn": "norm",
    "head_logits": "fc",
}
TORCH_PARTS = {  # of a block
    "shortcut_conv": "downsample.0",
    "shortcut_bn": "downsample.1",
    "se_reduce": "se.fc1",
    "se_expand": "se.fc2",
}


def torch_module_name(layer_name):
    """Returns the name of the PyTorch module that holds the weights of our layer `layer_name`."""
    if layer_name in TORCH_MODULES:
        return TORCH_MODULES[layer_name]
    stage, block, part = re.fullmatch(r"stage(\d+)_block(\d+)_(\w+)", layer_name).groups()
    part = TORCH_PARTS.get(part) or part.replace("_k", ".k")
    return f"layer{stage}.{int(block) - 1}.{part}"


def torch_keys(model):
    """Returns [(our variable, its key in the PyTorch state dict)] for every variable of the model."""
    return [
        (variable, f"{torch_module_name(layer.name)}.{TORCH_VARIABLES[variable.name]}")
        for layer in model.layers
        for variable in layer.weights
    ]


def to_our_layout(tensor):
    """Convolutions are OIHW in PyTorch and HWIO in Keras; dense kernels are transposed; vectors are the same."""
    array = tensor.detach().numpy()
    return array.transpose({4: (2, 3, 1, 0), 3: (2, 1, 0), 2: (1, 0), 1: (0,)}[array.ndim])


def make_pair(network, size, channels, seed=0):
    """Returns our model and the PyTorch net with the same random weights, every one of them used exactly once."""
    spec, make_torch = NETWORKS.get(network) or (network, partial(reference, network))
    net = randomise(make_torch(channels=channels, classes=CLASSES), seed)
    model = build(spec, (*size, channels), CLASSES, classifier_activation=None)
    state = net.state_dict()
    pairs = torch_keys(model)
    expected = [key for key in state if not key.endswith("num_batches_tracked")]  # a counter that Keras does not keep
    assert sorted(key for _, key in pairs) == sorted(expected)
    for variable, key in pairs:
        variable.assign(to_our_layout(state[key]))
    for layer in model.layers:  # exactly: 1e-5 and keras.applications' 1.001e-5 differ by less than the tolerance
        if isinstance(layer, keras.layers.BatchNormalization):
            assert layer.epsilon == net.get_submodule(torch_module_name(layer.name)).eps
    return model, net


def draw(batch, size, channels, seed=1):
    """Returns the same input for Keras, (batch, height, width, channels), and for PyTorch, channels first."""
    inputs = np.random.default_rng(seed).normal(size=(batch, *size, channels)).astype("float32")
    return inputs, torch.from_numpy(np.moveaxis(inputs, -1, 1).copy())


def our_stage_outputs(model, inputs, *, training):
    """Returns what the reference's `stage_outputs` does, of our model: keyed and laid out as PyTorch's."""
    parts = keras.Model(model.input, {**stage_outputs(model), "logits": model.get_layer("head_logits").output})
    outputs = parts(inputs, training=training)
    return {key: np.moveaxis(keras.ops.convert_to_numpy(output), -1, 1) for key, output in outputs.items()}


def assert_close(ours, theirs, floor=0.0):
    """Asserts that two dicts of arrays agree, each array to TOLERANCE of its own largest value, or of `floor`."""
    assert list(ours) == list(theirs)
    differences = {}
    for key, value in theirs.items():
        assert ours[key].shape == value.shape, key
        assert np.isfinite(value).all(), key
        differences[key] = float(np.abs(ours[key] - value).max() / max(np.abs(value).max(), floor))
    too_large = {key: difference for key, difference in differences.items() if not difference <= TOLERANCE}
    assert not too_large, f"relative differences above {TOLERANCE}: {too_large}"
