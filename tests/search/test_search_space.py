"""The space of a search: what is declared, what values become, what cannot be used, JSON; nothing is trained."""

import dataclasses
import itertools
import json
import math

import keras_tuner
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras_tuner.engine.hyperparameters import Choice, Float
from space_helpers import (
    CHECKED,
    KINDS,
    LIMITS,
    ODD_RECIPE,
    POINT,
    all_candidates,
    count_figures,
    declare,
    draw_point,
    spaces,
)

from keras_resnet import InputError, Recipe, ResNetSpec, build, get_dialect
from keras_resnet.search import Budget, Candidates, Space, parse_space

# What is declared: an interface, by which searches on disk are read and gone on with.

WIDTHS, DEPTHS, GROWTHS = [8, 16, 24, 32, 48, 64, 96, 128], [1, 2, 3, 4], [1.0, 1.5, 2.0]
RATES = [
    ("learning_rate", (0.005, 0.16, "log", None), 0.04, {}),
    ("weight_decay", (5e-4, 5e-2, "log", None), 5e-3, {}),
]
RESNEXT = [
    ("groups", [2, 4, 8, 16, 32], 8, {"block": ["resnext"]}),
    ("width_per_group", [4, 8, 16, 32], 8, {"block": ["resnext"]}),
]
SHIFT = [("shift_fraction", [0.0, 0.0625, 0.125, 0.1875], 0.0, {})]
DECLARED = {
    (32, 32, 3): [
        ("block", ["basic", "bottleneck", "resnext"], "basic", {}),
        ("activation_order", ["post", "pre"], "post", {}),
        ("stem", ["cifar", "imagenet"], "cifar", {}),
        ("stages", [2, 3, 4], 3, {}),
        ("width", WIDTHS, 16, {}),
        ("blocks1", DEPTHS, 2, {}),
        ("blocks2", DEPTHS, 2, {}),
        ("growth2", GROWTHS, 2.0, {}),
        ("blocks3", DEPTHS, 2, {"stages": [3, 4]}),
        ("growth3", GROWTHS, 2.0, {"stages": [3, 4]}),
        ("blocks4", DEPTHS, 2, {"stages": [4]}),
        ("growth4", GROWTHS, 2.0, {"stages": [4]}),
        *RESNEXT,
        *RATES,
    ],
    (8, 8, 1): [
        ("block", ["basic", "bottleneck", "resnext"], "basic", {}),
        ("activation_order", ["post", "pre"], "post", {}),
        ("stem", ["cifar"], "cifar", {}),
        ("stages", [2, 3], 3, {}),
        ("width", WIDTHS, 16, {}),
        ("blocks1", DEPTHS, 2, {}),
        ("blocks2", DEPTHS, 2, {}),
        ("growth2", GROWTHS, 2.0, {}),
        ("blocks3", DEPTHS, 2, {"stages": [3]}),
        ("growth3", GROWTHS, 2.0, {"stages": [3]}),
        *RESNEXT,
        *RATES,
    ],
}


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("shape", DECLARED)
def test_declared_hyperparameters_are_an_interface(shape, augment):
    declared = []
    for hp in declare(Candidates(shape, 10, augment=augment)):
        if isinstance(hp, Choice):
            assert hp.ordered == (hp.name not in KINDS)
            values = list(hp.values)
            assert len({type(value) for value in (*values, hp.default)}) == 1
        else:
            assert type(hp) is Float
            values = hp.min_value, hp.max_value, hp.sampling, hp.step
        declared.append((hp.name, values, hp.default, {c.name: c.values for c in hp.conditions}))
    assert declared == DECLARED[shape] + (SHIFT if augment else [])


def test_declaring_twice_changes_nothing():
    hyperparameters, candidates = keras_tuner.HyperParameters(), Candidates((32, 32, 3), 10)
    candidates.declare(hyperparameters)
    before = hyperparameters.get_config()
    candidates.declare(hyperparameters)
    assert hyperparameters.get_config() == before


@pytest.mark.parametrize(
    ("shape", "stems", "stages"),
    [
        ((2, 2, 1), ("cifar",), (2,)),
        ((4, 4, 1), ("cifar",), (2,)),
        ((8, 8, 1), ("cifar",), (2, 3)),
        ((5, 31, 1), ("cifar",), (2, 3, 4)),
        ((32, 32, 3), ("cifar", "imagenet"), (2, 3, 4)),
        ((64, 64, 3), ("cifar", "imagenet"), (2, 3, 4)),
        ((65, 65, 3), ("imagenet", "deep"), (2, 3, 4)),
        ((224, 224, 3), ("imagenet", "deep"), (2, 3, 4)),
        ((16, 2), ("cifar",), (2, 3, 4)),
    ],
)
def test_the_input_decides_on_stems_and_stages(shape, stems, stages):
    space = Candidates(shape, 10).space
    assert (space.stems, space.stages) == (stems, stages)


def test_the_recipe_decides_on_rates():
    declared = {hp.name: hp for hp in declare(Candidates((8, 8, 1), 3, recipe=ODD_RECIPE, augment=True))}
    rate, decay = declared["learning_rate"], declared["weight_decay"]
    assert (rate.min_value, rate.max_value, rate.default) == (0.00125, 0.04, 0.01)
    assert decay.default == 0.01
    assert declared["shift_fraction"].default == 0.1875  # the nearest to 0.25
    given_rates = Space(learning_rates=(0.1, 0.2), weight_decays=(0.3,))
    declared = {hp.name: hp for hp in declare(Candidates((8, 8, 1), 3, space=given_rates, recipe=ODD_RECIPE))}
    assert declared["learning_rate"].default == 0.1
    assert declared["weight_decay"].prob_to_value(0.7) == declared["weight_decay"].default == 0.3


def test_a_tuner_draws_active_hyperparameters_only():
    hyperparameters, candidates = keras_tuner.HyperParameters(), Candidates((32, 32, 3), 10, augment=True)
    candidates.declare(hyperparameters)
    oracle = keras_tuner.oracles.RandomSearchOracle("val_accuracy", 99, seed=1, hyperparameters=hyperparameters)
    seen = set()
    for _ in range(60):
        values = oracle.populate_space("0")["values"]
        stages, block = values["stages"], values["block"]
        expected = {*KINDS, "stages", "width", "learning_rate", "weight_decay", "shift_fraction"}
        expected |= {f"blocks{stage}" for stage in range(1, stages + 1)}
        expected |= {f"growth{stage}" for stage in range(2, stages + 1)}
        expected |= {"groups", "width_per_group"} if block == "resnext" else set()
        assert set(values) == expected
        seen.add((stages, block))
    assert len(seen) == 9


@pytest.mark.parametrize(
    ("space", "inactive"),
    [
        (Space(blocks=("resnext",), stages=(2,)), {}),  # what is always active needs no condition
        (Space(blocks=("basic",), stages=(3, 1)), {"blocks2": [3], "growth2": [3], "blocks3": [3], "growth3": [3]}),
    ],
)
def test_conditions_where_the_parent_has_one_value(space, inactive):
    declared = declare(Candidates((8, 8, 1), 3, space=space))
    assert {hp.name: hp.conditions[0].values for hp in declared if hp.conditions} == inactive
    assert ("groups" in [hp.name for hp in declared]) == ("resnext" in space.blocks)


# What values become.


@CHECKED
@given(all_candidates(budgets=False), st.integers(0, 10**6))
def test_every_point_is_a_network_but_for_groups_without_a_channel(candidates, seed):
    values = draw_point(candidates, seed)
    if values["block"] == "resnext" and values["width"] * values["width_per_group"] < 64:
        assert not candidates.admits(values)
        with pytest.raises(InputError, match=r"stage 1: The inner width .* must be at least groups"):
            candidates.make(values)
        return
    assert candidates.admits(values)
    spec, recipe = candidates.make(values)
    assert ResNetSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    stages, width = values["stages"], values["width"]
    grouped = values["block"] == "resnext"
    assert spec.block == ("basic" if values["block"] == "basic" else "bottleneck")
    assert (spec.groups, spec.width_per_group) == (
        (values["groups"], values["width_per_group"]) if grouped else (1, 64)
    )
    assert spec.depths == tuple(values[f"blocks{stage}"] for stage in range(1, stages + 1))
    assert spec.strides == (1, *(2,) * (stages - 1))
    assert (spec.filters[0], spec.stem_filters, spec.stem) == (width, width, values["stem"])
    for stage, (before, after) in enumerate(itertools.pairwise(spec.filters), start=2):
        exact = width * math.prod(values[f"growth{n}"] for n in range(2, stage + 1))
        assert after == before if values[f"growth{stage}"] == 1 else (after % 4 == 0 and exact <= after < exact + 4)
    assert spec.rank == len(candidates.input_shape) - 1
    assert spec.dialect.activation_order == values["activation_order"]
    searched = {"learning_rate", "weight_decay"} | ({"shift_fraction"} if candidates.augment else set())
    for name, value in recipe.to_dict().items():
        assert name in searched or value == getattr(candidates.recipe, name), name
    for name in ("learning_rate", "weight_decay"):
        assert getattr(recipe, name) == pytest.approx(values[name], rel=5e-4)
        assert getattr(recipe, name) == float(f"{getattr(recipe, name):.4g}")
    if candidates.augment:
        assert recipe.shift_fraction == values["shift_fraction"]


def test_a_point_by_hand():
    candidates = Candidates((48, 40, 3), 10, recipe=ODD_RECIPE, augment=True)
    spec, recipe = candidates.make(POINT)
    assert spec == ResNetSpec(
        "resnext_pre_deep_d1-2-3-1_w10-16-16-32_g4x16d",  # 10, 15 and 15 and 30 rounded up to multiples of 4
        block="bottleneck",
        depths=(1, 2, 3, 1),
        filters=(10, 16, 16, 32),
        strides=(1, 2, 2, 2),
        stem="deep",
        stem_filters=10,
        groups=4,
        width_per_group=16,
        dialect=get_dialect("torchvision_v2"),
    )
    assert recipe == dataclasses.replace(
        ODD_RECIPE, learning_rate=0.01235, weight_decay=0.0009876, shift_fraction=0.125
    )
    basic = {**POINT, "block": "basic", "activation_order": "post", "stages": 1}  # what is inactive is ignored
    assert candidates.make(basic)[0] == ResNetSpec(
        "basic_post_deep_d1_w10", "basic", (1,), (10,), (1,), stem="deep", stem_filters=10
    )


def test_sequences():
    candidates = Candidates((64, 2), 5, space=Space(stages=(2,), widths=(8,)), budget=Budget(max_params=30_000))
    values = candidates.move(draw_point(candidates, 3))
    spec, _ = candidates.make(values)
    model = build(spec, (64, 2), 5)
    assert (spec.rank, model.input_shape, model.output_shape) == (1, (None, 64, 2), (None, 5))
    assert model.count_params() == count_figures(candidates, values)["max_params"] <= 30_000


# What cannot be used.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"blocks": ()}, r"A search space needs at least one value for blocks. Received: \(\)"),
        ({"blocks": "basic"}, r"A search space needs at least one value for blocks. Received: 'basic'"),
        ({"widths": 8}, r"A search space needs at least one value for widths. Received: 8"),
        ({"depths": None}, r"A search space needs at least one value for depths. Received: None"),
        ({"stems": []}, r"A search space needs at least one value for stems. Received: \[\]"),
        ({"widths": (8, 16, 8)}, r"The values of widths must differ. Received: \(8, 16, 8\)"),
        ({"growths": (2, 2.0)}, r"The values of growths must differ. Received: \(2, 2.0\)"),
        (
            {"blocks": ("basic", "resnxt")},
            r"A search space: blocks must be one of 'basic', 'bottleneck', 'resnext'. Received: 'resnxt'. "
            r"Did you mean 'resnext'\?",
        ),
        (
            {"activation_orders": ("both",)},
            r"A search space: activation_orders must be one of 'post', 'pre'. Received: 'both'",
        ),
        (
            {"stems": ("none",)},
            r"A search space: stems must be one of 'imagenet', 'deep', 'cifar'. Received: 'none'",
        ),
        ({"depths": (0, 1)}, r"A search space: depths must be integers of at least 1. Received: \(0, 1\)"),
        ({"widths": (8.0,)}, r"A search space: widths must be integers of at least 1. Received: \(8.0,\)"),
        ({"stages": (True,)}, r"A search space: stages must be integers of at least 1. Received: \(True,\)"),
        (
            {"learning_rates": (0.1, 0.01)},
            r"A search space: learning_rates must be \(lowest, highest\), both above 0, or one value. "
            r"Received: \(0.1, 0.01\)",
        ),
        ({"learning_rates": (0, 1)}, r"learning_rates must be \(lowest, highest\).* Received: \(0, 1\)"),
        ({"weight_decays": (1, 2, 3)}, r"weight_decays must be \(lowest, highest\).* Received: \(1, 2, 3\)"),
        ({"weight_decays": (math.nan,)}, r"weight_decays must be \(lowest, highest\).* Received: \(nan,\)"),
        ({"growths": (0.9,)}, r"A search space: growths must be numbers of at least 1. Received: \(0.9,\)"),
        (
            {"shift_fractions": (0, 1)},
            r"A search space: shift_fractions must be numbers in \[0, 1\). Received: \(0, 1\)",
        ),
        (
            {"stems": ("deep",), "widths": (1, 2)},
            r"The deep stem halves its width, so widths must be at least 2. Received: \(1, 2\)",
        ),
    ],
)
def test_bad_spaces(fields, message):
    with pytest.raises(InputError, match=message):
        Space(**fields)


def test_lists_are_sorted_tuples():
    space = Space(widths=[32, 8], growths=[2, 1], stages=[3, 2], blocks=["resnext", "basic"])
    assert (space.widths, space.growths, space.stages) == ((8, 32), (1.0, 2.0), (2, 3))
    assert space.blocks == ("resnext", "basic")  # the first is the default
    assert hash(space) == hash(Space(widths=(8, 32), growths=(1, 2), stages=(2, 3), blocks=("resnext", "basic")))


def test_parsing():
    assert parse_space([]) == Space()
    assert parse_space(["stages=3, 2", "growths=1,1.5", "blocks=basic,resnext", "learning_rates=0.01"]) == Space(
        stages=(2, 3), growths=(1.0, 1.5), blocks=("basic", "resnext"), learning_rates=(0.01,)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "width=8",
            r"A choice of the space must be FIELD=VALUE,VALUE,..., the field one of blocks, activation_orders, stems, "
            r"stages, depths, widths, growths, groups, widths_per_group, learning_rates, weight_decays, "
            r"shift_fractions. Received: 'width=8'. Did you mean 'widths'",
        ),
        ("widths", r"must be FIELD=VALUE,VALUE,.* Received: 'widths'"),
        ("widths=8,x", r"The values of widths must be integers. Received: 'widths=8,x'"),
        ("widths=8.5", r"The values of widths must be integers. Received: 'widths=8.5'"),
        ("growths=1,two", r"The values of growths must be numbers. Received: 'growths=1,two'"),
        ("widths=", r"needs at least one value for widths. Received: \(\)"),
        ("blocks=basic,basic", r"The values of blocks must differ. Received: \('basic', 'basic'\)"),
        ("learning_rates=nan", r"learning_rates must be \(lowest, highest\).* Received: \(nan,\)"),
    ],
)
def test_texts_that_are_no_space(text, message):
    with pytest.raises(InputError, match=message):
        parse_space([text])


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "1"])
@pytest.mark.parametrize("name", LIMITS)
def test_bad_budgets(name, value):
    with pytest.raises(InputError, match=rf"{name} must be None or an integer of at least 1. Received: {value!r}"):
        Budget(**{name: value})


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (
            (None, 32, 3),
            {},
            r"A search needs an input_shape of \(height, width, channels\) or \(steps, channels\), all known. "
            r"Received: \(None, 32, 3\)",
        ),
        ((None, 3), {}, r"A search needs an input_shape .* Received: \(None, 3\)"),
        ((8, 8, 8, 3), {}, r"A search needs an input_shape .* Received: \(8, 8, 8, 3\)"),
        ((0, 8, 3), {}, r"input_shape must be .* at least one pixel .* Received: \(0, 8, 3\)"),
        (
            (8, 8, 1),
            {"recipe": Recipe(max_steps=7)},
            r"A search trains by epochs: its recipe must have max_steps=None. Received: 7",
        ),
        (
            (8, 8, 1),
            {"space": Space(blocks=("resnext",), widths=(2, 4), widths_per_group=(8, 4))},
            r"A search space must hold at least one network: a group of a resnext has width \* width_per_group // 64 "
            r"channels, at least 1. Received: widths=\(2, 4\), widths_per_group=\(4, 8\)",
        ),
    ],
)
def test_bad_candidates(shape, options, message):
    with pytest.raises(InputError, match=message):
        Candidates(shape, 3, **options)


def test_bad_classes():
    with pytest.raises(InputError, match=r"classes must be an integer of at least 1. Received: 0"):
        Candidates((8, 8, 1), 0)


# JSON.


@CHECKED
@given(spaces())
def test_spaces_as_json(space):
    assert Space.from_dict(json.loads(json.dumps(space.to_dict()))) == space
    completed = space.complete((16, 16, 3), 0.04)
    assert Space.from_dict(json.loads(json.dumps(completed.to_dict()))) == completed
    assert completed.complete((300, 300, 3), 1.0) == completed  # what is on disk stays what it is


def test_defaults_and_budgets_as_json():
    assert Space.from_dict(json.loads(json.dumps(Space().to_dict()))) == Space()
    for budget in (Budget(), Budget(max_params=10**12), Budget(1, 2, 3)):
        assert Budget.from_dict(json.loads(json.dumps(budget.to_dict()))) == budget
    with pytest.raises(InputError, match=r"A Space has the fields activation_orders, .* Did you mean 'widths'"):
        Space.from_dict({"width": [8]})
    with pytest.raises(InputError, match=r"A Budget has the fields max_macs, max_memory, max_params. .*'max_flops'"):
        Budget.from_dict({"max_flops": 1})
