"""The budget of a search: what is counted, which values are moved into it, how, and what it cannot be."""

import dataclasses
import itertools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from keras_tuner.engine.hyperparameters import Choice
from space_helpers import (
    CHECKED,
    KINDS,
    LIMITS,
    ODD_RECIPE,
    POINT,
    SMALLEST,
    TINY,
    active_sizes,
    all_candidates,
    all_points,
    count_figures,
    declare,
    draw_point,
    fits,
    is_active,
)

from keras_resnet import InputError
from keras_resnet.search import Budget, Candidates, Space

# The budget.


@CHECKED
@given(all_candidates(), st.integers(0, 10**6))
def test_admits_is_counting(candidates, seed):
    values = draw_point(candidates, seed)
    assert candidates.admits(values) == fits(candidates, values)
    used = count_figures(candidates, values)
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
    values = draw_point(candidates, seed)
    used = count_figures(candidates, values)
    assume(used is not None)
    everything = {hp.name: hp.default for hp in declare(candidates)} | values
    for name, choices in active_sizes(candidates.space, values).items():
        for larger in choices[choices.index(values[name]) + 1 :]:
            more = count_figures(candidates, {**everything, name: larger})
            assert all(more[limit] >= used[limit] for limit in LIMITS), (name, larger)
            assert more["max_params"] > used["max_params"] or name.startswith(("growth", "width_per", "width"))


def _kind_fits(candidates, kinds):
    """Whether the smallest networks of a kind fit: of resnext, of every width and width per group."""
    space = candidates.space
    least = {"stages": space.stages[0], "groups": space.groups[0], "learning_rate": 0.01, "weight_decay": 0.01}
    least |= {f"blocks{stage}": space.depths[0] for stage in range(1, 5)}
    least |= {f"growth{stage}": space.growths[0] for stage in range(2, 5)} | {"shift_fraction": 0.0}
    return any(
        fits(candidates, {**least, **kinds, "width": width, "width_per_group": width_per_group})
        for width, width_per_group in itertools.product(space.widths, space.widths_per_group)
    )


def _distance(kinds, values):
    return sum(kinds[name] != values[name] for name in KINDS)


@settings(CHECKED, max_examples=300)
@given(all_candidates(), st.integers(0, 10**6))
def test_move(candidates, seed):
    space, asked = candidates.space, draw_point(candidates, seed)
    before = dict(asked)
    moved = candidates.move(asked)
    assert asked == before
    assert fits(candidates, moved)
    assert candidates.move(moved) == moved
    for name in ("learning_rate", "weight_decay", *(["shift_fraction"] if candidates.augment else [])):
        assert moved[name] == asked[name]
    if fits(candidates, asked):
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
    for name, choices in active_sizes(space, moved).items():
        index, target = choices.index(moved[name]), choices.index(wanted[name])
        if index != target:
            nearer = choices[index + (1 if target > index else -1)]
            assert not fits(candidates, {**moved, name: nearer}), f"{name} could be {nearer}"


def test_move_by_hand():
    space = Space(blocks=("basic",), stages=(1,), depths=(1, 2, 3), widths=(8, 16, 32))
    asked = {"block": "basic", "activation_order": "post", "stem": "cifar", "stages": 1, "width": 32, "blocks1": 3}
    asked |= {"learning_rate": 0.02, "weight_decay": 0.001}
    full = count_figures(Candidates((8, 8, 1), 2, space=space), asked)["max_params"]

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
    macs = [count_figures(free, {**asked, "stem": stem, "width": 8})["max_macs"] for stem in ("cifar", "imagenet")]

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
    counted = [(used[limit], candidate) for candidate in all_points(free) if (used := count_figures(free, candidate))]
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
    counted = [
        count_figures(free, {**POINT, "block": "basic", "stem": stem} | SMALLEST) for stem in ("cifar", "imagenet")
    ]
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
    figures = sorted(used[limit] for values in points if (used := count_figures(free, values)))
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
