"""Whole searches in processes of their own: what the folder holds, what a death leaves, what bad input gets.

Every search here is of one seed, so what a disturbed one must come to is known: the fixture `finished`.
"""

import contextlib
import csv
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
from helpers import draw_images, run_main, write_folder
from PIL import Image

from keras_resnet import InputError, Recipe, SaveError, SearchFailed, jobs, load_data
from keras_resnet.jobs import search_job, search_process
from keras_resnet.jobs.search_folder import LOCK_FILE, SEARCH_FILE, SearchFolder
from keras_resnet.search import Progress, Space, parse_space

SPACE = Space(blocks=("basic",), stages=(2,), depths=(1,), widths=(4, 8), stems=("cifar",))
RECIPE = {"epochs": 3, "batch_size": 16}
MAX_PARAMS = 1500
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
    *("--tuner", "random", "--trials", "3", "--max-params", "1.5k", "--threads", "1", "--worker-memory", "3G"),
    *("--space", "blocks=basic", "--space", "stages=2", "--space", "depths=1", "--space", "widths=4,8"),
    *("--space", "stems=cifar", "--epochs", "3", "--batch-size", "16"),
)
PATIENCE = 300  # seconds; what is waited for takes 5 to 20
VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


def _search(data, folder, **changes):
    return jobs.search(data, search_dir=folder, **{**OPTIONS, **changes})


@pytest.fixture(scope="session")
def alongside(npz, tmp_path_factory):
    """Two searches of one trial, by name: (folder, process). They run beside the first of the others."""
    folder = tmp_path_factory.mktemp("alongside")
    with np.load(npz) as arrays:
        other = dict(arrays)
    other["x_test"], other["y_test"] = draw_images(6, 8, 8, 1, 3, seed=77)
    np.savez(folder / "other.npz", **other)
    searches = {
        "other test split": (folder / "a", _start(folder / "other.npz", folder / "a", "--trials", "1")),
        "diverging": (folder / "b", _start(npz, folder / "b", "--trials", "1", "--space", "learning_rates=1e30")),
    }
    yield searches
    for _, process in searches.values():
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="session")
def finished(npz, alongside, tmp_path_factory):
    """A search of three trials by one worker that nothing disturbed."""
    return _search(npz, tmp_path_factory.mktemp("searches") / "finished")


@pytest.fixture
def planned(finished, tmp_path):
    """The folder of the same search before its first trial."""
    (tmp_path / "planned").mkdir()
    shutil.copy(finished.path / SEARCH_FILE, tmp_path / "planned")
    return tmp_path / "planned"


def _limit(planned, trials):
    record = json.loads((planned / SEARCH_FILE).read_text())
    record["request"]["trials"] = trials
    (planned / SEARCH_FILE).write_text(json.dumps(record))


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of its folder."""
    return Path(shutil.copytree(finished.path, tmp_path / "copied"))


def _tell(search):
    """All that a search has come to, to the last bit."""
    results = []
    for trial in search.trials:
        with h5py.File(search.path / "trials" / f"trial_{trial.trial_id}" / "checkpoint.weights.h5") as file:
            weights = _read_arrays(file["layers"])
        assert weights
        results.append((trial.trial_id, trial.status, trial.spec, trial.recipe, trial.records, weights))
    return results


def _read_arrays(group):
    arrays = {}
    group.visititems(
        lambda name, item: arrays.update({name: item[()].tobytes()}) if isinstance(item, h5py.Dataset) else None
    )
    return arrays


def _read_files(folder):
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def _count_epochs(folder):
    return sum(len(Progress(path).records) for path in Path(folder).glob("trials/trial_*"))


def _wait_until(condition, process=None, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


def _find_children(process=None):
    """The processes of the search that a process runs, this one by default."""
    with contextlib.suppress(psutil.Error):
        return [
            child
            for child in psutil.Process(process.pid if process else None).children()
            if "keras_resnet.jobs.search_process" in _get_command(child)
        ]
    return []


def _get_command(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _any_runs(processes):
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)
    return _any_runs([process for process in processes if process.is_running()])


def _start(npz, folder, *options, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "keras_resnet.cli", "search", str(npz), *COMMAND, "--search-dir", str(folder), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def _find_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _set_variables(monkeypatch, *values):
    for name, value in zip(VARIABLES, values, strict=True):
        monkeypatch.setenv(name, str(value))


def _customize(monkeypatch, folder, code):
    """Has every worker run `code` when it starts."""
    folder.mkdir()
    lines = ["import sys", "if 'worker' in sys.orig_argv:", *(f"    {line}" for line in code.splitlines())]
    (folder / "sitecustomize.py").write_text("\n".join(lines))
    monkeypatch.setenv("PYTHONPATH", str(folder))


# What a search leaves


def test_a_search_folder_holds_the_search(finished):
    names = {path.name for path in finished.path.iterdir()}
    assert names == {"search.json", "leaderboard.csv", "pareto.png", "trials", "logs"}
    with Image.open(finished.path / "pareto.png") as picture:
        assert picture.format == "PNG"
    assert len(finished.trials) == 3
    for trial in finished.trials:
        assert trial.status == "COMPLETED"
        assert trial.parameters <= MAX_PARAMS
        assert [record["epoch"] for record in trial.records] == [1, 2, 3]
        left = {path.name for path in (finished.path / "trials" / f"trial_{trial.trial_id}").iterdir()}
        assert left == {"trial.json", "progress.json", "checkpoint.weights.h5"}
    assert jobs.load_search(finished.path).trials == finished.trials
    record = json.loads((finished.path / "search.json").read_text())
    assert record == finished.record
    assert (record["status"], record["trials"], record["completed"]) == ("finished", 3, 3)
    assert record["best"]["trial"] == finished.best.trial_id
    assert record["best"]["parameters"] == finished.best.parameters
    assert record["best"]["validation"]["loss"] == min(r["val_loss"] for r in finished.best.records)
    assert (record["plan"]["train_images"], record["plan"]["validation_images"]) == (77, 19)
    assert 0 < record["processes"]["worker0"]["peak_bytes"] < WORKER_MEMORY
    assert record["processes"]["worker0"]["starts"] == record["processes"]["chief"]["starts"] == 1
    assert _find_children() == []


def test_the_leaderboard_is_the_ranking(finished):
    with open(finished.path / "leaderboard.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert [row["trial"] for row in rows] == [trial.trial_id for trial in finished.ranking]
    figures = [(-float(row["val_accuracy"]), float(row["val_loss"])) for row in rows]
    assert figures == sorted(figures)
    assert [row["network"] for row in rows] == [trial.spec.name for trial in finished.ranking]
    assert {row["status"] for row in rows} == {"completed"}


def test_ties_go_by_the_loss_and_trials_without_an_end_have_no_rank(finished):
    figures = [(0.5, 0.3), (0.75, 0.9), (0.75, 0.8), (0.9, 0.1)]
    trials = tuple(
        dataclasses.replace(
            finished.trials[0],
            trial_id=str(index),
            status="RUNNING" if index == 3 else "COMPLETED",
            records=({"epoch": 1, "val_accuracy": accuracy, "val_loss": loss},),
        )
        for index, (accuracy, loss) in enumerate(figures)
    )
    for objective, order in (("val_accuracy", "210"), ("val_loss", "021")):
        record = {"request": {"objective": objective}}
        search = dataclasses.replace(finished, record=record, trials=trials)
        assert "".join(trial.trial_id for trial in search.ranking) == order


def test_trials_are_in_the_order_of_their_beginning_whatever_the_digits_of_their_names(copied):
    """A search of nine trials that is then given more writes trial_09 beside trial_0."""
    shutil.copytree(copied / "trials" / "trial_2", copied / "trials" / "trial_03")
    file = copied / "trials" / "trial_03" / "trial.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "trial_id": "03"}))
    assert [trial.trial_id for trial in jobs.load_search(copied).trials] == ["0", "1", "2", "03"]


def test_the_same_call_repeats_nothing_and_more_trials_add_to_it(npz, finished, copied):
    before = _read_files(copied / "trials")
    seen = []
    again = _search(npz, copied, on_change=seen.append)
    trials = {path: content for path, content in _read_files(copied / "trials").items() if path in before}
    assert {path.name for path in trials if trials[path] != before[path]} <= {"oracle.json"}
    assert _tell(again) == _tell(finished)
    assert seen == [finished.trials]
    more = _search(npz, copied, trials=4)
    assert _tell(more)[:3] == _tell(finished)
    assert [trial.status for trial in more.trials] == ["COMPLETED"] * 4
    assert more.record["request"]["trials"] == 4
    assert more.record["seconds"] > finished.record["seconds"]
    for path, content in before.items():
        if path.parent.name in ("trial_0", "trial_1", "trial_2"):
            assert path.read_bytes() == content


def test_the_test_split_is_not_looked_at(finished, alongside):
    folder, process = alongside["other test split"]
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0, output
    assert _tell(jobs.load_search(folder)) == _tell(finished)[:1]


# Deaths


@pytest.mark.parametrize(("seed", "trials"), [(0, 3), (1, 2), (2, 2)])
def test_workers_that_are_killed_lose_no_trial_and_change_no_result(npz, finished, planned, seed, trials):
    """Two workers, each killed once: with its first trial, after a number of epochs and seconds that the seed draws."""
    _limit(planned, trials)
    draw = random.Random(seed)
    moments = {f"worker{index}": (draw.randrange(3), draw.uniform(0, 1)) for index in range(2)}
    killed, over = {}, threading.Event()

    def kill():
        held = {}  # worker -> its first trial
        while moments and not over.wait(0.005):
            with contextlib.suppress(FileNotFoundError):
                state = json.loads((planned / "trials" / "oracle.json").read_text())
                held = {**state["ongoing_trials"], **held}
            for name, (epochs, seconds) in list(moments.items()):
                if name in held and len(Progress(planned / "trials" / f"trial_{held[name]}").records) >= epochs:
                    if epochs == 0 and over.wait(seconds):  # any moment within the first epoch
                        return
                    for child in _find_children():
                        if any(part.endswith(f"{name}.error.json") for part in _get_command(child)):
                            child.kill()
                            killed[name] = moments.pop(name)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        found = _search(npz, planned, workers=2, trials=trials)
    finally:
        over.set()
        killer.join()
    assert set(killed) == {"worker0", "worker1"}
    starts = {name: found.record["processes"][name]["starts"] for name in killed}
    assert starts == {"worker0": 2, "worker1": 2}
    assert _tell(found) == _tell(finished)[:trials]


def test_a_worker_above_its_memory_is_replaced_between_trials(npz, finished, planned, tmp_path, monkeypatch):
    code = "import keras_resnet.search.tuner as tuner\ntuner.Tuner._exceeds = lambda self, more: True"
    _customize(monkeypatch, tmp_path / "site", code)
    _limit(planned, 1)
    found = _search(npz, planned, trials=1)
    assert found.record["processes"]["worker0"]["starts"] == 2  # the second finds that nothing is left
    assert _tell(found) == _tell(finished)[:1]


def test_a_search_goes_on_after_ctrl_c_and_after_a_kill(npz, finished, planned):
    process = _start(npz, planned)
    _wait_until(lambda: _count_epochs(planned) >= 1, process)
    children = _find_children(process)
    assert len(children) == 2
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 130
    assert output.endswith("Stopped.\n")
    assert "Traceback" not in output
    assert not _any_runs(children)
    assert not (planned / LOCK_FILE).exists()
    stopped = jobs.load_search(planned)
    assert stopped.record["status"] == "stopped"

    process = _start(npz, planned)
    _wait_until(lambda: len(jobs.load_search(planned).ranking) > len(stopped.ranking), process)
    children = _find_children(process)
    assert len(children) == 2
    process.kill()
    process.communicate()
    _wait_until(lambda: not _any_runs(children), seconds=15)
    assert (planned / LOCK_FILE).exists()
    done = [trial for trial in jobs.load_search(planned).trials if trial.status == "COMPLETED"]
    before = {trial.trial_id: _read_files(planned / "trials" / f"trial_{trial.trial_id}") for trial in done}

    assert _tell(_search(npz, planned)) == _tell(finished)
    for files in before.values():
        assert all(path.read_bytes() == content for path, content in files.items() if "epoch_" not in path.name)
    assert not (planned / LOCK_FILE).exists()


def test_a_bug_stops_the_search_with_its_traceback(npz, finished, planned, tmp_path, monkeypatch):
    code = (
        "import keras_resnet.training as training\n"
        "def fit(*arguments, **options): raise ValueError('a bug of ours')\n"
        "training.fit = fit"
    )
    _limit(planned, 1)
    with monkeypatch.context() as patched:
        _customize(patched, tmp_path / "site", code)
        with pytest.raises(SearchFailed, match=r"(?s)^worker0: ValueError: a bug of ours\nTraceback .*sitecustomize"):
            _search(npz, planned, trials=1)
    assert _find_children() == []
    assert "a bug of ours" in (planned / "trials" / "trial_0" / "error.txt").read_text()
    assert not (planned / LOCK_FILE).exists()
    assert _tell(_search(npz, planned, trials=1)) == _tell(finished)[:1]


# Several machines


def test_a_chief_and_a_machine_of_workers_finish_a_search(npz, tmp_path):
    """Of Hyperband: three networks for an epoch, the best of them for two more."""
    folder, port = tmp_path / "s", str(_find_port())
    options = ("--tuner", "hyperband", "--trials", "4", "--workers")
    chief, machine = (
        _start(npz, folder, *options, workers, **dict(zip(VARIABLES, (name, "127.0.0.1", port), strict=True)))
        for name, workers in (("chief", "0"), ("machine-a", "1"))
    )
    outputs = [process.communicate(timeout=PATIENCE)[0] for process in (machine, chief)]
    assert (chief.returncode, machine.returncode) == (0, 0), outputs
    assert all("4 trials completed, 0 failed" in output for output in outputs)
    found = jobs.load_search(folder)
    epochs = [[record["epoch"] for record in trial.records] for trial in found.trials]
    assert epochs == [[1], [1], [1], [2, 3]]
    assert [(trial.first_epoch, trial.epochs) for trial in found.trials] == [(0, 1)] * 3 + [(1, 3)]
    first, promoted = found.trials[:3], found.trials[3]
    best = min(first, key=lambda trial: (-trial.kept["val_accuracy"], trial.kept["val_loss"]))
    assert (promoted.spec, promoted.recipe) == (best.spec, best.recipe)
    assert set(found.record["processes"]) == {"supervisor_bytes", "chief"}
    assert (folder / "logs" / "machine-a-0.log").exists()


def test_a_chief_that_does_not_answer(npz, planned, tmp_path, monkeypatch):
    port = _find_port()
    _set_variables(monkeypatch, "machine-a", "127.0.0.1", port)
    with pytest.raises(InputError, match=r"Workers need the search folder of their chief. .* no chief has written"):
        _search(npz, tmp_path / "s", chief_timeout=0.1)
    assert not (tmp_path / "s").exists()
    message = rf"The chief at 127.0.0.1:{port} did not answer CreateTrial within 2 s"
    with pytest.raises(InputError, match=message):
        _search(npz, planned, chief_timeout=2)
    assert _find_children() == []
    with pytest.raises(InputError, match=r"workers must be an integer of at least 1. Received: 0"):
        _search(npz, planned, workers=0)
    with pytest.raises(InputError, match=r"holds another search. It differs in: tuner 'random' there, 'grid' now"):
        _search(npz, planned, tuner="grid")


@pytest.mark.parametrize("left_out", range(3))
def test_all_three_variables_or_none(npz, tmp_path, monkeypatch, left_out):
    _set_variables(monkeypatch, "chief", "127.0.0.1", 8000)
    monkeypatch.delenv(VARIABLES[left_out])
    given = ", ".join(name for name in VARIABLES if name != VARIABLES[left_out])
    with pytest.raises(InputError, match=rf"needs all of {', '.join(VARIABLES)}. Received: only {given}\."):
        _search(npz, tmp_path / "s")


@pytest.mark.parametrize("port", ["0", "65536", "-1", "eighty", "80.5"])
def test_a_port_that_is_none(npz, tmp_path, monkeypatch, port):
    _set_variables(monkeypatch, "chief", "127.0.0.1", port)
    with pytest.raises(InputError, match=rf"ORACLE_PORT must be a port, 1 to 65535. Received: '{port}'"):
        _search(npz, tmp_path / "s")


def test_a_port_in_use(npz, tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        _set_variables(monkeypatch, "chief", "127.0.0.1", port)
        with pytest.raises(InputError, match=rf"listen at 127.0.0.1:{port} .*in use by no other process. Received: "):
            _search(npz, tmp_path / "s")
    assert not (tmp_path / "s").exists()


# Training the winner


def test_the_winner_is_trained_by_its_recipe(npz, finished, tmp_path):
    run = jobs.train(npz, search_dir=finished.path, run_dir=tmp_path / "r", recipe={"max_steps": 2}, verbose=0)
    best, record = finished.best, run.record
    assert run.spec == best.spec
    assert record["model"]["parameters"] == best.parameters
    assert record["search"] == {"path": str(finished.path), "trial": best.trial_id}
    assert best.recipe.validation_split == search_process.SEARCH_VALIDATION_SPLIT
    changed = {"validation_split": Recipe().validation_split, "max_steps": 2}
    assert record["recipe"] == {**best.recipe.to_dict(), **changed}
    assert record["recipe"]["epochs"] == 3
    assert jobs.evaluate(run.path, verbose=0).to_dict() == record["test"]


def test_a_winner_that_cannot_be_trained(npz, finished, tmp_path, copied):
    def refuses(message, data=npz, search_dir=finished.path, **options):
        with pytest.raises(InputError, match=message):
            jobs.train(data, search_dir=search_dir, run_dir=tmp_path / "r", verbose=0, **options)
        assert not (tmp_path / "r").exists()

    refuses(r"model must be left out. Received: 'resnet8_cifar'", model="resnet8_cifar")
    refuses(rf"The winner of .*finished is for {npz}. Received: digits. For other data pass its spec", data="digits")
    refuses(r"was found at \(8, 8\) pixels. Received: \(9, 9\)", image_size_pixels=(9, 9))
    refuses(
        r"that 'keras-resnet search' wrote. Received: .*nothing, without search.json", search_dir=tmp_path / "nothing"
    )
    shutil.rmtree(copied / "trials")
    refuses(r"at least one completed trial. Received: .*copied, where 0 have begun", search_dir=copied)


def test_a_search_in_which_every_trial_fails_says_why(npz, alongside, tmp_path):
    folder, process = alongside["diverging"]
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 2
    found = jobs.load_search(folder)
    (trial,) = found.trials
    assert (trial.status, found.ranking, found.record["best"]) == ("FAILED", [], None)
    assert trial.reason.startswith(("loss became ", "val_loss became "))
    assert trial.reason.endswith(" in epoch 1")
    assert f"{trial.spec.name} failed: {trial.reason}\n0 trials completed, 1 failed; in {folder}\n" in output
    with open(folder / "leaderboard.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["rank"], row["status"], row["reason"]) == ("", "failed", trial.reason)
    assert not (folder / "pareto.png").exists()
    message = r"at least one completed trial. Received: .*, where 1 have begun"
    assert re.search(message, output)
    with pytest.raises(InputError, match=message):
        jobs.train(npz, search_dir=folder, run_dir=tmp_path / "r")


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuner": "hyperbnd"}, r"tuner must be one of .* Received: 'hyperbnd'. Did you mean 'hyperband'"),
        ({"objective": "accuracy"}, r"objective must be one of 'val_accuracy', 'val_loss'. Received: 'accuracy'"),
        ({"workers": 0}, r"workers must be an integer of at least 1. Received: 0"),
        ({"trials": 0}, r"trials must be an integer of at least 1. Received: 0"),
        ({"threads": 0}, r"threads must be None or an integer of at least 1. Received: 0"),
        ({"worker_memory": 0.5}, r"worker_memory must be None or an integer of at least 1. Received: 0.5"),
        (
            {"worker_memory": 1_000_000_000, "workers": 2},
            r"must be above 1,200,000,000 bytes, .*Received: 1,000,000,000 for each of 2 workers",
        ),
        ({"max_params": 0}, r"max_params must be None or an integer of at least 1. Received: 0"),
        ({"recipe": {"epoch": 3}}, r"Received: 'epoch'. Did you mean 'epochs'"),
        ({"recipe": {"epochs": 0}}, r"epochs must be an integer of at least 1. Received: 0"),
    ],
)
def test_bad_arguments_leave_nothing(npz, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        _search(npz, tmp_path / "s", **changes)
    assert not list(tmp_path.iterdir())


def test_an_empty_space():
    with pytest.raises(InputError, match=r"needs at least one value for stages. Received: \(\)"):
        parse_space(["stages="])


def test_a_plan_that_fails_leaves_nothing(npz, tmp_path):
    message = r"max_params must be at least \d+, which the smallest network of the space takes .*Received: 100"
    with pytest.raises(InputError, match=message):
        _search(npz, tmp_path / "s", max_params=100)
    assert not list(tmp_path.iterdir())
    assert _find_children() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "mnits"}, r"Unknown data set. Received: 'mnits'. Did you mean 'mnist'"),
        ({"recipe": {"validation_split": 0.0}}, r"validation_split must be above 0. Received: 0"),
        ({"recipe": {"max_steps": 5}}, r"must have max_steps=None. Received: 5"),
        ({"train_size": 97}, r"train-size must be from 1 to 96"),
        ({"budget": {"max_params": 5, "max_macs": None, "max_memory": None}}, r"max_params must be at least"),
    ],
)
def test_what_only_the_plan_can_know(finished, tmp_path, changes, message):
    request = {**finished.record["request"], **changes, "default_memory": None}
    (tmp_path / "request.json").write_text(json.dumps(request))
    with pytest.raises(InputError, match=message):
        search_process.plan(str(tmp_path / "request.json"), str(tmp_path / "plan.json"))
    assert not (tmp_path / "plan.json").exists()


def test_memory_is_a_limit_of_its_own(finished):
    """Without one it is what a worker's memory leaves."""
    assert finished.record["request"]["budget"]["max_memory"] is None
    assert finished.record["plan"]["budget"] == {
        "max_params": MAX_PARAMS,
        "max_macs": None,
        "max_memory": WORKER_MEMORY - search_job.WORKER_BASE_BYTES,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_params": 2000}, r"budget.max_params 1500 there, 2000 now"),
        ({"space": dataclasses.replace(SPACE, widths=(4, 16))}, r"space.widths \[4, 8\] there, \[4, 16\] now"),
        ({"recipe": {**RECIPE, "seed": 1}}, r"recipe.seed None there, 1 now"),
        (
            {"normalize": "mnist", "on_error": "skip", "memory_limit_bytes": 10**6},
            r"memory_limit_bytes None there, 1000000 now; on_error 'stop' there, 'skip' now; "
            r"normalize 'dataset' there, 'mnist' now",
        ),
        ({"recipe": {"epochs": 4}}, r"recipe.epochs 3 there, 4 now; recipe.batch_size 16 there, None now"),
        (
            {"tuner": "grid", "objective": "val_loss"},
            r"tuner .random. there, .grid. now; objective 'val_accuracy' there",
        ),
    ],
)
def test_another_search_in_the_folder(npz, finished, changes, message):
    before = _read_files(finished.path)
    with pytest.raises(InputError, match=rf"holds another search. It differs in: {message}"):
        _search(npz, finished.path, **changes)
    assert _read_files(finished.path) == before


def test_a_search_of_before_there_were_data_options_is_gone_on_with(finished, copied):
    record = json.loads((copied / SEARCH_FILE).read_text())
    asked = dict(record["request"])
    for name in ("memory_limit_bytes", "on_error", "normalize"):
        del record["request"][name]
    (copied / SEARCH_FILE).write_text(json.dumps(record))
    found = SearchFolder(copied).check(asked)
    assert found is not None
    assert found["request"] == asked
    with pytest.raises(InputError, match=r"It differs in: normalize 'dataset' there, 'imagenet' now. Choose"):
        SearchFolder(copied).check({**asked, "normalize": "imagenet"})


def test_data_is_read_as_asked_in_the_plan_in_workers_and_by_the_training_of_the_winner(tmp_path):
    images, labels = draw_images(40, 8, 8, 1, 2)
    folder = write_folder(tmp_path / "set", images, labels, ["dark", "light"])
    broken = load_data(folder).train.images[3]
    Path(broken).write_bytes(Path(broken).read_bytes()[:80])
    found = _search(
        folder, tmp_path / "s", trials=1, recipe={**RECIPE, "epochs": 1}, on_error="skip", normalize="mnist"
    )
    assert [trial.status for trial in found.trials] == ["COMPLETED"]
    plan = found.record["plan"]
    assert plan["skipped_images"] == [broken]
    assert plan["train_images"] + plan["validation_images"] == 31
    assert (plan["preprocessing"]["mean"], plan["preprocessing"]["std"]) == ([0.1307], [0.3081])
    common = {"search_dir": found.path, "recipe": {"max_steps": 1}, "verbose": 0}
    run = jobs.train(folder, run_dir=tmp_path / "taken", **common)
    assert (run.preprocessing.mean, run.record["data"]["skipped_images"]) == ((0.1307,), [broken])
    assert {name: run.record["data"][name] for name in ("on_error", "normalize")} == {
        "on_error": "skip",
        "normalize": "mnist",
    }
    own = jobs.train(folder, run_dir=tmp_path / "given", normalize="dataset", **common)
    assert own.record["data"]["normalize"] == "dataset"
    assert own.preprocessing.mean != run.preprocessing.mean
    with pytest.raises(InputError, match=r"could not be decoded as a PNG or JPEG image"):
        jobs.train(folder, run_dir=tmp_path / "stops", on_error="stop", **common)


def test_the_command_hands_on_how_data_is_read(npz, tmp_path, monkeypatch, capsys):
    asked = {}

    def search(data, **options):
        asked.update(options)
        raise InputError("far enough")

    monkeypatch.setattr(jobs, "search", search)
    options = ("--memory-limit", "2M", "--on-error", "skip", "--normalize", "mnist", "--data-dir", "d")
    assert run_main(monkeypatch, capsys, "search", npz, *options)[0] == 2
    taken = {name: asked.pop(name) for name in ("memory_limit_bytes", "on_error", "normalize", "data_dir")}
    assert taken == {"memory_limit_bytes": 2_000_000, "on_error": "skip", "normalize": "mnist", "data_dir": "d"}
    asked.clear()
    run_main(monkeypatch, capsys, "search", npz)
    assert not {"memory_limit_bytes", "on_error", "normalize"} & set(asked)


def test_a_folder_of_something_else(npz, tmp_path):
    (tmp_path / "thesis.txt").write_text("no copy")
    with pytest.raises(InputError, match=r"must be new, empty, or hold a search. Received: .*, which holds thesis.txt"):
        _search(npz, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError, match=r"must be a folder. Received: .*thesis.txt, which is a file"):
        _search(npz, tmp_path / "thesis.txt")
    (tmp_path / SEARCH_FILE).write_text('{"format": 0}')
    with pytest.raises(InputError, match=r"search.json is not the record of a search of this version: format 0"):
        _search(npz, tmp_path)


def test_a_search_that_is_running(npz, copied):
    folder = SearchFolder(copied)
    folder.lock()
    before = _read_files(copied)
    with pytest.raises(
        InputError, match=rf"is run by process {os.getpid()} on .*If that is gone, remove .*{LOCK_FILE}"
    ):
        _search(npz, copied)
    assert _read_files(copied) == before
    lock = json.loads((copied / LOCK_FILE).read_text())
    (copied / LOCK_FILE).write_text(json.dumps({**lock, "host": "elsewhere"}))
    with pytest.raises(InputError, match=r"is run by process \d+ on elsewhere"):
        _search(npz, copied)


def test_a_lock_whose_process_is_gone_is_taken_over(tmp_path):
    folder = SearchFolder(tmp_path)
    folder.lock()
    lock = json.loads((tmp_path / LOCK_FILE).read_text())
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    for left in ({"process": process.pid}, {"started": lock["started"] - 100}):  # the number is another's now
        (tmp_path / LOCK_FILE).write_text(json.dumps({**lock, **left}))
        folder.lock()
        assert json.loads((tmp_path / LOCK_FILE).read_text()) == lock
    (tmp_path / LOCK_FILE).write_text("{")
    with pytest.raises(SaveError, match=r"The search folder .* cannot be taken: "):
        folder.lock()
