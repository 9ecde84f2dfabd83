"""The search job: a supervisor over KerasTuner's chief and workers, each a process; it loads no TensorFlow itself."""

from __future__ import annotations

import datetime
import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from keras_resnet.environment import count_cores
from keras_resnet.errors import InputError
from keras_resnet.files import make_slug, write_beside
from keras_resnet.inputs import DataSource, InputOptions
from keras_resnet.jobs.options import RunOptions
from keras_resnet.jobs.searches.children import ChildProcess, make_environment
from keras_resnet.jobs.searches.folder import PARETO_FILE, SearchFolder, load_search
from keras_resnet.jobs.searches.record import SearchPlan, SearchRecord, SearchRequest
from keras_resnet.jobs.searches.results import Search
from keras_resnet.jobs.searches.service import find_service
from keras_resnet.jobs.searches.supervisor import OnChange, Supervisor
from keras_resnet.jobs.searches.tasks import DONE, PlanTask
from keras_resnet.records import check_count
from keras_resnet.search import Budget, Progress, Space

WORKER_BASE_BYTES = 1_200_000_000  # a worker before its first trial: TensorFlow, Keras, KerasTuner, the data
_MEMORY_SHARE = 0.8  # of what is free when the search starts, divided among the workers
_WAIT_SECONDS = 0.5  # between two looks at the folder of a chief elsewhere

log = logging.getLogger(__name__)


def search(
    data: str | os.PathLike[str] | DataSource,
    *,
    tuner: str = "hyperband",
    trials: int = 20,
    max_params: int | None = None,
    max_macs: int | None = None,
    max_memory: int | None = None,
    space: Space | None = None,
    objective: str = "val_accuracy",
    workers: int = 1,
    threads: int | None = None,
    worker_memory: int | None = None,
    search_dir: str | os.PathLike[str] | None = None,
    image_size_pixels: tuple[int, int] | None = None,
    train_size: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    memory_limit_bytes: int | None = None,
    on_error: str = "stop",
    normalize: str = "dataset",
    recipe: Mapping[str, Any] | None = None,
    chief_timeout: float = 60.0,
    on_change: OnChange | None = None,
) -> Search:
    """Searches depths, widths and recipe for a data set, and leaves a search folder; the test split is never looked at.

    KerasTuner's chief hands out trials to worker processes over gRPC. A worker that dies is started again and goes on
    with its trial from the last epoch; one that has grown past its memory is replaced between trials. The same call on
    the same folder goes on where an earlier one ended. With KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP and
    KERASTUNER_ORACLE_PORT in the environment this machine is the chief (an id with "chief" in it, with workers of its
    own) or runs workers of a chief elsewhere; all see the same `search_dir`.

    Args:
        data: as for `load_data`.
        tuner: "random", "bayesian", "hyperband" or "grid".
        trials: at most so many; of Hyperband every rung of a network is a trial.
        max_params: most parameters of any network, BN's statistics included.
        max_macs: most multiply-adds of one forward pass.
        max_memory: most bytes of a training step, by estimate; by default what a worker's memory leaves.
        space: what may be chosen.
        objective: "val_accuracy" (ties by the loss) or "val_loss".
        workers: processes that train.
        threads: of each worker; by default the cores divided among them.
        worker_memory: bytes of resident memory above which a worker is replaced; by default its share of four fifths
            of what is free.
        search_dir: by default `searches/{data}_{tuner}_seed{seed}`.
        image_size_pixels: (height, width) of the network's input; by default the images' own, 224x224 if they differ.
        train_size: number of training images drawn by the seed; by default all.
        data_dir: where TFDS sets are.
        memory_limit_bytes: of the images, of each worker, as for `load_data`.
        on_error: "stop" or "skip" what cannot be decoded, as for `load_data`.
        normalize: mean and std, as for `compute_preprocessing`.
        recipe: fields of a `Recipe` that differ from the default for this data; `epochs` is that of a whole trial.
        chief_timeout: seconds to wait for an answer of the chief.
        on_change: called with all trials whenever one has changed.

    Returns:
        The search; `best` is the trial that is best by validation, for `train(..., search_dir=...)`.

    Raises:
        InputError: whatever cannot be used: a folder of another search, a budget that cannot be met, a port in use, a
            chief that does not answer.
        SearchFailed: an error that is no trial's own, such as a bug; with its traceback.
        KeyboardInterrupt: after all processes were stopped; the same call goes on.
    """
    service = find_service()
    check_count("workers", workers, service.least_workers)
    request = SearchRequest(
        source=DataSource.of(
            data, data_dir=data_dir, memory_limit_bytes=memory_limit_bytes, on_error=on_error
        ).absolute(),
        input=InputOptions(image_size_pixels, normalize, train_size),
        tuner=tuner,
        objective=objective,
        trials=trials,
        budget=Budget(max_params, max_macs, max_memory),
        space=space or Space(),
        recipe=dict(recipe or {}),
    )
    place = search_dir or f"searches/{make_slug(request.source.name)}_{tuner}_seed{request.recipe.get('seed', 0)}"
    options = _divide_machine(
        RunOptions(
            folder=os.fspath(place),
            workers=workers,
            threads=threads,
            worker_memory_bytes=worker_memory,
            chief_timeout_seconds=chief_timeout,
        )
    )
    folder = SearchFolder(place)
    if not service.runs_chief:
        record = _await_record(folder, request, options.chief_timeout_seconds)
        _log_start(supervisor := Supervisor(folder, record, service, options), options)
        supervisor.run(on_change)
        return load_search(folder.path)
    there = folder.check(request)
    service.check_free()
    record = there or SearchRecord(request, _make_plan(request, options))
    folder.lock()
    try:
        trials = max(request.trials, record.request.trials)
        record = replace(record, request=replace(record.request, trials=trials))
        folder.write(record)
        for trial in folder.read_trials(record):
            if trial.status == "RUNNING":  # the files of finished trials stay as they are
                Progress(folder.trial_path(trial.trial_id)).forgive()
        _log_start(supervisor := Supervisor(folder, record, service, options), options)
        try:
            supervisor.run(on_change)
        finally:
            _write_results(supervisor)
    finally:
        folder.unlock()
    return load_search(folder.path)


def _divide_machine(options: RunOptions) -> RunOptions:
    """The options with threads and memory of each worker: what was given, or its share of this machine."""
    workers = max(options.workers, 1)
    free = psutil.virtual_memory().available
    memory = options.worker_memory_bytes or int(_MEMORY_SHARE * free / workers)
    if memory <= WORKER_BASE_BYTES:
        raise InputError(
            f"worker_memory must be above {WORKER_BASE_BYTES:,} bytes, which a worker takes before its first trial. "
            f"Received: {memory:,}{'' if workers == 1 else f' for each of {workers} workers'}."
        )
    threads = options.threads or max(1, count_cores() // workers)
    return replace(options, threads=threads, worker_memory_bytes=memory)


def _make_plan(request: SearchRequest, options: RunOptions) -> SearchPlan:
    """Has another process load the data and decide what all trials share, so that this one stays small."""
    memory = None
    if options.workers:
        assert options.worker_memory_bytes is not None
        memory = options.worker_memory_bytes - WORKER_BASE_BYTES
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        plan_path = folder / "plan.json"
        task = PlanTask(
            error_path=str(folder / "error.json"),
            request=request,
            memory_limit_bytes=memory,
            plan_path=str(plan_path),
        )
        process = ChildProcess("plan", folder / "plan.log", task, make_environment())
        process.start()
        try:
            while (code := process.wait(60)) is None:
                pass
        finally:
            process.stop()
        if code != DONE:
            process.raise_problem()
        return SearchPlan.from_dict(json.loads(plan_path.read_text("utf-8")))


def _await_record(folder: SearchFolder, request: SearchRequest, seconds: float) -> SearchRecord:
    """The record that a chief elsewhere writes into the shared folder."""
    end = time.monotonic() + seconds
    while True:
        if folder.read() is not None:
            record = folder.check(request)
            assert record is not None
            return record
        if time.monotonic() > end:
            raise InputError(
                f"Workers need the search folder of their chief. Received: {folder.path}, in which no chief has "
                f"written for {seconds:g} s; start the chief, with the same --search-dir on a shared disk."
            )
        time.sleep(_WAIT_SECONDS)


def _log_start(supervisor: Supervisor, options: RunOptions) -> None:
    data, service = supervisor.record.plan.data, supervisor.service
    log.info(
        "%s: %d training and %d validation images of %s; chief at %s:%d; %d workers of %d threads and %.1f GB each",
        supervisor.record.request.source.name,
        data.train_images,
        data.validation_images,
        "x".join(map(str, supervisor.record.plan.preprocessing.input_shape)),
        service.address,
        service.port,
        options.workers,
        options.threads,
        (options.worker_memory_bytes or 0) / 1e9,
    )


def _write_results(supervisor: Supervisor) -> None:
    """Writes what the search has come to: search.json, the leaderboard, the picture."""
    folder, record = supervisor.folder, supervisor.record
    trials = folder.read_trials(record)
    found = Search(folder.path, record, trials)
    ranking = found.ranking
    record = replace(
        record,
        seconds=round(record.seconds + supervisor.seconds, 1),
        status="finished" if supervisor.finished else "stopped",
        updated=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        processes=supervisor.describe_processes(),
        trials=len(trials),
        completed=len(ranking),
        best=ranking[0].to_best() if ranking else None,
    )
    folder.write(record)
    folder.write_leaderboard(found)
    if ranking:
        from keras_resnet import plots

        figure = plots.plot_pareto(
            [trial.to_row(None) for trial in ranking], title=f"{record.request.source.name}: {len(ranking)} trials"
        )
        write_beside(folder.path / PARETO_FILE, lambda path: plots.save_figure(figure, path))
