"""Counting from a spec; a network is built only to count what its layers put out."""

import dataclasses
import math

import keras
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference.golden import GIGA_MULTIPLY_ADDS, MULTIPLY_ADDS, PARAMETERS, TABLE_1
from strategies import deep_specs

from keras_resnet import (
    InputError,
    ResNetSpec,
    build,
    count_macs,
    count_params,
)
from keras_resnet.specs import (
    TABLE,
    count_totals,
    estimate_memory,
    iter_layers,
    summarize,
)

SMALL = ResNetSpec("small", "bottleneck", depths=(1, 2), filters=(4, 6), strides=(1, 2), stem="cifar", stem_filters=8)


def test_every_row_has_golden_parameters():
    assert set(TABLE) == set(PARAMETERS)


@pytest.mark.parametrize("name", TABLE)
def test_parameters_equal_the_golden_numbers(name):
    assert (count_params(name, trainable_only=True), count_params(name)) == PARAMETERS[name]


@pytest.mark.parametrize("name", MULTIPLY_ADDS)
def test_multiply_adds_equal_the_golden_numbers(name):
    assert count_macs(name) == MULTIPLY_ADDS[name]


@pytest.mark.parametrize("name", GIGA_MULTIPLY_ADDS)
def test_multiply_adds_equal_what_torchvision_states(name):
    assert round(count_macs(name) / 1e9, 2) == GIGA_MULTIPLY_ADDS[name]


@pytest.mark.parametrize("name", TABLE_1)
def test_multiply_adds_of_table_1(name):
    assert count_macs(name) / 1e9 == pytest.approx(TABLE_1[name], abs=0.07)


def test_counts_follow_the_arguments():
    head = 512 * 1000 + 1000
    assert count_params("resnet18", include_top=False) == count_params("resnet18") - head
    assert count_params("resnet18", classes=10) == count_params("resnet18") - head + 512 * 10 + 10
    assert count_params("resnet18", (224, 224, 1)) == count_params("resnet18") - 2 * 7 * 7 * 64
    assert count_macs("resnet20_cifar", (64, 64, 3)) > 3.9 * count_macs("resnet20_cifar")
    assert count_params(SMALL, (16, 16, 3), 5) == count_params(SMALL, (32, 64, 3), 5)  # size changes no weight


def _check_totals(spec, shape=None, classes=None, **options):
    """The totals, which look once at blocks that repeat, are the sums over every layer."""
    layers = list(iter_layers(spec, shape, classes, **options))
    totals = count_totals(spec, shape, classes, **options)
    assert totals.parameters == sum(layer.parameters + layer.statistics for layer in layers)
    assert totals.trainable == sum(layer.parameters for layer in layers)
    assert totals.multiply_adds == sum(layer.multiply_adds for layer in layers)
    assert all(type(total) is int for total in totals)
    return totals


def _count_outputs(model):
    """Values per image that all layers put out but for the input and padding."""
    empty = (keras.layers.InputLayer, keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D)
    return sum(math.prod(layer.output.shape[1:]) for layer in model.layers if not isinstance(layer, empty))


def _fit_channels(spec, channels):
    padded_input = spec.stem == "none" and spec.shortcut == "A"
    return min(channels, spec.filters[0] * spec.expansion) if padded_input else channels


@pytest.mark.parametrize("name", TABLE)
def test_totals_of_every_row(name):
    totals = _check_totals(name)
    assert (totals.trainable, totals.parameters) == PARAMETERS[name]
    _check_totals(name, include_top=False)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(deep_specs(), st.integers(1, 70), st.integers(1, 70), st.integers(1, 4), st.integers(1, 7), st.booleans())
def test_totals_are_sums_over_layers(spec, height, width, channels, classes, top):
    shape = (height, width, _fit_channels(spec, channels))[2 - spec.rank :]
    totals = _check_totals(spec, shape, classes, include_top=top)
    assert count_params(spec, shape, classes, include_top=top) == totals.parameters
    assert count_params(spec, shape, classes, include_top=top, trainable_only=True) == totals.trainable
    assert count_macs(spec, shape, classes, include_top=top) == totals.multiply_adds
    doubled = dataclasses.replace(spec, depths=[2 * depth for depth in spec.depths])
    assert count_totals(doubled, shape, classes).activations > totals.activations


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(deep_specs(), st.integers(1, 40), st.integers(1, 40), st.integers(1, 4), st.booleans())
def test_activations_are_what_the_layers_of_the_model_put_out(spec, height, width, channels, top):
    spec = dataclasses.replace(spec, depths=[min(depth, 3) for depth in spec.depths])
    shape = (height, width, _fit_channels(spec, channels))[2 - spec.rank :]
    model = build(spec, shape, 5, include_top=top, classifier_activation=None)
    assert count_totals(spec, shape, 5, include_top=top).activations == _count_outputs(model)
    keras.utils.clear_session()


@pytest.mark.parametrize(
    "name",
    [
        "resnet8_cifar",
        "resnetv2_18",
        "resnet18_d",
        "seresnet18",
        "resnet50v2_keras",
        "resnet18_d2l",
        "resnet18_multiscale",
    ],
)
def test_activations_of_known_networks(name):
    shape = (33, 47, 3)
    model = build(name, shape, 10, classifier_activation=None)
    assert count_totals(name, shape, 10).activations == _count_outputs(model)
    keras.utils.clear_session()


def test_activations_by_hand():
    spec = ResNetSpec("hand", "basic", (3,), (4,), (1,), stem="cifar", stem_filters=4)
    # conv, BN and ReLU of the stem; two of each and the addition in each block; the mean and two logits
    assert count_totals(spec, (5, 7, 3), 2).activations == 5 * 7 * 4 * (3 + 3 * 7) + 4 + 2


@settings(max_examples=50, deadline=None, derandomize=True)
@given(deep_specs(), st.integers(1, 64), st.integers(0, 3))
def test_memory_grows_with_batch_and_slots(spec, batch, slots):
    shape = (16, 16, _fit_channels(spec, 3))[2 - spec.rank :]

    def memory(**changes):
        return estimate_memory(spec, shape, 3, **{"batch_size": batch, "optimizer_slots": slots, **changes})

    totals = count_totals(spec, shape, 3)
    assert memory() >= 4 * (totals.parameters * (2 + slots) + totals.activations * batch)
    assert memory(batch_size=batch + 1) - memory() >= 4 * totals.activations
    assert memory(optimizer_slots=slots + 1) - memory() == 4 * totals.parameters
    assert type(memory()) is int


def test_memory_of_measured_trainings():
    """Peak resident bytes measured on 2 cores of an AMD EPYC, TensorFlow 2.21, above those before the first step."""
    for name, side, batch_size, mebibytes in (
        ("resnet8_cifar", 32, 64, 128),
        ("resnet20_cifar", 32, 128, 361),
        ("resnet56_cifar", 32, 128, 939),
        ("resnext29_8x64d_cifar", 32, 8, 1376),
        ("resnet18", 224, 8, 540),
        ("resnet50", 224, 16, 2211),
    ):
        estimated = estimate_memory(name, (side, side, 3), 10, batch_size=batch_size)
        assert 1 <= estimated / (mebibytes * 2**20) <= 2, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"batch_size must be an integer of at least 1. Received: 0"),
        ({"batch_size": 2.0}, r"batch_size must be an integer of at least 1. Received: 2.0"),
        ({"batch_size": True}, r"batch_size must be .* Received: True"),
        ({"batch_size": 1, "optimizer_slots": -1}, r"optimizer_slots must be an integer of at least 0. Received: -1"),
    ],
)
def test_memory_of_a_step_that_cannot_be(arguments, message):
    with pytest.raises(InputError, match=message):
        estimate_memory("resnet18", **arguments)
    with pytest.raises(InputError, match=r"Unknown network. Received: 'resnet19'"):
        estimate_memory("resnet19", batch_size=1)


def test_bottleneck_of_s3_has_its_parameters():
    """S3: at 256 channels two 3x3 convolutions hold 1,179,648 weights and the 1x1-3x3-1x1 bottleneck 69,632."""
    shape = {"depths": (1,), "strides": (1,), "stem": "cifar", "stem_filters": 256}

    def block_weights(spec):
        names = [layer for layer in iter_layers(spec, (8, 8, 3)) if layer.name.startswith("stage1_block1_conv")]
        return sum(layer.parameters for layer in names)

    assert block_weights(ResNetSpec("two", "basic", filters=(256,), **shape)) == 1_179_648
    assert block_weights(ResNetSpec("three", "bottleneck", filters=(64,), **shape)) == 69_632


def test_a_grouped_convolution_costs_one_part_in_groups():
    """S2 and S5: c_in * c_out * k * k / g weights instead of c_in * c_out * k * k."""
    # S2's ResNeXtBlock(32, 16, 1): inner width 32 in groups of 16 channels, so 2 groups.
    spec = ResNetSpec("s2", "bottleneck", (1,), (8,), (1,), "cifar", 32, groups=2, width_per_group=128)
    costs = {layer.name: layer for layer in iter_layers(spec, (96, 96, 3))}
    assert [costs[f"stage1_block1_conv{k}"].parameters for k in (1, 2, 3)] == [32 * 32, 32 * 32 * 9 // 2, 32 * 32]
    assert costs["stage1_block1_conv2"].multiply_adds == 96 * 96 * 32 * 32 * 9 // 2
    assert costs["stage1_block1_bn3"].output_shape == (96, 96, 32)
    assert spec.inner_width(8) == 32


def test_counting_refuses_a_block_of_ones_own():
    spec = ResNetSpec("mine", "custom", (1,), (4,), (1,))
    for count in (count_params, count_macs, count_totals, lambda s: list(iter_layers(s)), summarize):
        with pytest.raises(
            InputError, match=r"mine: counting .* not a block function of your own.* model.count_params"
        ):
            count(spec)


def test_counting_needs_sides():
    with pytest.raises(
        InputError, match=r"resnet50: counting needs .* a height and a width. Received: \(None, 32, 3\)"
    ):
        count_totals("resnet50", (None, 32, 3))


@pytest.mark.parametrize("classes", [0, -1, 2.5, True, "10"])
def test_bad_classes(classes):
    with pytest.raises(InputError, match=r"classes must be an integer of at least 1. Received: "):
        count_totals("resnet18", classes=classes)
