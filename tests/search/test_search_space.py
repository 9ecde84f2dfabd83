"""The space of a search and its budget: what is declared, made, counted and moved; nothing is trained."""

import dataclasses
import functools
import itertools
import json
import math
import random

import keras_tuner
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from keras_tuner.engine.hyperparameters import Choice, Float

from keras_resnet import InputError, Recipe, ResNetSpec, build, count_macs, count_params, get_dialect
from keras_resnet.search import Budget, Candidates, Space, parse_space
from keras_resnet.specs import estimate_memory

CHECKED = settings(max_examples=150, deadline=None, derandomize=True)
KINDS = ("block", "activation_order", "stem")
LIMITS = ("max_params", "max_macs", "max_memory")
TINY = Space(
    blocks=("resnext", "basic"),
    activation_orders=("pre",),
    stems=("cifar", "imagenet"),
    stages=(1, 2),
    depths=(1, 2),
    widths=(4, 8, 20),
    growths=(1.0, 1.5),
    groups=(2, 4),
    widths_per_group=(8, 16),
)
ODD_RECIPE = Recipe(
    epochs=3,
    batch_size=8,
    optimizer="adamw",
    learning_rate=0.01,
    momentum=0.5,
    weight_decay=0.01,
    schedule="step",
    warmup_fraction=0.2,
    clip_norm=1.0,
    shift_fraction=0.25,
    horizontal_flip=True,
    validation_split=0.3,
    reestimate_bn=False,
    seed=7,
)


@functools.cache
def declare(candidates):
    hyperparameters = keras_tuner.HyperParameters()
    candidates.declare(hyperparameters)
    return hyperparameters.space


def is_active(hp, values):
    return all(condition.is_active(values) for condition in hp.conditions)


def _draw(candidates, seed):
    """A random point, as a tuner has it: the active hyperparameters only."""
    generator, values = random.Random(seed), {}
    for hp in declare(candidates):
        if is_active(hp, values):
            values[hp.name] = hp.prob_to_value(generator.random())
    return values


def all_points(candidates):
    """Every point of the space, its rates at their defaults."""
    points = [{}]
    for hp in declare(candidates):
        choices = hp.values if isinstance(hp, Choice) else [hp.default]
        points = [
            extended
            for values in points
            for extended in ([{**values, hp.name: v} for v in choices] if is_active(hp, values) else [values])
        ]
    return points


def _count(candidates, values):
    """What a point takes of each limit, counted apart; None where it gives no network."""
    if values["block"] == "resnext" and values["width"] * values["width_per_group"] < 64:
        return None
    spec, recipe = candidates.make(values)
    arguments = spec, candidates.input_shape, candidates.classes
    slots = 1 if recipe.optimizer == "sgd" else 2
    memory = estimate_memory(*arguments, batch_size=recipe.batch_size, optimizer_slots=slots)
    return dict(zip(LIMITS, (count_params(*arguments), count_macs(*arguments), memory), strict=True))


def _fits(candidates, values):
    used = _count(candidates, values)
    limits = {name: limit for name, limit in candidates.budget.to_dict().items() if limit is not None}
    return used is not None and all(used[name] <= limit for name, limit in limits.items())


def _sizes(space, values):
    """The active sizes and their values, smallest first."""
    stages = values["stages"]
    sizes = {"stages": space.stages, "width": space.widths}
    sizes |= {f"blocks{stage}": space.depths for stage in range(1, stages + 1)}
    sizes |= {f"growth{stage}": space.growths for stage in range(2, stages + 1)}
    if values["block"] == "resnext":
        sizes |= {"groups": space.groups, "width_per_group": space.widths_per_group}
    return {name: sorted(choices) for name, choices in sizes.items()}


@st.composite
def spaces(draw, most=3):
    def some(*values):
        return tuple(draw(st.lists(st.sampled_from(values), min_size=1, max_size=most, unique=True)))

    space = Space(
        blocks=some("basic", "bottleneck", "resnext"),
        activation_orders=some("post", "pre"),
        stems=some("cifar", "imagenet", "deep"),
        stages=some(1, 2, 3, 4),
        depths=some(1, 2, 3, 5),
        widths=some(2, 4, 7, 8, 10, 16, 32),
        growths=some(1, 1.1, 1.5, 2, 3),
        groups=some(1, 2, 3, 8),
        widths_per_group=some(2, 4, 8, 16, 32, 64, 96),
        learning_rates=(0.001, 0.1),
    )
    assume(space.blocks != ("resnext",) or space.widths[-1] * space.widths_per_group[-1] >= 64)
    return space


@st.composite
def all_candidates(draw, budgets=True, most=3):
    """Candidates of a random space, input and recipe, and of a budget that at least one network of the space meets."""
    options = {
        "space": draw(spaces(most)),
        "recipe": draw(st.sampled_from([Recipe(), ODD_RECIPE])),
        "augment": draw(st.booleans()),
    }
    shape, classes = draw(st.sampled_from([(8, 8, 1), (16, 12, 3), (33, 5, 3), (9, 2)])), draw(st.integers(1, 11))
    free = Candidates(shape, classes, **options)
    if not budgets:
        return free
    drawn = (_count(free, _draw(free, seed)) for seed in draw(st.lists(st.integers(0, 999), min_size=8, max_size=8)))
    reached = next((used for used in drawn if used), None)
    assume(reached is not None)
    limited = draw(st.lists(st.sampled_from(LIMITS), min_size=1, unique=True))
    slack = draw(st.sampled_from([1, 1, 1.3]))
    return Candidates(
        shape, classes, budget=Budget(**{name: int(slack * reached[name]) for name in limited}), **options
    )


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
    values = _draw(candidates, seed)
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


POINT = {
    "block": "resnext",
    "activation_order": "pre",
    "stem": "deep",
    "stages": 4,
    "width": 10,
    "blocks1": 1,
    "blocks2": 2,
    "growth2": 1.5,
    "blocks3": 3,
    "growth3": 1.0,
    "blocks4": 1,
    "growth4": 2.0,
    "groups": 4,
    "width_per_group": 16,
    "learning_rate": 0.0123456,
    "weight_decay": 0.00098764,
    "shift_fraction": 0.125,
}

SMALLEST = {"activation_order": "post", "stages": 2, "width": 8, "blocks1": 1, "blocks2": 1, "growth2": 1.0}


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
    values = candidates.move(_draw(candidates, 3))
    spec, _ = candidates.make(values)
    model = build(spec, (64, 2), 5)
    assert (spec.rank, model.input_shape, model.output_shape) == (1, (None, 64, 2), (None, 5))
    assert model.count_params() == _count(candidates, values)["max_params"] <= 30_000


# The budget.


@CHECKED
@given(all_candidates(), st.integers(0, 10**6))
def test_admits_is_counting(candidates, seed):
    values = _draw(candidates, seed)
    assert candidates.admits(values) == _fits(candidates, values)
    used = _count(candidates, values)
    if used:
        limited = [name for name, limit in candidates.budget.to_dict().items() if limit is not None]
        exact = {name: used[name] for name in limited}
        options = {"space": candidates.space, "recipe": candidates.recipe}
        shape = candidates.input_shape, candidates.classes
        assert Candidates(*shape, **options, budget=Budget(**exact)).admits(values)
        for name in limited:
            try:
                tighter = Candidates(*shape, **options, budget=Budget(**{**exact, name: used[name] - 1}))
            except InputError:  # it is the smallest of the space
                continue
            assert not tighter.admits(values)


@CHECKED
@given(all_candidates(budgets=False), st.integers(0, 10**6))
def test_every_figure_grows_with_every_size(candidates, seed):
    values = _draw(candidates, seed)
    used = _count(candidates, values)
    assume(used is not None)
    everything = {hp.name: hp.default for hp in declare(candidates)} | values
    for name, choices in _sizes(candidates.space, values).items():
        for larger in choices[choices.index(values[name]) + 1 :]:
            more = _count(candidates, {**everything, name: larger})
            assert all(more[limit] >= used[limit] for limit in LIMITS), (name, larger)
            assert more["max_params"] > used["max_params"] or name.startswith(("growth", "width_per", "width"))


def _kind_fits(candidates, kinds):
    """Whether the smallest networks of a kind fit: of resnext, of every width and width per group."""
    space = candidates.space
    least = {"stages": space.stages[0], "groups": space.groups[0], "learning_rate": 0.01, "weight_decay": 0.01}
    least |= {f"blocks{stage}": space.depths[0] for stage in range(1, 5)}
    least |= {f"growth{stage}": space.growths[0] for stage in range(2, 5)} | {"shift_fraction": 0.0}
    return any(
        _fits(candidates, {**least, **kinds, "width": width, "width_per_group": width_per_group})
        for width, width_per_group in itertools.product(space.widths, space.widths_per_group)
    )


def _distance(kinds, values):
    return sum(kinds[name] != values[name] for name in KINDS)


@settings(CHECKED, max_examples=300)
@given(all_candidates(), st.integers(0, 10**6))
def test_move(candidates, seed):
    space, asked = candidates.space, _draw(candidates, seed)
    before = dict(asked)
    moved = candidates.move(asked)
    assert asked == before
    assert _fits(candidates, moved)
    assert candidates.move(moved) == moved
    for name in ("learning_rate", "weight_decay", *(["shift_fraction"] if candidates.augment else [])):
        assert moved[name] == asked[name]
    if _fits(candidates, asked):
        assert moved == asked
        return
    for hp in declare(candidates):
        if isinstance(hp, Choice) and is_active(hp, moved):
            assert moved[hp.name] in hp.values
    fitting = [
        kinds
        for choice in itertools.product(space.blocks, space.activation_orders, space.stems)
        if _kind_fits(candidates, kinds := dict(zip(KINDS, choice, strict=True)))
    ]
    assert _distance(moved, asked) == min(_distance(kinds, asked) for kinds in fitting)  # 0 where the asked one fits
    wanted = {hp.name: hp.default for hp in declare(candidates)} | asked
    for name, choices in _sizes(space, moved).items():
        index, target = choices.index(moved[name]), choices.index(wanted[name])
        if index != target:
            nearer = choices[index + (1 if target > index else -1)]
            assert not _fits(candidates, {**moved, name: nearer}), f"{name} could be {nearer}"


def test_move_by_hand():
    space = Space(blocks=("basic",), stages=(1,), depths=(1, 2, 3), widths=(8, 16, 32))
    asked = {"block": "basic", "activation_order": "post", "stem": "cifar", "stages": 1, "width": 32, "blocks1": 3}
    asked |= {"learning_rate": 0.02, "weight_decay": 0.001}
    full = _count(Candidates((8, 8, 1), 2, space=space), asked)["max_params"]

    def move(limit):
        candidates = Candidates((8, 8, 1), 2, space=space, budget=Budget(max_params=limit))
        values = candidates.move(asked)
        return values["width"], values["blocks1"]

    def count(width, depth):
        return 9 * width + 4 * width + depth * (2 * 9 * width**2 + 8 * width) + 2 * width + 2

    assert full == count(32, 3)
    assert move(full) == (32, 3)
    assert move(full - 1) == (32, 2)  # one notch is enough: the one that gives up least
    assert move(count(32, 2) - 1) == (16, 3)
    assert move(count(16, 3) - 1) == (16, 2)  # two notches: first the one that saves most
    assert move(count(8, 1)) == (8, 1)


def test_move_changes_the_kind_where_it_must():
    asked = {**POINT, **SMALLEST, "block": "bottleneck", "activation_order": "pre", "stem": "cifar", "width": 16}
    space = Space(widths=(8, 16), stages=(2,), depths=(1,), growths=(1,), groups=(2,), widths_per_group=(32,))
    free = Candidates((32, 32, 3), 10, space=space)
    macs = [_count(free, {**asked, "stem": stem, "width": 8})["max_macs"] for stem in ("cifar", "imagenet")]

    def move(limit):
        moved = Candidates((32, 32, 3), 10, space=space, budget=Budget(max_macs=limit)).move(asked)
        return [moved[name] for name in (*KINDS, "width")]

    assert move(macs[0]) == ["bottleneck", "pre", "cifar", 8]
    assert move(macs[0] - 1) == ["basic", "pre", "cifar", 8]
    assert move(macs[1]) == ["bottleneck", "pre", "imagenet", 8]


SPACES = {
    "tiny": TINY,
    "one channel": dataclasses.replace(TINY, blocks=("resnext",), widths=(4, 8), widths_per_group=(4, 8, 16)),
    "deep": dataclasses.replace(TINY, blocks=("bottleneck",), stems=("deep",), stages=(2, 1), depths=(2,)),
}


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("name", SPACES)
def test_the_error_names_the_smallest_budget_there_is(name, limit):
    options = {"space": SPACES[name], "recipe": ODD_RECIPE}
    free = Candidates((12, 9, 2), 4, **options)
    counted = [(used[limit], candidate) for candidate in all_points(free) if (used := _count(free, candidate))]
    least = min(used for used, _ in counted)
    names = [free.make(values)[0].name for used, values in counted if used == least]
    with pytest.raises(InputError) as caught:
        Candidates((12, 9, 2), 4, budget=Budget(**{limit: least - 1}), **options)
    assert str(caught.value) in [
        f"{limit} must be at least {least:,}, which the smallest network of the space takes "
        f"({name} at 12x9x2, 4 classes). Received: {least - 1:,}."
        for name in names
    ]
    reached = Candidates((12, 9, 2), 4, budget=Budget(**{limit: least}), **options)
    assert any(reached.admits(values) for values in all_points(reached))


def test_limits_that_only_different_networks_meet():
    space = Space(blocks=("basic",), activation_orders=("post",), stages=(2,))  # cifar: fewer weights, more work
    free = Candidates((32, 32, 3), 10, space=space)
    counted = [_count(free, {**POINT, "block": "basic", "stem": stem} | SMALLEST) for stem in ("cifar", "imagenet")]
    least = {name: min(used[name] for used in counted) for name in LIMITS[:2]}
    assert counted[0]["max_params"] == least["max_params"]
    assert counted[1]["max_macs"] == least["max_macs"]
    both = Budget(max_params=least["max_params"], max_macs=counted[0]["max_macs"] - 1)
    with pytest.raises(InputError) as caught:
        Candidates((32, 32, 3), 10, space=space, budget=both)
    assert str(caught.value) == (
        "No network of the space meets all limits at once. Received: "
        f"max_params={both.max_params:,}, max_macs={both.max_macs:,}; each alone reaches "
        f"max_params {least['max_params']:,}, max_macs {least['max_macs']:,}."
    )
    Candidates((32, 32, 3), 10, space=space, budget=dataclasses.replace(both, max_macs=counted[0]["max_macs"]))


def _beginnings(candidates, values):
    """What a walk through the space knows of a point, step by step."""
    names = [hp.name for hp in declare(candidates) if hp.name in values]
    return [{name: values[name] for name in names[:length]} for length in range(len(names) + 1)]


@pytest.mark.parametrize("share", [0.02, 0.3])
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("name", SPACES)
def test_a_beginning_with_an_admitted_end_is_never_given_up(name, limit, share):
    free = Candidates((12, 9, 2), 4, space=SPACES[name])
    points = all_points(free)
    figures = sorted(used[limit] for values in points if (used := _count(free, values)))
    bound = figures[int(share * len(figures))]
    candidates = Candidates((12, 9, 2), 4, space=SPACES[name], budget=Budget(**{limit: bound}))
    open_ones = {
        tuple(beginning.items())
        for values in points
        if candidates.admits(values)
        for beginning in _beginnings(candidates, values)
    }
    given_up = 0
    for values in points:
        for beginning in _beginnings(candidates, values):
            may = candidates.may_admit(beginning)
            assert may or tuple(beginning.items()) not in open_ones
            given_up += not may
        assert may == candidates.admits(values)  # of all values
    assert given_up > len(points) // 2  # or the walk would look at every point


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
