"""What a benchmark will measure, checked whole before anything of it runs. It loads neither TensorFlow nor PyTorch."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from keras_resnet import specs
from keras_resnet.benchmark.workload import (
    APPLICATIONS,
    DTYPES,
    OURS,
    SIDES,
    STOCK,
    TASKS,
    TORCH,
    TORCH_COMPILE,
    Workload,
    find_counterpart,
)
from keras_resnet.environment import count_cores
from keras_resnet.errors import InputError
from keras_resnet.records import check_choice, check_count, check_number

OPPONENTS = SIDES[1:]
_SMALL_PIXELS = 64  # networks for inputs up to here are trained in large batches
_LEAST_APPLICATIONS_SIDE = 32  # keras.applications refuses smaller images


@dataclass(frozen=True)
class Case:
    """A workload, and who is measured at it."""

    workload: Workload
    sides: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]  # (side, why it is not measured)


@dataclass(frozen=True)
class BenchmarkPlan:
    """All cases, and how each is measured."""

    cases: tuple[Case, ...]
    rounds: int  # turns of each side
    round_seconds: float  # least length of a turn, in whole steps


def check_torch_can(spec: specs.ResNetSpec) -> None:
    """Raises InputError for what `torch_networks` does not build."""
    unknown = {
        "block='custom'": spec.block == "custom",
        "padding='same'": spec.dialect.padding == "same",
        "dropout": spec.dropout > 0,
        "block_dropout": spec.block_dropout > 0,
        "stochastic_depth": spec.stochastic_depth > 0,
    }
    found = [name for name, there in unknown.items() if there]
    if found:
        raise InputError(
            "The PyTorch networks of the benchmark know neither TensorFlow's uneven padding nor dropout nor blocks of "
            f"one's own. Received: {spec.name} with {', '.join(found)}."
        )


def make_plan(
    networks: Sequence[str] = ("resnet50",),
    *,
    task: str = "train",
    batch_sizes: Sequence[int] | None = None,
    image_size_pixels: tuple[int, int] | None = None,
    against: Sequence[str] | None = None,
    rounds: int = 7,
    round_seconds: float = 1.0,
    threads: int | None = None,
    dtype: str = "float32",
) -> BenchmarkPlan:
    """Checks what was asked for and decides what is left open.

    Args:
        networks: names from the table or a family.
        task: "train" or "infer".
        batch_sizes: by default 1 and 16 to infer; to train 16, and 128 for networks of up to 64 pixels.
        image_size_pixels: (height, width); by default the network's own.
        against: sides beside "ours"; by default all that there are, but "stock" where convolutions are grouped, which
            takes minutes a step on a CPU. None of them with ().
        rounds: turns of each side; at least 2, so that there is a spread.
        round_seconds: least length of a turn.
        threads: of each side; by default the cores this process may use.
        dtype: "float32" or "mixed_bfloat16"; to infer only the first.

    Raises:
        InputError: an unknown name, side, task or type, a number below its least, an image size for sequences, PyTorch
            asked for and not installed.
    """
    check_choice("task", task, TASKS)
    check_choice("dtype", dtype, DTYPES)
    if task == "infer" and dtype != "float32":
        raise InputError(f"Exported models compute in float32, so with --infer dtype must be it. Received: {dtype!r}.")
    check_count("rounds", rounds, 2)
    threads = count_cores() if threads is None else threads
    check_count("threads", threads)
    check_number("round_seconds", round_seconds, low=0, most=3600)
    if not networks:
        raise InputError("A benchmark needs at least one network. Received: none.")
    for size in batch_sizes or ():
        check_count("A batch size", size)
    _check_opponents(against)
    rows = {name: specs.get_row(name) for name in networks}
    cases = []
    for name, row in rows.items():
        shape = _choose_shape(row, image_size_pixels)
        small = row.spec.rank == 2 and max(shape[:-1]) <= _SMALL_PIXELS
        default = {"infer": (1, 16), "train": (128,) if small else (16,)}[task]
        sides, left_out = _choose_sides(row, shape, against)
        for size in batch_sizes or default:
            workload = Workload(name, task, int(size), shape, row.classes, dtype, threads)
            cases.append(Case(workload, sides, left_out))
    return BenchmarkPlan(tuple(dict.fromkeys(cases)), rounds, round_seconds)


def has_torch() -> bool:
    """Whether PyTorch is installed; it is not loaded for it."""
    return importlib.util.find_spec("torch") is not None


def _check_opponents(against: Iterable[str] | None) -> None:
    for side in against or ():
        check_choice("A side of the benchmark", side, OPPONENTS)
        if side in (TORCH, TORCH_COMPILE) and not has_torch():
            raise InputError(f"The side {side!r} needs PyTorch, which is not installed: pip install torch")


def _choose_shape(row: specs.Row, image_size_pixels: tuple[int, int] | None) -> tuple[int, ...]:
    if image_size_pixels is None:
        return row.input_shape
    if row.spec.rank != 2:
        raise InputError(
            f"{row.spec.name} takes sequences, so the image size must be left out. Received: {image_size_pixels!r}."
        )
    return specs.check_input_shape(row.spec, (*image_size_pixels, row.input_shape[-1]))


def _choose_sides(
    row: specs.Row, shape: tuple[int, ...], against: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Those who can, and those who cannot with the reason."""
    sides, left_out = [OURS], []
    for side in OPPONENTS if against is None else dict.fromkeys(against):
        reason = _why_not(side, row, shape)
        if against is None and side == STOCK and row.spec.groups > 1:
            reason = "Keras' own grouped convolutions take minutes a step on a CPU: name it in --against to have it"
        if reason is None:
            sides.append(side)
        else:
            left_out.append((side, reason))
    return tuple(sides), tuple(left_out)


def _why_not(side: str, row: specs.Row, shape: tuple[int, ...]) -> str | None:
    try:
        if side == APPLICATIONS:
            find_counterpart(row.spec.name)
            if min(shape[:-1]) < _LEAST_APPLICATIONS_SIDE:
                return f"keras.applications takes images of at least {_LEAST_APPLICATIONS_SIDE} pixels"
        elif side in (TORCH, TORCH_COMPILE):
            check_torch_can(row.spec)
            if not has_torch():  # asked for by name it was refused before
                return "PyTorch is not installed: pip install torch"
    except InputError as error:
        return str(error).partition(" Received:")[0]
    return None
