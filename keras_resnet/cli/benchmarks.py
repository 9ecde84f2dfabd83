"""The command benchmark: its options, its progress, its table."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from keras_resnet.cli.options import COUNT, DATA_DIR, ImageSize
from keras_resnet.cli.tables import make_table, print_all
from keras_resnet.errors import BenchmarkFailed, InputError
from keras_resnet.files import check_writable, dump_csv, write_beside

if TYPE_CHECKING:
    from keras_resnet.benchmark import Measurement
    from keras_resnet.benchmark.measurements import Figures


class Counts(click.ParamType):
    """Numbers of at least 1, joined by commas: `1,16`."""

    name = "N[,N...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The numbers; click's usage error otherwise."""
        parts = str(value).split(",")
        if not all(re.fullmatch(COUNT, part) for part in parts):
            self.fail(f"must be numbers of at least 1, such as 16 or 1,16. Received: {value!r}.", param, ctx)
        return tuple(map(int, parts))


@click.command()
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@click.option(
    "--train", "task", flag_value="train", default="train", show_default=False, help="A training step; the default."
)
@click.option("--infer", "task", flag_value="infer", help="A forward pass; ours is the exported SavedModel.")
@click.option(
    "--batch-size",
    type=Counts(),
    help="Several are measured one by one.  [default: 16, up to 64 pixels 128; infer 1,16]",
)
@click.option("--image-size", type=ImageSize(), help="Input of the networks.  [default: of their source]")
@click.option(
    "--against",
    metavar="SIDE[,SIDE...]",
    help="stock, keras.applications, torch, torch-compile, or none.  [default: all that can, but stock for grouped ones]",
)
@click.option("--rounds", type=int, default=7, help="Turns of each side.")
@click.option("--round-seconds", type=float, default=1.0, help="Least length of a turn, in whole steps.")
@click.option("--threads", type=int, help="Of each side.  [default: all cores]")
@click.option("--dtype", default="float32", help="float32 or mixed_bfloat16.")
@click.option("--csv", "csv_path", type=click.Path(), help="Write the figures into this file, after each case.")
@click.option(
    "--data",
    metavar="DATA",
    help="Time the training pipeline of this data set instead, as it is and as 'train' has it.",
)
@DATA_DIR
def benchmark(
    models: tuple[str, ...],
    task: str,
    batch_size: tuple[int, ...] | None,
    image_size: tuple[int, int] | None,
    against: str | None,
    csv_path: str | None,
    data: str | None,
    data_dir: str | None,
    **options: Any,
) -> None:
    """Time the networks MODEL (by default resnet50) beside Keras' own and PyTorch's, or with --data a pipeline.

    Each side runs in a process of its own; they take turns, so that a machine that slows down slows all of them.
    GFLOP/s count two operations for each multiply-add, and three passes in a training step: outputs, gradients of
    inputs, gradients of kernels.
    """
    if data is not None:
        given = {"MODEL": models, "--against": against, "--threads": options["threads"]}
        unfit = [name for name, value in given.items() if value]
        if unfit:
            raise InputError(
                f"With --data a pipeline is timed alone, without {', '.join(given)}. Received: {unfit[0]}."
            )
        _time_pipelines(
            data, data_dir, image_size, batch_size or (128,), options["rounds"], options["round_seconds"], csv_path
        )
        return
    from keras_resnet.benchmark import make_plan, measure

    plan = make_plan(
        models or ("resnet50",),
        task=task,
        batch_sizes=batch_size,
        image_size_pixels=image_size,
        against=_split_sides(against),
        **options,
    )
    if csv_path is not None:
        check_writable(csv_path)
    surroundings = _describe()
    measurements: Sequence[Measurement] = ()

    def keep(so_far: Sequence[Measurement]) -> None:
        nonlocal measurements
        measurements = list(so_far)
        if csv_path is not None:
            columns = [{**one.to_columns(), **surroundings} for one in measurements]
            write_beside(csv_path, lambda path: dump_csv(columns, path))

    try:
        with _progress() as say:
            measure(plan, on_progress=say, on_measurements=keep)
    finally:  # also after Ctrl-C: what was measured was measured
        if measurements:
            print_all(_join(surroundings), *_make_table(measurements))
    failed = [(one.workload, one.note) for one in measurements if one.failed]
    if failed:
        raise BenchmarkFailed(
            "; ".join(f"{work.network} {work.task}, batch {work.batch_size}: {note}" for work, note in failed)
        )


def _time_pipelines(
    data: str,
    data_dir: str | None,
    image_size: tuple[int, int] | None,
    batch_sizes: Sequence[int],
    rounds: int,
    seconds: float,
    csv_path: str | None,
) -> None:
    if csv_path is not None:
        check_writable(csv_path)
    from keras_resnet.benchmark.pipelines import measure_pipelines

    surroundings = _describe()
    columns: list[dict[str, Any]] = []
    table = make_table("pipeline", "batch", "images/s", "min-max", last="ours, times as fast")
    for batch_size in batch_sizes:
        speeds = measure_pipelines(
            data,
            image_size_pixels=image_size,
            batch_size=batch_size,
            rounds=rounds,
            seconds=seconds,
            data_dir=data_dir,
        )
        for speed in speeds:
            columns.append({"data": data, "batch_size": batch_size, **speed.to_dict(), **surroundings})
            spread = f"{speed.least:,.0f}-{speed.greatest:,.0f}"
            ratio = f"{speeds[0].ratio / speed.ratio:.2f}"
            table.add_row(speed.pipeline, str(batch_size), f"{speed.images_per_second:,.0f}", spread, ratio)
    print_all(_join(surroundings), f"training images of {data}, rounds: {rounds}", table)
    if csv_path is not None:
        write_beside(csv_path, lambda path: dump_csv(columns, path))


def _split_sides(against: str | None) -> tuple[str, ...] | None:
    if against is None:
        return None
    return () if against == "none" else tuple(part.strip() for part in against.split(","))


def _describe() -> dict[str, Any]:
    """Machine and versions, as columns of the CSV file."""
    from keras_resnet.environment import describe_machine, describe_versions

    machine = describe_machine()
    return {
        "processor": machine.processor,
        "cores": machine.cores,
        "memory_gib": machine.memory_gib,
        "onednn": machine.onednn,
        "accelerators": " ".join(machine.accelerators) or "none",
        **describe_versions("torch"),
    }


def _join(surroundings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in surroundings.items())


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], object]]:
    """Says what is being done: in one line that changes on a terminal, in lines elsewhere."""
    if not sys.stderr.isatty():
        yield lambda text: click.echo(text, err=True)
        return
    from rich.console import Console

    with Console(stderr=True, markup=False).status("") as status:
        yield status.update


_HEADINGS = (
    "network",
    "batch",
    "input",
    "side",
    "ms",
    "min-max",
    "images/s",
    "GFLOP/s",
    "of peak",
    "MiB",
    "first step s",
)


def _make_table(measurements: Sequence[Measurement]) -> tuple[Any, ...]:
    table = make_table(*_HEADINGS, last="ours/this")
    notes = []
    for one in measurements:
        work = one.workload
        name = (f"{work.network} {work.task}", str(work.batch_size), work.input_text)
        if one.figures is None:
            notes.append(f"{', '.join(name)}: {one.side} {'failed' if one.failed else 'left out'}: {one.note}")
        else:
            table.add_row(*name, one.side, *_format_figures(one.figures))
    peaks = dict.fromkeys(f"{one.figures.peak_gflops:.0f}" for one in measurements if one.figures is not None)
    first = measurements[0].workload
    texts = [f"matrix product (the peak): {', '.join(peaks)} GFLOP/s; {first.threads} threads, {first.dtype}"]
    devices = {one.side: one.device for one in measurements if one.figures is not None}
    if set(devices.values()) - {"cpu"}:
        texts.append("devices: " + ", ".join(f"{side} {device}" for side, device in devices.items()))
    return table, *texts, *notes


def _format_figures(figures: Figures) -> list[str]:
    digits = 1 if figures.milliseconds >= 10 else 3
    return [
        f"{figures.milliseconds:.{digits}f}",
        f"{figures.milliseconds_min:.{digits}f}-{figures.milliseconds_max:.{digits}f}",
        f"{figures.images_per_second:.1f}",
        f"{figures.gflops:.1f}",
        f"{figures.peak_share:.0%}",
        f"{figures.memory_mib:.0f}",
        f"{figures.first_step_seconds:.2f}",
        "" if figures.ours_ratio is None else f"{figures.ours_ratio:.3f}",
    ]
