"""The search job: a supervisor over KerasTuner's chief and workers, each a process; it loads no TensorFlow itself."""

from __future__ import annotations

import datetime
import json
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

from keras_resnet.errors import InputError
from keras_resnet.files import make_slug, write_beside
from keras_resnet.jobs.search_folder import (
    LOGS_FOLDER,
    PARETO_FILE,
    Search,
    SearchFolder,
    TrialResult,
    absolute_data,
    load_search,
)
from keras_resnet.jobs.search_process import DONE
from keras_resnet.jobs.search_supervisor import (
    POLL_SECONDS,
    ChildProcess,
    SearchRun,
    Service,
    make_environment,
    raise_problem,
    supervise,
)
from keras_resnet.recipes import Recipe
from keras_resnet.records import check_choice, is_count
from keras_resnet.search import TUNERS, Budget, Progress, Space

OBJECTIVES = ("val_accuracy", "val_loss")
_VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
_LOOPBACK = "127.0.0.1"
_MEMORY_SHARE = 0.8  # of what is free when the search starts, divided among the workers
WORKER_BASE_BYTES = 1_200_000_000  # a worker before its first trial: TensorFlow, Keras, KerasTuner, the data

log = logging.getLogger(__name__)


def search(
    data: str | os.PathLike[str],
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
    on_change: Callable[[tuple[TrialResult, ...]], object] | None = None,
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
    check_choice("tuner", tuner, TUNERS)
    check_choice("objective", objective, OBJECTIVES)
    service = _find_service()
    least = 0 if service.shared and service.runs_chief else 1
    for name, value, low in (("trials", trials, 1), ("workers", workers, least)):
        if not is_count(value, low):
            raise InputError(f"{name} must be an integer of at least {low}. Received: {value!r}.")
    for name, optional in (("threads", threads), ("worker_memory", worker_memory)):
        if optional is not None and not is_count(optional):
            raise InputError(f"{name} must be None or an integer of at least 1. Received: {optional!r}.")
    threads = threads or max(1, _count_cores() // max(workers, 1))
    free = psutil.virtual_memory().available
    limit = worker_memory or int(_MEMORY_SHARE * free / max(workers, 1))
    if limit <= WORKER_BASE_BYTES:
        raise InputError(
            f"worker_memory must be above {WORKER_BASE_BYTES:,} bytes, which a worker takes before its first trial. "
            f"Received: {limit:,}{'' if workers <= 1 else f' for each of {workers} workers'}."
        )
    given = dict(recipe or {})
    Recipe.from_dict(given)
    request = {
        "data": absolute_data(data),
        "data_dir": os.path.abspath(data_dir) if data_dir is not None else None,
        "memory_limit_bytes": memory_limit_bytes,
        "on_error": on_error,
        "normalize": normalize,
        "tuner": tuner,
        "objective": objective,
        "trials": trials,
        "budget": Budget(max_params, max_macs, max_memory).to_dict(),
        "space": (space or Space()).to_dict(),
        "image_size_pixels": list(image_size_pixels) if image_size_pixels else None,
        "train_size": train_size,
        "recipe": given,
    }
    folder = SearchFolder(search_dir or f"searches/{make_slug(os.fspath(data))}_{tuner}_seed{given.get('seed', 0)}")
    if not service.runs_chief:
        record = _await_record(folder, request, chief_timeout)
        supervise(_make_run(folder, record, service, workers, threads, limit, chief_timeout), on_change)
        return load_search(folder.path)
    record_there = folder.check(request)
    _check_port(service)
    record = record_there or _plan(request, limit - WORKER_BASE_BYTES if workers else None)
    folder.lock()
    try:
        record["request"]["trials"] = max(trials, record["request"]["trials"])
        folder.write(record)
        for trial in folder.read_trials(record):
            if trial.status == "RUNNING":  # the files of finished trials stay as they are
                Progress(folder.trials_path / f"trial_{trial.trial_id}").forgive()
        run = _make_run(folder, record, service, workers, threads, limit, chief_timeout)
        try:
            supervise(run, on_change)
        finally:
            _write_results(run)
    finally:
        folder.unlock()
    return load_search(folder.path)


def _find_service() -> Service:
    """Reads KerasTuner's environment variables; without them the chief is this machine's own."""
    given = {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)}
    if not given:
        with socket.socket() as free:  # the system's choice of a free port
            free.bind((_LOOPBACK, 0))
            port = free.getsockname()[1]
        return Service(_LOOPBACK, port, runs_chief=True, worker_prefix="worker", shared=False)
    missing = [name for name in _VARIABLES if name not in given]
    if missing:
        raise InputError(
            f"A search over several machines needs all of {', '.join(_VARIABLES)}. Received: only {', '.join(given)}."
        )
    tuner_id, address, port_text = (given[name] for name in _VARIABLES)
    if not port_text.isdigit() or not 1 <= int(port_text) <= 65535:
        raise InputError(f"KERASTUNER_ORACLE_PORT must be a port, 1 to 65535. Received: {port_text!r}.")
    runs_chief = "chief" in tuner_id
    return Service(address, int(port_text), runs_chief, f"{'worker' if runs_chief else tuner_id}-", shared=True)


def _check_port(service: Service) -> None:
    """Raises InputError where another process listens: gRPC would share the port and half of the calls be lost."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((service.address, service.port))
            probe.listen(1)
        except OSError as error:
            raise InputError(
                f"The chief must be able to listen at {service.address}:{service.port} (KERASTUNER_ORACLE_IP and "
                f"KERASTUNER_ORACLE_PORT), a port in use by no other process. Received: {error.strerror}."
            ) from error


def _plan(request: Mapping[str, Any], memory: int | None) -> dict[str, Any]:
    """Has another process load the data and decide what all trials share, so that this one stays small."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        asked, answer = folder / "request.json", folder / "plan.json"
        asked.write_text(json.dumps({**request, "default_memory": memory}), "utf-8")
        process = ChildProcess(
            "plan",
            folder / "plan.log",
            folder / "error.json",
            ("plan", str(asked), str(answer)),
            make_environment(),
        )
        process.start()
        try:
            while process.poll() is None:
                time.sleep(POLL_SECONDS / 5)
        finally:
            process.stop()
        if process.poll() != DONE:
            raise_problem(process)
        return json.loads(answer.read_text("utf-8"))


def _await_record(folder: SearchFolder, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The record that a chief elsewhere writes into the shared folder."""
    end = time.monotonic() + seconds
    while True:
        record = folder.read()
        if record is not None:
            folder.check(request)
            return record
        if time.monotonic() > end:
            raise InputError(
                f"Workers need the search folder of their chief. Received: {folder.path}, in which no chief has "
                f"written for {seconds:g} s; start the chief, with the same --search-dir on a shared disk."
            )
        time.sleep(POLL_SECONDS)


def _make_run(
    folder: SearchFolder,
    record: dict[str, Any],
    service: Service,
    workers: int,
    threads: int,
    worker_memory: int,
    chief_timeout: float,
) -> SearchRun:
    logs = folder.path / LOGS_FOLDER
    logs.mkdir(parents=True, exist_ok=True)
    where = {"KERASTUNER_ORACLE_IP": service.address, "KERASTUNER_ORACLE_PORT": str(service.port)}

    def make(name: str, arguments: Iterable[object], **environment: str) -> ChildProcess:
        return ChildProcess(
            name,
            logs / f"{name}.log",
            logs / f"{name}.error.json",
            tuple(map(str, arguments)),
            make_environment(KERASTUNER_TUNER_ID=name, **where, **environment),
        )

    run = SearchRun(folder, record, service, None)
    if service.runs_chief:
        run.chief = make("chief", ("chief", folder.path), CUDA_VISIBLE_DEVICES="")  # the oracle needs no GPU
    for index in range(workers):
        arguments = ("worker", folder.path, index, threads, worker_memory, chief_timeout)
        run.workers.append(make(f"{service.worker_prefix}{index}", arguments, OMP_NUM_THREADS=str(threads)))
    plan = record["plan"]
    log.info(
        "%s: %d training and %d validation images of %s; chief at %s:%d; %d workers of %d threads and %.1f GB each",
        plan["name"],
        plan["train_images"],
        plan["validation_images"],
        "x".join(map(str, plan["input_shape"])),
        service.address,
        service.port,
        workers,
        threads,
        worker_memory / 1e9,
    )
    return run


def _write_results(run: SearchRun) -> None:
    trials = run.folder.read_trials(run.record)
    record = dict(run.record)
    seconds = time.monotonic() - run.started
    record["seconds"] = round(record.get("seconds", 0.0) + seconds, 1)
    record["status"] = "finished" if run.finished else "stopped"
    record["updated"] = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    record["processes"] = {
        "supervisor_bytes": psutil.Process().memory_info().rss,
        **{child.name: {"starts": child.starts, "peak_bytes": child.peak_bytes} for child in run.children},
    }
    search = Search(run.folder.path, record, trials)
    ranking = search.ranking
    record["trials"] = len(trials)
    record["completed"] = len(ranking)
    record["best"] = None
    if ranking:
        best, kept = ranking[0], ranking[0].kept or {}
        record["best"] = {
            "trial": best.trial_id,
            "spec": best.spec.to_dict(),
            "recipe": best.recipe.to_dict(),
            "parameters": best.parameters,
            "multiply_adds": best.multiply_adds,
            "validation": {"accuracy": kept["val_accuracy"], "loss": kept["val_loss"]},
        }
    run.folder.write(record)
    run.folder.write_leaderboard(search)
    if ranking:
        from keras_resnet import plots

        figure = plots.plot_pareto(
            [trial.to_row(None) for trial in ranking], title=f"{record['plan']['name']}: {len(ranking)} trials"
        )
        write_beside(run.folder.path / PARETO_FILE, lambda path: plots.save_figure(figure, path))


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
