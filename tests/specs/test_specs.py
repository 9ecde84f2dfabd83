"""Specs, the table and counting; a network is built only to count what its layers put out."""

import dataclasses
import json
import math

import keras
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference.golden import GIGA_MULTIPLY_ADDS, MULTIPLY_ADDS, PARAMETERS, TABLE_1
from strategies import specs

from keras_resnet import (
    Block,
    InputError,
    ResNetSpec,
    build,
    count_macs,
    count_params,
    get_dialect,
    get_spec,
    list_models,
)
from keras_resnet.specs import (
    DIALECTS,
    OPTIONS,
    TABLE,
    TORCHVISION_V2,
    Conv,
    Dialect,
    check_input_shape,
    count_totals,
    describe_conventions,
    estimate_memory,
    final_feature_map,
    get_row,
    iter_blocks,
    iter_layers,
    iter_sections,
    list_families,
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


@st.composite
def deep_specs(draw):
    """Specs of any kind, with stages long enough that blocks repeat."""
    spec = draw(specs())
    return dataclasses.replace(spec, depths=[draw(st.integers(1, 6)) for _ in spec.depths])


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


def test_an_output_stride_turns_strides_into_dilations():
    blocks = list(iter_blocks(dataclasses.replace(get_spec("resnet50"), output_stride=8)))
    stage3, stage4 = blocks[7:13], blocks[13:]
    assert [(b.stride, b.dilations) for b in stage3] == [(1, (1, 2))] + [(1, (2, 2))] * 5
    assert [(b.stride, b.dilations) for b in stage4] == [(1, (2, 4))] + [(1, (4, 4))] * 2
    for name in ("resnet18", "resnet50", "resnet50v2_keras", "resnet50_keras", "resnet18_1d"):
        spec = get_spec(name)
        shape = TABLE[name].input_shape
        for stride in (4, 8, 16, 32):
            dilated = dataclasses.replace(spec, output_stride=stride)
            assert final_feature_map(dilated, shape)[0] == shape[0] // stride
            assert count_params(dilated, shape) == count_params(spec, shape)


def test_stochastic_depth_falls_linearly_towards_the_first_block():
    rates = [b.stochastic_depth for b in iter_blocks(dataclasses.replace(get_spec("resnet18"), stochastic_depth=0.4))]
    assert rates == pytest.approx([0.05 * k for k in range(1, 9)])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(deep_specs())
def test_every_option_of_a_spec_is_that_of_each_of_its_blocks(spec):
    """Whatever `BlockOptions` declares, so that an option added there reaches spec and block by itself."""
    blocks = list(iter_blocks(spec))
    shared = [
        name for name in OPTIONS if name != "stochastic_depth"
    ]  # of which a block has its own, by where it stands
    assert {"shortcut", "groups", "dialect"} < set(shared)
    for block in blocks:
        assert {name: getattr(block, name) for name in shared} == {name: getattr(spec, name) for name in shared}
        assert vars(dataclasses.replace(block)) == vars(block)  # every field is there, and passes a block's own checks
    stages = enumerate(zip(spec.depths, spec.filters, strict=True), start=1)
    expected = [(f"stage{s}_block{b}", spec.block, f) for s, (depth, f) in stages for b in range(1, depth + 1)]
    assert [(block.name, block.kind, block.filters) for block in blocks] == expected
    assert [block.stochastic_depth for block in blocks] == pytest.approx(
        [spec.stochastic_depth * number / len(blocks) for number in range(1, len(blocks) + 1)]
    )


def test_a_block_by_itself():
    block = Block("b", "bottleneck", 8, stride=2, groups=2, width_per_group=32)
    assert block.convs == (Conv(8, (1,)), Conv(8, (3,), 2, groups=2), Conv(32, (1,)))
    assert dataclasses.replace(block, dialect=get_dialect("keras_v1")).convs[0].stride == 2
    assert Block("b", "basic", 8, dilations=(2, 4)).convs == (Conv(8, dilation=2), Conv(8, dilation=4))
    assert Conv(8, (3, 5, 7)).shares == ((3, 3), (5, 3), (7, 2))
    assert (block.has_projection(32, 32), dataclasses.replace(block, stride=1).has_projection(32, 32)) == (True, False)
    assert Block.from_dict(json.loads(json.dumps(block.to_dict()))) == block
    assert repr(block) == "Block(name='b', kind='bottleneck', filters=8, stride=2, groups=2, width_per_group=32)"
    assert repr(get_spec("resnet20_cifar")).startswith(
        "ResNetSpec(name='resnet20_cifar', block='basic', depths=(3, 3, 3)"
    )
    with pytest.raises(InputError, match=r"b: only the kinds 'basic', 'bottleneck' have convolutions.* kind='custom'"):
        _ = Block("b", "custom", 8).convs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "a/b"}, r"A block's name must be a string without '/'. Received: 'a/b'"),
        ({"kind": "plain"}, r"b: kind must be one of 'basic', 'bottleneck', 'custom'. Received: 'plain'"),
        ({"filters": 0}, r"b: filters must be an integer of at least 1. Received: 0"),
        ({"stride": 1.5}, r"b: stride must be an integer of at least 1. Received: 1.5"),
        ({"dilations": (1,)}, r"b: dilations must be two, of the grid that comes in and .* Received: \(1,\)"),
        ({"dilations": 2}, r"b: dilations must be a tuple with one integer per grid. Received: 2"),
        ({"kernel_sizes": (4,)}, r"b: kernel_sizes must be different odd integers.* Received: \(4,\)"),
        ({"dialect": "d2l"}, r"b: dialect must be a Dialect, for example get_dialect.* Received: 'd2l'"),
        ({"shortcut": "none", "zero_gamma": True}, r"b: zero_gamma switches blocks off.* Received: True"),
        ({"stochastic_depth": 1}, r"b: stochastic_depth must be at least 0 and below 1. Received: 1"),
        ({"groups": 3}, r"b: A basic block has no inner width, so groups must be 1.* Received: 3"),
    ],
)
def test_bad_blocks(arguments, message):
    with pytest.raises(InputError, match=message):
        Block(**{"name": "b", "kind": "basic", "filters": 8, **arguments})


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


def test_counting_refuses_a_block_of_ones_own():
    spec = ResNetSpec("mine", "custom", (1,), (4,), (1,))
    for count in (count_params, count_macs, count_totals, lambda s: list(iter_layers(s)), summarize):
        with pytest.raises(
            InputError, match=r"mine: counting .* not a block function of your own.* model.count_params"
        ):
            count(spec)


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
        ({"output_stride": 2.0}, r"output_stride must be None or an integer of at least 1. Received: 2.0"),
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


def test_counting_needs_sides():
    with pytest.raises(
        InputError, match=r"resnet50: counting needs .* a height and a width. Received: \(None, 32, 3\)"
    ):
        count_totals("resnet50", (None, 32, 3))


@pytest.mark.parametrize("classes", [0, -1, 2.5, True, "10"])
def test_bad_classes(classes):
    with pytest.raises(InputError, match=r"classes must be an integer of at least 1. Received: "):
        count_totals("resnet18", classes=classes)
