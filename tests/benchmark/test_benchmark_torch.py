"""The PyTorch networks and steps of the benchmark: our parameters, our outputs, the same updates."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="extra 'parity' is not installed")

from benchmark_fakes import WORKLOAD  # noqa: E402
from reference.torch_pairs import NETWORKS, TOLERANCE, TORCH_VARIABLES, draw, to_our_layout  # noqa: E402
from reference.torch_reference import randomise  # noqa: E402

from keras_resnet import InputError, ResNetSpec, build, count_params, get_spec  # noqa: E402
from keras_resnet.benchmark import torch_sides, workload  # noqa: E402
from keras_resnet.benchmark.messages import MeasureJob  # noqa: E402
from keras_resnet.benchmark.sides import Unavailable  # noqa: E402
from keras_resnet.benchmark.torch_networks import build_torch, layer_name  # noqa: E402
from keras_resnet.specs import TABLE  # noqa: E402

ROWS = [name for name, row in TABLE.items() if row.spec.dialect.padding != "same" and name != "resnet1202_cifar"]


def test_parameters_are_as_many():
    for name in ROWS:
        row = TABLE[name]
        with torch.device("meta"):  # shapes without memory
            net = build_torch(row.spec, row.input_shape[-1], row.classes)
        expected = count_params(name, trainable_only=True)
        assert sum(parameter.numel() for parameter in net.parameters()) == expected, name


CASES = [
    ("resnet18", (33, 33), 3),
    ("resnet8_cifar", (33, 32), 1),
    ("resnet14_cifar_b", (32, 47), 3),
    ("plain8_cifar", (33, 33), 3),
    ("resnext11_2x16d_cifar", (33, 33), 3),
    ("resnetv2_11_cifar_bottleneck", (33, 33), 3),
    ("resnet50_keras", (65, 65), 3),
    ("resnet50v2_keras", (65, 64), 3),
    ("small_v2_d", (65, 33), 3),
    ("small_se", (65, 65), 3),
    ("small_d", (65, 65), 3),
    ("small_c_bottleneck", (33, 33), 3),
    ("small_multiscale_grouped", (33, 33), 3),
    ("small_dilated_bottleneck", (33, 33), 3),
    ("small_grouped_1d", (65,), 2),
    ("small_multiscale_1d", (65,), 2),
]


def make_pair(network, size, channels):
    """Our network and the benchmark's in PyTorch, every weight of both the same."""
    spec = NETWORKS[network][0] if network in NETWORKS else get_spec(network)
    model = build(spec, (*size, channels), 10, classifier_activation=None)
    net = randomise(build_torch(spec, channels, 10), seed=0)
    state = {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    state = {(layer_name(key.rpartition(".")[0]), key.rpartition(".")[2]): value for key, value in state.items()}
    for layer in model.layers:
        for variable in layer.weights:
            variable.assign(to_our_layout(state.pop((layer.name, TORCH_VARIABLES[variable.name]))))
    assert not state
    return model, net


@pytest.mark.parametrize(("network", "size", "channels"), CASES, ids=lambda value: str(value).replace(", ", "x"))
def test_outputs_are_ours(network, size, channels):
    model, net = make_pair(network, size, channels)
    inputs, torch_inputs = draw(2, size, channels)
    with torch.inference_mode():
        theirs = net.eval()(torch_inputs).numpy()
    ours = np.asarray(model(inputs, training=False))
    scale = np.abs(theirs).max()
    assert np.abs(theirs[0] - theirs[1]).max() > 10 * TOLERANCE * scale  # the logits depend on the input
    assert np.abs(ours - theirs).max() <= TOLERANCE * scale


def test_statistics_move_as_ours_do():
    model, net = make_pair("resnet8_cifar", (16, 16), 3)
    inputs, torch_inputs = draw(4, (16, 16), 3)
    model(inputs, training=True)
    net.train()(torch_inputs)
    ours = np.asarray(model.get_layer("stage3_block1_bn2").moving_mean)
    theirs = net.get_submodule("stage3_block1.branch.bn2").running_mean.numpy()
    assert np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max()


@pytest.mark.parametrize(
    ("changes", "received"),
    [
        ({"dropout": 0.1, "stochastic_depth": 0.2}, "with dropout, stochastic_depth."),
        ({"block_dropout": 0.1}, "with block_dropout."),
        ({"block": "custom"}, "with block='custom'."),
        ({"dialect": get_spec("resnet18_d2l").dialect}, "with padding='same'."),
    ],
)
def test_what_is_not_known_is_an_error(changes, received):
    spec = ResNetSpec("odd", **{"block": "basic", "depths": (1,), "filters": (8,), "strides": (1,), **changes})
    with pytest.raises(InputError, match=r"neither TensorFlow's uneven padding nor dropout nor blocks") as error:
        build_torch(spec, 3, 10)
    assert str(error.value).endswith(f"Received: odd {received}")


def make_job(side="torch", **changes):
    threads = torch.get_num_threads()  # of this process, which other tests share
    return MeasureJob(side, replace(WORKLOAD, threads=threads, **changes))


def test_zero_gamma_starts_as_an_identity():
    for dialect, name in (("torchvision", "bn2"), ("torchvision_v2", "conv2")):
        base = get_spec("resnet8_cifar_b") if dialect == "torchvision" else get_spec("resnetv2_8_cifar")
        spec = ResNetSpec.from_dict({**base.to_dict(), "zero_gamma": True})
        net = build_torch(spec, 3, 10)
        assert not net.get_submodule(f"stage1_block1.branch.{name}").weight.any()
        assert net.get_submodule("stage1_block1.branch.conv1").weight.any()


@pytest.fixture
def built(monkeypatch):
    """The networks that the sides have built."""
    nets = []

    def build_and_keep(*arguments):
        nets.append(build_torch(*arguments))
        return nets[-1]

    monkeypatch.setattr(torch_sides, "build_torch", build_and_keep)
    return nets


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_training_step_updates_as_nesterov_does(built, dtype):
    side = torch_sides.make(make_job(dtype=dtype))
    (net,) = built
    assert net.get_submodule("stem.conv").weight.is_contiguous(memory_format=torch.channels_last)
    before = net.get_submodule("head.logits").bias.detach().clone()
    side.first()
    parameter = net.get_submodule("head.logits").bias
    # The first step of Nesterov's momentum is (1 + momentum) times the gradient's.
    expected = before - workload.LEARNING_RATE * (1 + workload.MOMENTUM) * parameter.grad
    torch.testing.assert_close(parameter.detach(), expected)
    side.run(2)
    assert net.training
    assert int(net.get_submodule("stem.bn").num_batches_tracked) == 3


def test_inference_leaves_the_network_as_it_is(built):
    side = torch_sides.make(make_job(task="infer", network="resnet18_1d", input_shape=(64, 1)))
    before = [value.clone() for value in built[0].state_dict().values()]
    side.first()
    side.run(1)
    assert all(torch.equal(*pair) for pair in zip(before, built[0].state_dict().values(), strict=True))
    assert not built[0].training


@pytest.mark.slow  # compiles for most of a minute
def test_compiled_steps_are_the_eager_ones(built):
    compiled, eager = torch_sides.make(make_job(side="torch-compile")), torch_sides.make(make_job())
    built[1].load_state_dict(built[0].state_dict())
    for side in (compiled, eager):
        side.first()
        side.run(1)
    for one, other in zip(built[0].parameters(), built[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_failure_to_compile_is_told_apart(monkeypatch):
    def fail(net):
        def run(x):
            raise RuntimeError("\nInvalidCxxCompiler: no C++ compiler found\n  in this place\nmore")

        return run

    monkeypatch.setattr(torch, "compile", fail)
    side = torch_sides.make(make_job(side="torch-compile"))
    with pytest.raises(Unavailable, match=r"needs a C\+\+ compiler: RuntimeError: InvalidCxxCompiler: no C\+\+ comp"):
        side.first()
