"""The blocks that a spec yields, and a block by itself."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from strategies import deep_specs

from keras_resnet import (
    Block,
    InputError,
    count_params,
    get_dialect,
    get_spec,
)
from keras_resnet.specs import (
    OPTIONS,
    TABLE,
    Conv,
    final_feature_map,
    iter_blocks,
)


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
