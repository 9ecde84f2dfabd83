"""Our networks against PyTorch modules written from the papers: outputs of every stage, BN statistics, gradients."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="extra 'parity' is not installed")

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from reference.torch_pairs import (  # noqa: E402
    CLASSES,
    NETWORKS,
    TOLERANCE,
    assert_close,
    draw,
    make_pair,
    our_stage_outputs,
    to_our_layout,
    torch_keys,
)
from reference.torch_reference import BATCH_NORMS, BN_MOMENTUM, reference, stage_outputs  # noqa: E402

from keras_resnet import count_params, get_spec  # noqa: E402
from keras_resnet.specs import TABLE  # noqa: E402

# Other dialects are compared with the library that they are named after.
ROWS = [name for name, row in TABLE.items() if row.spec.dialect.name not in ("keras_v1", "keras_v2", "d2l")]


@pytest.mark.parametrize("name", ROWS)
def test_parameters_are_as_many(name):
    with torch.device("meta"):  # shapes without memory
        net = reference(name)
    assert sum(parameter.numel() for parameter in net.parameters()) == count_params(name, trainable_only=True)


# Odd sides: at stride 2 a padding of TensorFlow's kind would show. Not square: exchanged sides would.
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
    ("small_wide", (33, 50), 3),
    ("resnext50_32x4d", (33, 33), 1),
    ("resnext50_32x4d", (97, 97), 3),
    ("resnext50_32x4d", (225, 225), 3),
    ("resnext11_2x16d_cifar", (33, 33), 3),
    ("resnext11_2x16d_cifar", (32, 47), 1),
    ("resnext29_8x64d_cifar", (33, 33), 3),
    ("wide_resnet50_2", (33, 33), 3),
    ("resnetv2_18", (33, 33), 4),
    ("resnetv2_18", (64, 97), 3),
    ("resnetv2_50", (33, 33), 3),
    ("resnetv2_50", (97, 97), 1),
    ("resnetv2_20_cifar", (33, 33), 3),
    ("resnetv2_11_cifar_bottleneck", (33, 33), 3),
    ("wrn10_2_cifar", (33, 33), 3),
    ("wrn16_1_cifar", (33, 33), 1),
    ("resnet18_d", (33, 33), 3),
    ("resnet18_d", (97, 64), 1),
    ("resnet50_d", (33, 33), 3),
    ("resnet50_d", (97, 97), 3),
    ("seresnet18", (33, 33), 1),
    ("seresnet18", (97, 97), 3),
    ("seresnet50", (33, 33), 3),
    ("seresnext50_32x4d", (33, 33), 3),
    ("plain18", (33, 33), 3),
    ("plain18", (97, 97), 3),
    ("plain20_cifar", (33, 33), 1),
    ("small_c_basic", (33, 50), 3),
    ("small_c_bottleneck", (33, 33), 3),
    ("small_v2_d", (33, 33), 3),
    ("resnet18_1d", (33,), 1),
    ("resnet18_1d", (97,), 2),
    ("resnet18_1d", (225,), 1),
    ("resnet50_1d", (33,), 3),
    ("small_grouped_1d", (33,), 2),
    ("resnet18_multiscale_1d", (33,), 1),
    ("resnet18_multiscale_1d", (97,), 3),
    ("resnet18_multiscale", (33, 50), 3),
    ("small_multiscale_grouped", (33, 33), 3),
    ("resnet18_stride8", (33, 33), 3),
    ("resnet18_stride8", (97, 97), 3),
    ("resnet50_stride8", (33, 33), 3),
    ("resnet50_stride8", (97, 65), 3),
    ("resnet50_stride16", (33, 33), 1),
    ("resnet50_stride16", (97, 97), 3),
    ("resnetv2_18_stride16", (97, 97), 3),
    ("small_dilated_grouped_1d", (97,), 2),
]


def form(spec):
    """What the building of a network branches on."""
    wide, grouped, squeezed = spec.width_per_group != 64, spec.groups > 1, spec.se_ratio > 0
    return spec.block, spec.rank, spec.stem, spec.shortcut, spec.dialect, spec.kernel_sizes, wide, grouped, squeezed


def test_every_form_of_the_table_is_compared():
    compared = {form(get_spec(network)) for network, _, _ in CASES if network not in NETWORKS}
    assert [name for name in ROWS if form(get_spec(name)) not in compared] == []


@pytest.mark.parametrize(("network", "size", "channels"), CASES, ids=lambda value: str(value).replace(", ", "x"))
def test_every_stage_agrees_in_inference(network, size, channels):
    model, net = make_pair(network, size, channels)
    inputs, torch_inputs = draw(2, size, channels)
    with torch.inference_mode():
        theirs = {key: value.numpy() for key, value in stage_outputs(net.eval(), torch_inputs).items()}
    # Logits that hardly depend on the input would agree whatever the layers before them did.
    assert np.abs(theirs["logits"][0] - theirs["logits"][1]).max() > 10 * TOLERANCE * np.abs(theirs["logits"]).max()
    assert_close(our_stage_outputs(model, inputs, training=False), theirs)


@pytest.mark.parametrize(
    "network", ["resnet18", "resnet50", "resnet20_cifar", "resnetv2_18", "resnext11_2x16d_cifar", "small_grouped_1d"]
)
def test_every_stage_and_the_moving_statistics_agree_in_training(network):
    # Four images of 65 pixels leave 36 values per channel in the last stage of the ImageNet form: batch statistics
    # over two or three would turn rounding into large differences.
    size = (33, 33) if "cifar" in network else (129,) if "1d" in network else (65, 65)
    model, net = make_pair(network, size, 3)
    inputs, torch_inputs = draw(4, size, 3)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    values_per_channel = {}
    for name, module in net.named_modules():
        if isinstance(module, tuple(BATCH_NORMS.values())):
            module.register_forward_hook(
                lambda module, inputs, output, name=name: values_per_channel.update(
                    {name: output.numel() // output.shape[1]}
                )
            )
    with torch.no_grad():
        theirs = stage_outputs(net.train(), torch_inputs)
    assert_close(our_stage_outputs(model, inputs, training=True), {key: value.numpy() for key, value in theirs.items()})

    ours, expected = {}, {}
    after = net.state_dict()
    for variable, key in torch_keys(model):
        name, kind = key.rsplit(".", 1)
        if kind not in ("running_mean", "running_var"):
            continue
        ours[key] = variable.numpy()
        expected[key] = after[key].numpy()
        if kind == "running_var":
            # PyTorch normalizes by the variance over n and keeps the one over n - 1; Keras keeps the one over n.
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


GRADIENT_CASES = [
    ("small_basic", 1),
    ("small_basic", 3),
    ("small_bottleneck", 1),
    ("small_bottleneck", 3),
    ("small_wide", 1),
    ("small_wide", 3),
    ("resnet8_cifar", 1),
    ("resnet8_cifar", 3),
    ("small_grouped", 3),
    ("small_grouped_1d", 2),
    ("small_v2_basic", 3),
    ("small_v2_bottleneck", 1),
    ("small_se", 3),
    ("small_d", 3),
    ("small_c_basic", 1),
    ("small_multiscale_1d", 2),
    ("small_dilated_basic", 3),
    ("small_dilated_bottleneck", 3),
    ("small_dilated_grouped_1d", 1),
]


@pytest.mark.usefixtures("float64_policy")
@pytest.mark.parametrize("name", [name for name in ROWS if name != "resnet1202_cifar"])
def test_every_row_agrees_in_inference(name):
    # In float32 the deepest nets with random weights turn rounding into differences of 1 %: gates of
    # squeeze-and-excitation between activations of some thousands.
    row = TABLE[name]
    model, net = make_pair(name, (33,) * row.spec.rank, row.input_shape[-1])
    inputs, torch_inputs = draw(2, (33,) * row.spec.rank, row.input_shape[-1])
    with torch.inference_mode():
        theirs = {
            key: value.numpy() for key, value in stage_outputs(net.double().eval(), torch_inputs.double()).items()
        }
    assert_close(our_stage_outputs(model, inputs, training=False), theirs)


@pytest.mark.usefixtures("float64_policy")
@pytest.mark.parametrize(("network", "channels"), GRADIENT_CASES)
def test_every_gradient_agrees_in_training(network, channels):
    # In float32 a few of all the values lie within rounding of zero, and on which side of a ReLU one of them falls
    # changes a gradient by far more than the tolerance. In float64 both sides agree on every ReLU and every maximum;
    # what is left is the rounding of the head, which is float32 under any policy.
    size = (17, 17) if "cifar" in network else (129,) if "1d" in network else (49, 49)
    model, net = make_pair(network, size, channels)
    net = net.double()
    inputs, torch_inputs = draw(4, size, channels)
    labels = np.random.default_rng(2).integers(CLASSES, size=4)

    torch.nn.functional.cross_entropy(net.train()(torch_inputs.double()), torch.from_numpy(labels)).backward()
    parameters = dict(net.named_parameters())
    with tf.GradientTape() as tape:
        losses = keras.losses.sparse_categorical_crossentropy(labels, model(inputs, training=True), from_logits=True)
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
