"""Our networks against PyTorch modules written from the paper: outputs of every stage, BN statistics, gradients."""

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="extra 'parity' is not installed")

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from torch_reference import (  # noqa: E402
    BN_MOMENTUM,
    BasicBlock,
    Bottleneck,
    ResNet,
    cifar_resnet,
    imagenet_resnet,
    randomise,
    stage_outputs,
)

from keras_resnet import ResNetSpec, build  # noqa: E402

TOLERANCE = 1e-4  # of the largest absolute value of what is compared, float32
CLASSES = 10

SMALL = {"depths": (1, 1), "filters": (8, 16), "strides": (1, 2), "stem_filters": 8}
SMALL_TORCH = {"depths": (1, 1), "filters": (8, 16), "stem_filters": 8, "stem": "imagenet"}
# name -> what `build` takes and what makes the same network in PyTorch. The small nets are the ImageNet form with a
# stage of stride 1 and one of stride 2; between them they have every kind of shortcut B.
NETWORKS = {
    "resnet18": ("resnet18", lambda **kwargs: imagenet_resnet(18, **kwargs)),
    "resnet34": ("resnet34", lambda **kwargs: imagenet_resnet(34, **kwargs)),
    "resnet50": ("resnet50", lambda **kwargs: imagenet_resnet(50, **kwargs)),
    "resnet8_cifar": ("resnet8_cifar", lambda **kwargs: cifar_resnet(8, shortcut="A", **kwargs)),
    "resnet20_cifar": ("resnet20_cifar", lambda **kwargs: cifar_resnet(20, shortcut="A", **kwargs)),
    "resnet20_cifar_b": ("resnet20_cifar_b", lambda **kwargs: cifar_resnet(20, shortcut="B", **kwargs)),
    "small_basic": (
        ResNetSpec("small_basic", "basic", **SMALL),
        lambda **kwargs: ResNet(BasicBlock, **SMALL_TORCH, **kwargs),
    ),
    "small_bottleneck": (
        ResNetSpec("small_bottleneck", "bottleneck", **SMALL),
        lambda **kwargs: ResNet(Bottleneck, **SMALL_TORCH, **kwargs),
    ),
    "small_wide": (
        ResNetSpec("small_wide", "bottleneck", width_per_group=128, **SMALL),
        lambda **kwargs: ResNet(Bottleneck, width_per_group=128, **SMALL_TORCH, **kwargs),
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


def torch_module_name(layer_name):
    """Returns the name of the PyTorch module that holds the weights of our layer `layer_name`."""
    fixed = {"stem_conv": "conv1", "stem_bn": "bn1", "head_logits": "fc"}
    if layer_name in fixed:
        return fixed[layer_name]
    stage, block, part = re.fullmatch(r"stage(\d+)_block(\d+)_(\w+)", layer_name).groups()
    part = {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}.get(part, part)
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
    return array.transpose({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[array.ndim])


def make_pair(network, size, channels, seed=0):
    """Returns our model and the PyTorch net with the same random weights, every one of them used exactly once."""
    spec, make_torch = NETWORKS[network]
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
    """Returns the same images for Keras, (batch, height, width, channels), and for PyTorch, channels first."""
    images = np.random.default_rng(seed).normal(size=(batch, *size, channels)).astype("float32")
    return images, torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def our_stage_outputs(model, images, *, training):
    """Returns what `stage_outputs` does, of our model: keyed and laid out as PyTorch's."""
    names = [layer.name for layer in model.layers]
    layers = {"stem": "stem_pool" if "stem_pool" in names else "stem_relu"}
    for name in names:  # in the order of a forward pass, so that each stage's last block stays
        if match := re.fullmatch(r"stage(\d+)_block\d+_out", name):
            layers[f"layer{match[1]}"] = name
    layers["logits"] = "head_logits"
    parts = keras.Model(model.input, [model.get_layer(name).output for name in layers.values()])
    outputs = [keras.ops.convert_to_numpy(output) for output in parts(images, training=training)]
    return {
        key: output.transpose(0, 3, 1, 2) if output.ndim == 4 else output
        for key, output in zip(layers, outputs, strict=True)
    }


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


CASES = [
    ("resnet18", (33, 33), 3),
    ("resnet18", (97, 97), 1),
    ("resnet18", (225, 225), 3),
    ("resnet34", (64, 64), 3),
    ("resnet50", (33, 33), 1),
    ("resnet50", (97, 97), 3),
    ("resnet20_cifar", (32, 32), 3),
    ("resnet20_cifar", (33, 33), 1),
    ("resnet20_cifar_b", (32, 32), 1),
    ("resnet20_cifar_b", (33, 33), 3),
    ("small_wide", (33, 50), 3),  # not square: exchanged sides would show
]


@pytest.mark.parametrize(("network", "size", "channels"), CASES, ids=lambda value: str(value).replace(", ", "x"))
def test_every_stage_agrees_in_inference(network, size, channels):
    model, net = make_pair(network, size, channels)
    images, torch_images = draw(2, size, channels)
    with torch.inference_mode():
        theirs = stage_outputs(net.eval(), torch_images)
    assert_close(
        our_stage_outputs(model, images, training=False), {key: value.numpy() for key, value in theirs.items()}
    )


@pytest.mark.parametrize("network", ["resnet18", "resnet50", "resnet20_cifar"])
def test_every_stage_and_the_moving_statistics_agree_in_training(network):
    # Four images of 65 pixels leave 36 values per channel in the last stage of the ImageNet form: batch statistics
    # over two or three would turn rounding into large differences.
    size = (33, 33) if "cifar" in network else (65, 65)
    model, net = make_pair(network, size, 3)
    images, torch_images = draw(4, size, 3)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    values_per_channel = {}
    for name, module in net.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(
                lambda module, inputs, output, name=name: values_per_channel.update(
                    {name: output.numel() // output.shape[1]}
                )
            )
    with torch.no_grad():
        theirs = stage_outputs(net.train(), torch_images)
    assert_close(our_stage_outputs(model, images, training=True), {key: value.numpy() for key, value in theirs.items()})

    ours, expected = {}, {}
    after = net.state_dict()
    for variable, key in torch_keys(model):
        name, kind = key.rsplit(".", 1)
        if kind not in ("running_mean", "running_var"):
            continue
        ours[key] = variable.numpy()
        expected[key] = after[key].numpy()
        if kind == "running_var":
            # PyTorch normalises by the variance over n and keeps the one over n - 1; Keras keeps the one over n.
            n = values_per_channel[name]
            kept = (1 - BN_MOMENTUM) * before[key].numpy()
            expected[key] = kept + (expected[key] - kept) * (n - 1) / n
        assert np.abs(expected[key] - before[key].numpy()).max() > 10 * TOLERANCE  # the step moved it
    assert len(ours) == 2 * len(values_per_channel)
    assert_close(ours, expected)


@pytest.fixture
def float64_policy():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.usefixtures("float64_policy")
@pytest.mark.parametrize("network", ["small_basic", "small_bottleneck", "small_wide", "resnet8_cifar"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_gradient_agrees_in_training(network, channels):
    # In float32 a few of all the values lie within rounding of zero, and on which side of a ReLU one of them falls
    # changes a gradient by far more than the tolerance. In float64 both sides agree on every ReLU and every maximum;
    # what is left is the rounding of the head, which is float32 under any policy.
    size = (17, 17) if "cifar" in network else (49, 49)
    model, net = make_pair(network, size, channels)
    net = net.double()
    images, torch_images = draw(4, size, channels)
    labels = np.random.default_rng(2).integers(CLASSES, size=4)

    torch.nn.functional.cross_entropy(net.train()(torch_images.double()), torch.from_numpy(labels)).backward()
    parameters = dict(net.named_parameters())
    with tf.GradientTape() as tape:
        losses = keras.losses.sparse_categorical_crossentropy(labels, model(images, training=True), from_logits=True)
        loss = keras.ops.mean(losses)
    keys = [key for variable, key in torch_keys(model) if variable.trainable]
    assert sorted(keys) == sorted(parameters)
    gradients = tape.gradient(loss, [variable.value for variable, _ in torch_keys(model) if variable.trainable])
    ours = {key: gradient.numpy() for key, gradient in zip(keys, gradients, strict=True)}
    theirs = {key: to_our_layout(parameters[key].grad) for key in keys}
    # A gradient is a sum of terms that may cancel: where it is all but zero beside the others, only the rounding of
    # its terms is left, and relative to itself that can be anything.
    largest = max(np.abs(gradient).max() for gradient in theirs.values())
    assert_close(ours, theirs, floor=1e-3 * largest)
