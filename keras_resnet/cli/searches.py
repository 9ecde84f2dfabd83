"""The command search and its live table."""

from __future__ import annotations

import sys
from typing import Any

import click

from keras_resnet.cli.options import (
    IMAGE_SIZE,
    RECIPE_NAMES,
    TRAIN_SIZE,
    Amount,
    data_options,
    search_recipe_options,
    take_data_options,
)
from keras_resnet.cli.tables import make_table


@click.command()
@click.argument("data")
@click.option("--tuner", default="hyperband", help="random, bayesian, hyperband or grid.")
@click.option("--trials", type=int, default=20, help="At most so many; of hyperband every rung is one.")
@click.option("--max-params", type=Amount(), help="Most parameters of any network.")
@click.option("--max-macs", type=Amount(), help="Most multiply-adds of one forward pass.")
@click.option("--max-memory", type=Amount(), help="Most bytes of a training step.  [default: what a worker has]")
@click.option("--space", multiple=True, metavar="FIELD=V,V", help="Values to choose among, such as stages=2,3; repeat.")
@click.option("--objective", default="val_accuracy", help="val_accuracy (ties by the loss) or val_loss.")
@click.option("--workers", type=int, default=1, help="Processes that train.")
@click.option("--threads", type=int, help="Of each worker.  [default: the cores divided among the workers]")
@click.option("--worker-memory", type=Amount(), help="Bytes above which a worker is replaced.  [default: its share]")
@click.option("--search-dir", type=click.Path(), help="New, or to go on with.  [default: searches/DATA_TUNER_seedSEED]")
@IMAGE_SIZE
@TRAIN_SIZE
@data_options
@click.option("--validation-split", type=float, help="Part of the training images that scores a trial.  [default: 0.2]")
@search_recipe_options
def search(
    data: str,
    space: tuple[str, ...],
    image_size: tuple[int, int] | None,
    train_size: int | str,
    **options: Any,
) -> None:
    """Search depths, widths and recipe for DATA inside a budget; leave a search folder.

    DATA is as for 'train'. The same command goes on with a search that was interrupted; 'train DATA --from FOLDER'
    trains the winner. KERASTUNER_TUNER_ID, _ORACLE_IP and _ORACLE_PORT spread it over machines.
    """
    given = {key: options.pop(key) for key in RECIPE_NAMES if options.get(key) is not None}
    options = {**take_data_options(options), **{k: v for k, v in options.items() if k not in RECIPE_NAMES}}
    from keras_resnet.jobs import search as search_job
    from keras_resnet.search import parse_space

    with _TrialTable() as table:
        found = search_job(
            data,
            space=parse_space(space),
            image_size_pixels=image_size,
            train_size=None if train_size == "all" else int(train_size),
            recipe=given,
            on_change=table.update,
            **options,
        )
    failed = sum(trial.status == "FAILED" for trial in found.trials)
    click.echo(f"{len(found.ranking)} trials completed, {failed} failed; in {found.path}")
    best = found.best
    kept = best.kept
    assert kept is not None
    click.echo(
        f"winner: trial {best.trial_id}, {best.spec.name}, {best.parameters:,} parameters, {best.multiply_adds:,} "
        f"multiply-adds, validation accuracy {kept.val_accuracy:.4f}, loss {kept.val_loss:.4f}"
    )
    click.echo(f"train it: keras-resnet train {data} --from {found.path}")


class _TrialTable:
    """The trials while they run: a live table on a terminal, a line for each that ends elsewhere."""

    _MOST_ROWS = 20

    def __init__(self) -> None:
        self._live: Any = None
        self._ended: set[str] = set()

    def __enter__(self) -> _TrialTable:
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, trials: tuple[Any, ...]) -> None:
        """Shows the trials as they now are."""
        if self._live is not None:
            self._live.update(self._render(trials), refresh=True)
            return
        for trial in trials:
            if trial.status != "RUNNING" and trial.trial_id not in self._ended:
                self._ended.add(trial.trial_id)
                click.echo("  ".join(self._cells(trial)))

    def _render(self, trials: tuple[Any, ...]) -> Any:
        table = make_table("trial", "parameters", "multiply-adds", "epoch", "val accuracy", "val loss", last="network")
        for trial in trials[-self._MOST_ROWS :]:
            name, *figures, network = self._cells(trial)
            table.add_row(name, *figures, network)
        return table

    @staticmethod
    def _cells(trial: Any) -> tuple[str, ...]:
        kept = trial.kept
        state = {"RUNNING": "", "COMPLETED": "", "FAILED": f" failed: {trial.reason}"}[trial.status]
        return (
            trial.trial_id,
            f"{trial.parameters:,}",
            f"{trial.multiply_adds:,}",
            f"{trial.epochs_done}/{trial.epochs}",
            f"{kept.val_accuracy:.4f}" if kept else "",
            f"{kept.val_loss:.4f}" if kept else "",
            f"{trial.spec.name}{state}",
        )
