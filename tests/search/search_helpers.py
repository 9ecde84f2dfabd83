"""What tests of whole searches share: the smallest search, how its processes are disturbed and compared."""

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import h5py
import psutil

from keras_resnet import jobs
from keras_resnet.inputs import DataSource, InputOptions
from keras_resnet.jobs.searches.folder import SearchFolder
from keras_resnet.jobs.searches.record import SearchRecord, SearchRequest
from keras_resnet.jobs.searches.service import VARIABLES
from keras_resnet.search import Budget, Progress, Space

FIXTURE = Path(__file__).parents[1] / "fixtures" / "search_0_1"  # two trials on digits, as 0.1 left them
# Not below 8 filters: with one thread, on a processor without AVX-512, oneDNN writes past its memory in the gradient of a
# 1x1 convolution of stride 2 with fewer input channels.
SPACE = Space(blocks=("basic",), stages=(2,), depths=(1,), widths=(8, 16), stems=("cifar",))
RECIPE = {"epochs": 3, "batch_size": 16}
MAX_PARAMS = 6000
WORKER_MEMORY = 3_000_000_000
OPTIONS = {
    "tuner": "random",
    "trials": 3,
    "max_params": MAX_PARAMS,
    "space": SPACE,
    "threads": 1,  # sums in another order would be other sums
    "worker_memory": WORKER_MEMORY,
    "recipe": RECIPE,
}
COMMAND = (  # the same search
    *("--tuner", "random", "--trials", "3", "--max-params", "6k", "--threads", "1", "--worker-memory", "3G"),
    *("--space", "blocks=basic", "--space", "stages=2", "--space", "depths=1", "--space", "widths=8,16"),
    *("--space", "stems=cifar", "--epochs", "3", "--batch-size", "16"),
)
PATIENCE = 600  # seconds; what is waited for takes 5 to 20, on a machine with nothing else to do


def search(data, folder, **changes):
    return jobs.search(data, search_dir=folder, **{**OPTIONS, **changes})


def make_request(data, **changes):
    """What `search` of the same data asks for."""
    request = SearchRequest(
        source=DataSource(str(data)).absolute(),
        input=InputOptions(),
        tuner="random",
        objective="val_accuracy",
        trials=3,
        budget=Budget(MAX_PARAMS),
        space=SPACE,
        recipe=RECIPE,
    )
    return dataclasses.replace(request, **changes)


def write_planned(folder, record, **changes):
    """Writes a search as it is before its first trial, with changes of what was asked for."""
    Path(folder).mkdir()
    SearchFolder(folder).write(SearchRecord(dataclasses.replace(record.request, **changes), record.plan))
    return Path(folder)


def start(data, folder, *options, **environment):
    """Starts the same search as a command."""
    command = [sys.executable, "-m", "keras_resnet.cli", "search", str(data), *COMMAND, "--search-dir", str(folder)]
    return subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def tell(search):
    """All that a search has come to, to the last bit."""
    results = []
    for trial in search.trials:
        with h5py.File(SearchFolder(search.path).trial_path(trial.trial_id) / "checkpoint.weights.h5") as file:
            weights = _read_arrays(file["layers"])
        assert weights
        results.append((trial.trial_id, trial.status, trial.spec, trial.recipe, trial.history, weights))
    return results


def _read_arrays(group):
    arrays = {}
    group.visititems(
        lambda name, item: arrays.update({name: item[()].tobytes()}) if isinstance(item, h5py.Dataset) else None
    )
    return arrays


def read_files(folder):
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def count_epochs(folder):
    return sum(len(Progress(path).epochs) for path in Path(folder).glob("trials/trial_*"))


def wait_until(condition, process=None):
    """Waits for a state that stays once it is reached; fails where `process` ends before."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def find_children(process=None):
    """The processes of the search that a process runs, this one by default."""
    with contextlib.suppress(psutil.Error):
        return [
            child
            for child in psutil.Process(process.pid if process else None).children()
            if "keras_resnet.jobs.searches.process" in _get_command(child)
        ]
    return []


def _get_command(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def any_runs(processes):
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)
    return any_runs([process for process in processes if process.is_running()])


def find_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def set_variables(monkeypatch, *values):
    for name, value in zip(VARIABLES, values, strict=True):
        monkeypatch.setenv(name, str(value))


def customize(folder, code):
    """Returns the PYTHONPATH with which every worker runs `code` when it starts."""
    folder.mkdir()
    lines = ["import sys", "if 'worker' in sys.orig_argv:", *(f"    {line}" for line in code.splitlines())]
    (folder / "sitecustomize.py").write_text("\n".join(lines))
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
