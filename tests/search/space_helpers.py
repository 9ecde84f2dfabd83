"""What tests of the space share: spaces and candidates drawn at random, every point of a space, what a point takes."""

import functools
import random

import keras_tuner
from hypothesis import assume, settings
from hypothesis import strategies as st
from keras_tuner.engine.hyperparameters import Choice

from keras_resnet import Recipe, count_macs, count_params
from keras_resnet.search import Budget, Candidates, Space
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


def draw_point(candidates, seed):
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


def count_figures(candidates, values):
    """What a point takes of each limit, counted apart; None where it gives no network."""
    if values["block"] == "resnext" and values["width"] * values["width_per_group"] < 64:
        return None
    spec, recipe = candidates.make(values)
    arguments = spec, candidates.input_shape, candidates.classes
    slots = 1 if recipe.optimizer == "sgd" else 2
    memory = estimate_memory(*arguments, batch_size=recipe.batch_size, optimizer_slots=slots)
    return dict(zip(LIMITS, (count_params(*arguments), count_macs(*arguments), memory), strict=True))


def fits(candidates, values):
    used = count_figures(candidates, values)
    limits = {name: limit for name, limit in candidates.budget.to_dict().items() if limit is not None}
    return used is not None and all(used[name] <= limit for name, limit in limits.items())


def active_sizes(space, values):
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
    drawn = (
        count_figures(free, draw_point(free, seed))
        for seed in draw(st.lists(st.integers(0, 999), min_size=8, max_size=8))
    )
    reached = next((used for used in drawn if used), None)
    assume(reached is not None)
    limited = draw(st.lists(st.sampled_from(LIMITS), min_size=1, unique=True))
    slack = draw(st.sampled_from([1, 1, 1.3]))
    return Candidates(
        shape, classes, budget=Budget(**{name: int(slack * reached[name]) for name in limited}), **options
    )


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
