"""Specs, dialects and the table."""

import dataclasses
import json

import pytest

from keras_resnet import (
    InputError,
    ResNetSpec,
    count_macs,
    count_params,
    get_dialect,
    get_spec,
    list_models,
)
from keras_resnet.specs import (
    DIALECTS,
    TABLE,
    TORCHVISION_V2,
    Dialect,
    check_input_shape,
    describe_conventions,
    final_feature_map,
    get_row,
    iter_sections,
    list_families,
    summarize,
)

SMALL = ResNetSpec("small", "bottleneck", depths=(1, 2), filters=(4, 6), strides=(1, 2), stem="cifar", stem_filters=8)


@pytest.mark.parametrize(
    ("name", "depths", "filters", "inner", "groups"),
    [
        ("resnext50_32x4d", (3, 4, 6, 3), (64, 128, 256, 512), 128, 32),
        ("seresnext101_32x4d", (3, 4, 23, 3), (64, 128, 256, 512), 128, 32),
        ("resnetv2_1001_cifar_bottleneck", (111, 111, 111), (16, 32, 64), 16, 1),
        ("resnext152_16x8d", (3, 8, 36, 3), (64, 128, 256, 512), 128, 16),
        ("resnext20_2x3d_cifar", (2, 2, 2), (64, 128, 256), 6, 2),
        ("wide_resnet50_2", (3, 4, 6, 3), (64, 128, 256, 512), 128, 1),
        ("wrn22_3_cifar", (3, 3, 3), (48, 96, 192), 48, 1),
        ("resnetv2_26_cifar", (4, 4, 4), (16, 32, 64), 16, 1),
        ("plain26_cifar", (4, 4, 4), (16, 32, 64), 16, 1),
    ],
)
def test_families_are_formulas(name, depths, filters, inner, groups):
    spec = get_spec(name)
    assert (spec.name, spec.depths, spec.filters, spec.groups) == (name, depths, filters, groups)
    assert spec.inner_width(filters[0]) == inner


def test_a_spec_as_release_0_1_wrote_it():
    written = {
        "name": "old", "block": "bottleneck", "depths": [1, 2], "filters": [4, 6], "strides": [1, 2], "stem": "cifar",
        "stem_filters": 8, "rank": 2, "kernel_sizes": [3], "groups": 1, "width_per_group": 64, "shortcut": "B",
        "se_ratio": 0.25, "dropout": 0.1, "block_dropout": 0.2, "stochastic_depth": 0.3, "zero_gamma": True,
        "output_stride": None,
        "dialect": {
            "name": "mine", "activation_order": "pre", "bottleneck_stride": "3x3", "stride_block": "first",
            "padding": "symmetric", "pool_padding": "minus_infinity", "conv_bias": "none", "shortcut_bn": False,
            "bn_epsilon": 1e-5, "bn_momentum": 0.9, "initializer": "he_fan_out",
        },
    }  # fmt: skip
    spec = ResNetSpec.from_dict(written)
    assert json.loads(json.dumps(spec.to_dict())) == written
    assert (spec.depths, spec.block_dropout, spec.dialect.initializer) == ((1, 2), 0.2, "he_fan_out")


@pytest.mark.parametrize("name", TABLE)
def test_sections_add_up(name):
    sections = list(iter_sections(name))
    assert [s.name for s in sections] == ["stem", *(f"stage{s + 1}" for s in range(len(get_spec(name).depths))), "head"]
    assert sum(section.parameters for section in sections) == count_params(name)
    assert sum(section.multiply_adds for section in sections) == count_macs(name)
    summaries = summarize(name)
    assert [s.output_shape for s in summaries] == [s.output_shape for s in sections]
    assert [s.blocks for s in summaries[1:-1]] == list(get_spec(name).depths)


def test_a_summary_in_words():
    texts = [section.text for section in summarize("resnext50_32x4d")]
    assert texts[0] == "7x7->64 stride 2, max pool 3x3 stride 2"
    assert texts[2] == "4 x [1x1->256, 3x3->256 in 32 groups, 1x1->512], the first with stride 2"
    assert texts[-1] == "mean, dense 1000"
    assert summarize("resnet50v2_keras")[1].text.endswith("the last with stride 2")
    assert summarize("resnet18_multiscale_1d")[1].text == "2 x [3|5|7->64, 3|5|7->64]"
    assert "dilated 4" in summarize(dataclasses.replace(get_spec("resnet50"), output_stride=8))[4].text
    assert describe_conventions(get_spec("plain18")).startswith(
        "dialect torchvision, ReLU after the addition, no short"
    )
    assert "pre-activation" in describe_conventions(get_spec("wrn28_10_cifar"))
    own = ResNetSpec("own", "basic", (1,), (4,), (1,), "none", se_ratio=0.25, dropout=0.5, stochastic_depth=0.1)
    stem, stage, head = (section.text for section in summarize(own, (8, 8, 3), 2))
    assert (stem, stage, head) == (
        "the input as it is",
        "1 x [3x3->4, 3x3->4], SE 0.25",
        "mean, dropout 0.5, dense 2",
    )
    assert "stochastic_depth 0.1" in describe_conventions(own)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100])
def test_the_cifar_family_is_a_formula(n):
    spec = get_spec(f"resnet{6 * n + 2}_cifar")
    assert spec.depths == (n, n, n)
    assert spec.name == f"resnet{6 * n + 2}_cifar"
    # Each further block per stage adds two 3x3 convolutions and two BN layers to each stage.
    step = sum(2 * (9 * f * f + 4 * f) for f in (16, 32, 64))
    assert count_params(spec, (32, 32, 3), 10) == count_params("resnet8_cifar") + (n - 1) * step


def test_a_spec_is_json_both_ways():
    for spec in (*(row.spec for row in TABLE.values()), SMALL, dataclasses.replace(SMALL, output_stride=1)):
        assert ResNetSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
        assert hash(ResNetSpec.from_dict(spec.to_dict())) == hash(spec)


def test_final_feature_map():
    assert final_feature_map(get_spec("resnet18"), (224, 224, 3)) == (7, 7, 512)
    assert final_feature_map(get_spec("resnet18"), (1, 33, 3)) == (1, 2, 512)
    # S2: ResNet-18 of the d2l chapter at 96x96.
    assert final_feature_map(get_spec("resnet18_d2l"), (96, 96, 1)) == (3, 3, 512)


def test_dialects_are_found_by_name():
    assert list(DIALECTS) == ["torchvision", "torchvision_v2", "keras_v1", "keras_v2", "d2l"]
    assert get_dialect("torchvision_v2") is TORCHVISION_V2
    for row in TABLE.values():
        assert DIALECTS[row.spec.dialect.name] == row.spec.dialect
    assert all(family.count("{") for family in list_families())


def test_sequences_have_steps_and_channels():
    assert final_feature_map(get_spec("resnet18_1d"), (1000, 12)) == (32, 512)
    with pytest.raises(InputError, match=r"resnet18_1d: input_shape must be \(steps, channels\).* at least one step"):
        count_params("resnet18_1d", (32, 32, 3))
    with pytest.raises(InputError, match=r"resnet18_1d: counting needs an input_shape with a number of steps"):
        count_params("resnet18_1d", (None, 3))


def test_list_models():
    assert list_models() == list(TABLE)
    assert list_models("resnet1??") == ["resnet101", "resnet152"]
    assert "resnext29_8x64d_cifar" in list_models("*x*d_cifar")
    assert list_models("vgg*") == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet51", r"Unknown network. Received: 'resnet51'. Did you mean 'resnet50'"),
        ("resnet21_cifar", r"must be 6n \+ 2 .*Received: 'resnet21_cifar'. Nearest: resnet20_cifar or resnet26_cifar"),
        ("resnet2_cifar_b", r"Nearest: resnet8_cifar_b or resnet14_cifar_b"),
        ("resnetv2_2_cifar", r"must be 6n \+ 2 .*Nearest: resnetv2_8_cifar or resnetv2_14_cifar"),
        ("plain21_cifar", r"plain CIFAR net must be 6n \+ 2 .*Nearest: plain20_cifar or plain26_cifar"),
        ("resnext28_8x64d_cifar", r"must be 9n \+ 2 .*Nearest: resnext20_8x64d_cifar or resnext29_8x64d_cifar"),
        ("wrn27_10_cifar", r"must be 6n \+ 4 .*Nearest: wrn22_10_cifar or wrn28_10_cifar"),
        ("resnext49_32x4d", r"depth of a ResNeXt must be 50, 101 or 152. Received: 'resnext49_32x4d'"),
        ("resnext50_0x4d", r"Unknown network. Received: 'resnext50_0x4d'"),
        ("resnet020_cifar", r"Unknown network. Received: 'resnet020_cifar'. Did you mean 'resnet20_cifar"),
        ("resnet\uff120_cifar", r"Unknown network. Received: 'resnet"),
        ("resnet" + "2" * 5000 + "_cifar", r"Unknown network"),
        ("ResNet50V2", r"Did you mean 'resnet50v2_keras'"),
        ("RESNET50", r"Did you mean 'resnet50' or"),
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
        ({"block": "botleneck"}, r"block must be one of 'basic', 'bottleneck', .* Did you mean 'bottleneck'"),
        ({"stem": "cifar10"}, r"stem must be one of 'imagenet', 'deep', 'cifar', 'none'. Received: 'cifar10'"),
        ({"shortcut": "E"}, r"shortcut must be one of 'A', 'B', 'C', 'D', 'none'. Received: 'E'"),
        ({"rank": 3}, r"rank must be one of 1, 2. Received: 3"),
        ({"groups": 0}, r"groups must be an integer of at least 1. Received: 0"),
        ({"block": "basic", "groups": 2}, r"no inner width, so groups must be 1.* Received: 2"),
        (
            {"groups": 32, "width_per_group": 4},
            r"small, stage 1: The inner width .* at least groups. .*filters=4.* gives 0; .* must be at least 16",
        ),
        ({"kernel_sizes": (3, 4)}, r"kernel_sizes must be different odd integers.* Received: \(3, 4\)"),
        ({"kernel_sizes": ()}, r"kernel_sizes must be different odd integers"),
        ({"kernel_sizes": (3, 3)}, r"kernel_sizes must be different odd integers"),
        ({"kernel_sizes": (1, 3, 5, 7, 9)}, r"share the 4 channels .* Received: 5 kernel sizes, groups=1"),
        ({"groups": 2, "kernel_sizes": (3, 5, 7)}, r"divisible by groups. Received: 3 kernel sizes, groups=2"),
        ({"se_ratio": 1.5}, r"se_ratio must be at least 0 and at most 1. Received: 1.5"),
        ({"dropout": 1.0}, r"small: dropout must be at least 0 and below 1. Received: 1.0"),
        ({"block_dropout": -0.1}, r"block_dropout must be at least 0 and below 1. Received: -0.1"),
        ({"stochastic_depth": float("nan")}, r"stochastic_depth must be at least 0 and below 1. Received: nan"),
        ({"shortcut": "none", "zero_gamma": True}, r"zero_gamma switches blocks off.* must be False. Received: True"),
        ({"shortcut": "none", "stochastic_depth": 0.1}, r"stochastic_depth switches .* must be 0.0. Received: 0.1"),
        ({"output_stride": 3}, r"output_stride must be None or .* one of 1, 2. Received: 3"),
        ({"stem": "deep", "stem_filters": 1}, r"stem_filters must be at least 2. Received: 1"),
        ({"stem_filters": 0}, r"stem_filters must be an integer of at least 1. Received: 0"),
        ({"width_per_group": 10}, r"stage 1: The inner width .* Received: filters=4, width_per_group=10"),
        (
            {"shortcut": "A", "stem_filters": 64},
            r"shortcut 'A' pads channels .* Received: 64 -> 16 channels at stage 1",
        ),
        ({"block": "basic", "width_per_group": 128}, r"no inner width, so width_per_group must be 64.* Received: 128"),
        ({"rank": True}, r"rank must be an integer of at least 1. Received: True"),
        ({"output_stride": 2.0}, r"output_stride must be an integer of at least 1. Received: 2.0"),
        ({"depths": {1, 2}}, r"depths must be a tuple with one integer per stage. Received: \{1, 2\}"),
        ({"kernel_sizes": 3}, r"kernel_sizes must be a tuple with one integer per kernel. Received: 3"),
        ({"zero_gamma": "no"}, r"zero_gamma must be True or False. Received: 'no'"),
        ({"name": "a/b"}, r"name must be a string without '/'. Received: 'a/b'"),
        ({"dialect": "torchvision"}, r"dialect must be a Dialect, .*'torchvision_v2'.* Received: 'torch"),
    ],
)
def test_bad_specs(changes, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SMALL, **changes)


def test_bad_dicts():
    with pytest.raises(InputError, match=r"Received: 'dephts'. Did you mean 'depths'"):
        ResNetSpec.from_dict({"dephts": [1]})
    with pytest.raises(InputError, match=r"A Dialect has the fields activation_order, .*Received: 'bias'"):
        ResNetSpec.from_dict({**SMALL.to_dict(), "dialect": {"name": "x", "bias": True}})
    with pytest.raises(InputError, match=r"A Dialect needs name. Received: nothing"):
        ResNetSpec.from_dict({**SMALL.to_dict(), "dialect": {}})
    with pytest.raises(InputError, match=r"needs block, depths, filters, strides. Received: name"):
        ResNetSpec.from_dict({"name": "x"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bottleneck_stride": "2x2"}, r"bottleneck_stride must be one of '1x1', '3x3'"),
        ({"padding": "valid"}, r"padding must be one of 'symmetric', 'same'. Received: 'valid'"),
        ({"initializer": "zeros"}, r"initializer must be one of"),
        ({"activation_order": "both"}, r"activation_order must be one of 'post', 'pre'. Received: 'both'"),
        ({"stride_block": "middle"}, r"stride_block must be one of 'first', 'last'"),
        ({"pool_padding": "ones"}, r"pool_padding must be one of 'minus_infinity', 'zeros'"),
        ({"conv_bias": True}, r"conv_bias must be one of 'none', 'all', 'without_bn'. Received: True"),
        ({"shortcut_bn": "no"}, r"shortcut_bn must be True or False. Received: 'no'"),
        ({"bn_epsilon": None}, r"bn_epsilon must be above 0. Received: None"),
        ({"bn_epsilon": float("inf")}, r"bn_epsilon must be above 0. Received: inf"),
        ({"bn_epsilon": 0.0}, r"bn_epsilon must be above 0. Received: 0.0"),
        ({"bn_momentum": 1.0}, r"bn_momentum must be at least 0 and below 1. Received: 1.0"),
    ],
)
def test_bad_dialects(changes, message):
    with pytest.raises(InputError, match=message):
        Dialect("mine", **changes)
    with pytest.raises(InputError, match=r"A dialect's name must be a string. Received: None"):
        Dialect(None)
    with pytest.raises(InputError, match=r"dialect must be one of 'torchvision', .* Did you mean 'torchvision'"):
        get_dialect("torchvison")


@pytest.mark.parametrize("shape", [(0, 8, 3), (8, -1, 3), (8, 8, 0), (8, 8), (8, 8, None), 8, None, (8, 8.5, 3)])
def test_an_input_that_leaves_no_pixel(shape):
    with pytest.raises(InputError, match=r"resnet18: input_shape must be .* at least one pixel .* Received: "):
        check_input_shape(get_spec("resnet18"), shape)
