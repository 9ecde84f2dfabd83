"""Specs, the table and counting: no network is built here."""

import dataclasses
import json

import pytest
from golden import MULTIPLY_ADDS, PARAMETERS

from keras_resnet import InputError, ResNetSpec, count_macs, count_params, get_dialect, get_spec, list_models
from keras_resnet.specs import TABLE, Dialect, check_input_shape, final_feature_map, get_row, iter_layers

SMALL = ResNetSpec("small", "bottleneck", depths=(1, 2), filters=(4, 6), strides=(1, 2), stem="cifar", stem_filters=8)


def test_every_row_has_golden_parameters():
    assert set(TABLE) == set(PARAMETERS)


@pytest.mark.parametrize("name", TABLE)
def test_parameters_equal_the_golden_numbers(name):
    assert (count_params(name, trainable_only=True), count_params(name)) == PARAMETERS[name]


@pytest.mark.parametrize("name", MULTIPLY_ADDS)
def test_multiply_adds_equal_the_golden_numbers(name):
    assert count_macs(name) == MULTIPLY_ADDS[name]


def test_counts_follow_the_arguments():
    head = 512 * 1000 + 1000
    assert count_params("resnet18", include_top=False) == count_params("resnet18") - head
    assert count_params("resnet18", classes=10) == count_params("resnet18") - head + 512 * 10 + 10
    assert count_params("resnet18", (224, 224, 1)) == count_params("resnet18") - 2 * 7 * 7 * 64
    assert count_macs("resnet20_cifar", (64, 64, 3)) > 3.9 * count_macs("resnet20_cifar")
    assert count_params(SMALL, (16, 16, 3), 5) == count_params(SMALL, (32, 64, 3), 5)  # size changes no weight


def test_bottleneck_of_s3_has_its_parameters():
    """S3: at 256 channels two 3x3 convolutions hold 1,179,648 weights and the 1x1-3x3-1x1 bottleneck 69,632."""
    shape = {"depths": (1,), "strides": (1,), "stem": "cifar", "stem_filters": 256}

    def block_weights(spec):
        names = [layer for layer in iter_layers(spec, (8, 8, 3)) if layer.name.startswith("stage1_block1_conv")]
        return sum(layer.parameters for layer in names)

    assert block_weights(ResNetSpec("two", "basic", filters=(256,), **shape)) == 1_179_648
    assert block_weights(ResNetSpec("three", "bottleneck", filters=(64,), **shape)) == 69_632


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100])
def test_the_cifar_family_is_a_formula(n):
    spec = get_spec(f"resnet{6 * n + 2}_cifar")
    assert spec.depths == (n, n, n)
    assert spec.name == f"resnet{6 * n + 2}_cifar"
    # Each further block per stage adds two 3x3 convolutions and two BN layers to each stage.
    step = sum(2 * (9 * f * f + 4 * f) for f in (16, 32, 64))
    assert count_params(spec, (32, 32, 3), 10) == count_params("resnet8_cifar") + (n - 1) * step


def test_a_spec_is_json_both_ways():
    for spec in (*(row.spec for row in TABLE.values()), SMALL, dataclasses.replace(SMALL, zero_gamma=True)):
        assert ResNetSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
        assert hash(ResNetSpec.from_dict(spec.to_dict())) == hash(spec)


def test_final_feature_map():
    assert final_feature_map(get_spec("resnet18"), (224, 224, 3)) == (7, 7, 512)
    assert final_feature_map(get_spec("resnet18"), (1, 33, 3)) == (1, 2, 512)
    # S2: ResNet-18 of the d2l chapter at 96x96.
    assert final_feature_map(get_spec("resnet18_d2l"), (96, 96, 1)) == (3, 3, 512)


def test_list_models():
    assert list_models() == list(TABLE)
    assert list_models("resnet1??") == ["resnet101", "resnet152"]
    assert list_models("vgg*") == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet51", r"Unknown network. Received: 'resnet51'. Did you mean 'resnet50'"),
        ("resnet21_cifar", r"must be 6n \+ 2 .*Received: 'resnet21_cifar'. Nearest: resnet20_cifar or resnet26_cifar"),
        ("resnet2_cifar_b", r"Nearest: resnet8_cifar_b or resnet14_cifar_b"),
        (50, r"Unknown network. Received: 50. Allowed: resnet18, "),
        (["resnet18"], r"Unknown network. Received: \['resnet18'\]"),
    ],
)
def test_unknown_networks(name, message):
    with pytest.raises(InputError, match=message):
        get_row(name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": (1, 0)}, r"depths must be integers of at least 1. Received: \(1, 0\)"),
        ({"depths": (1, -2)}, r"depths must be integers"),
        ({"filters": (4, 6.0)}, r"filters must be integers"),
        ({"strides": (1,)}, r"one entry per stage.*strides=\(1,\)"),
        ({"depths": "12"}, r"depths must be a tuple .* Received: '12'"),
        ({"block": "botleneck"}, r"block must be one of 'basic', 'bottleneck'. .* Did you mean 'bottleneck'"),
        ({"stem": "deep"}, r"stem must be one of 'imagenet', 'cifar'. Received: 'deep'"),
        ({"shortcut": "D"}, r"shortcut must be one of 'A', 'B'. Received: 'D'"),
        ({"stem_filters": 0}, r"stem_filters must be an integer of at least 1. Received: 0"),
        ({"width_per_group": 10}, r"inner width .* at least 1. Received: filters=4 in stage 1, width_per_group=10"),
        (
            {"shortcut": "A", "stem_filters": 64},
            r"shortcut 'A' pads channels .* Received: 64 -> 16 channels at stage 1",
        ),
        ({"block": "basic", "width_per_group": 128}, r"no inner width, so width_per_group must be 64.* Received: 128"),
        ({"name": "a/b"}, r"name must be a string without '/'. Received: 'a/b'"),
        ({"dialect": "torchvision"}, r"dialect must be a Dialect"),
    ],
)
def test_bad_specs(changes, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SMALL, **changes)


def test_bad_dicts():
    with pytest.raises(InputError, match=r"Received: 'dephts'. Did you mean 'depths'"):
        ResNetSpec.from_dict({"dephts": [1]})
    with pytest.raises(InputError, match=r"its fields must be one of .*Received: 'bias'"):
        ResNetSpec.from_dict({**SMALL.to_dict(), "dialect": {"name": "x", "bias": True}})
    with pytest.raises(InputError, match=r"needs block, depths, filters, strides. Received: name"):
        ResNetSpec.from_dict({"name": "x"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bottleneck_stride": "2x2"}, r"bottleneck_stride must be one of '1x1', '3x3'"),
        ({"padding": "valid"}, r"padding must be one of 'symmetric', 'same'. Received: 'valid'"),
        ({"initializer": "zeros"}, r"initializer must be one of"),
        ({"bn_epsilon": 0.0}, r"bn_epsilon must be positive. Received: 0.0"),
        ({"bn_momentum": 1.0}, r"bn_momentum must be in \[0, 1\). Received: 1.0"),
    ],
)
def test_bad_dialects(changes, message):
    with pytest.raises(InputError, match=message):
        Dialect("mine", **changes)
    with pytest.raises(InputError, match=r"dialect must be one of 'torchvision', 'd2l'. Received: 'torchvison'"):
        get_dialect("torchvison")


@pytest.mark.parametrize("shape", [(0, 8, 3), (8, -1, 3), (8, 8, 0), (8, 8), (8, 8, None), 8, None, (8, 8.5, 3)])
def test_an_input_that_leaves_no_pixel(shape):
    with pytest.raises(InputError, match=r"resnet18: input_shape must be .* at least one pixel .* Received: "):
        check_input_shape(get_spec("resnet18"), shape)


def test_counting_needs_sides():
    with pytest.raises(
        InputError, match=r"resnet50: counting needs .* a height and a width. Received: \(None, 32, 3\)"
    ):
        count_params("resnet50", (None, 32, 3))


@pytest.mark.parametrize("classes", [0, -1, 2.5, True, "10"])
def test_bad_classes(classes):
    with pytest.raises(InputError, match=r"classes must be an integer of at least 1. Received: "):
        count_params("resnet18", classes=classes)
