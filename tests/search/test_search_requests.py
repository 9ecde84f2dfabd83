"""What a search is asked for: what it refuses, before any of its processes where that can be known."""

import dataclasses
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from helpers import draw_images, run_main
from search_helpers import (
    FIXTURE,
    MAX_PARAMS,
    RECIPE,
    SPACE,
    find_children,
    make_request,
    read_files,
    search,
    set_variables,
)

from keras_resnet import InputError, SaveError, jobs
from keras_resnet.folders import LOCK_FILE, FolderLock
from keras_resnet.inputs import DataSource, InputOptions
from keras_resnet.jobs.searches.folder import SEARCH_FILE, SearchFolder
from keras_resnet.jobs.searches.process import SEARCH_VALIDATION_SPLIT, plan
from keras_resnet.jobs.searches.record import SearchPlan, SearchRecord
from keras_resnet.jobs.searches.service import VARIABLES
from keras_resnet.jobs.searches.tasks import DONE, PlanTask
from keras_resnet.search import Budget, parse_space


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
        ({"chief_timeout": 0}, r"chief_timeout must be above 0. Received: 0"),
        ({"max_params": 0}, r"max_params must be None or an integer of at least 1. Received: 0"),
        ({"recipe": {"epoch": 3}}, r"Received: 'epoch'. Did you mean 'epochs'"),
        ({"recipe": {"epochs": 0}}, r"epochs must be an integer of at least 1. Received: 0"),
        ({"train_size": 0}, r"train_size must be None or an integer of at least 1. Received: 0"),
        ({"normalize": "mnits"}, r"normalize must be one of .* Received: 'mnits'. Did you mean 'mnist'"),
        ({"on_error": "go on"}, r"on_error must be one of 'stop', 'skip'. Received: 'go on'"),
    ],
)
def test_bad_arguments_leave_nothing(npz, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        search(npz, tmp_path / "s", **changes)
    assert not list(tmp_path.iterdir())


def test_an_empty_space():
    with pytest.raises(InputError, match=r"needs at least one value for stages. Received: \(\)"):
        parse_space(["stages="])


# The plan


def test_a_plan_that_fails_leaves_nothing(npz, tmp_path):
    message = r"max_params must be at least [\d,]+, which the smallest network of the space takes .*Received: 100"
    with pytest.raises(InputError, match=message):
        search(npz, tmp_path / "s", max_params=100)
    assert not list(tmp_path.iterdir())
    assert find_children() == []


def _plan(request, folder, memory_limit_bytes=None):
    """What the process makes of a request, here in this one."""
    task = PlanTask(
        error_path=str(folder / "error.json"),
        request=request,
        memory_limit_bytes=memory_limit_bytes,
        plan_path=str(folder / "plan.json"),
    )
    assert PlanTask.from_dict(json.loads(json.dumps(task.to_dict()))) == task
    assert plan(task) == DONE
    return SearchPlan.from_dict(json.loads((folder / "plan.json").read_text()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": DataSource("mnits")}, r"Unknown data set. Received: 'mnits'. Did you mean 'mnist'"),
        ({"recipe": {"validation_split": 0.0}}, r"validation_split must be above 0. Received: 0"),
        ({"recipe": {"max_steps": 5}}, r"must have max_steps=None. Received: 5"),
        ({"input": InputOptions(train_size=97)}, r"train-size must be from 1 to 96"),
        ({"budget": Budget(5)}, r"max_params must be at least"),
    ],
)
def test_what_only_the_plan_can_know(npz, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        _plan(make_request(npz, **changes), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_plan_is_of_the_training_images_alone(npz, tmp_path):
    with np.load(npz) as arrays:
        other = dict(arrays)
    other["x_test"], other["y_test"] = draw_images(6, 8, 8, 1, 3, seed=77)
    np.savez(tmp_path / "other.npz", **other)
    found = _plan(make_request(npz), tmp_path, memory_limit_bytes=10**9)
    same = _plan(make_request(tmp_path / "other.npz"), tmp_path, memory_limit_bytes=10**9)
    assert same == found
    assert found.budget == Budget(MAX_PARAMS, None, 10**9)
    assert (found.recipe.epochs, found.recipe.validation_split) == (3, SEARCH_VALIDATION_SPLIT)
    assert (found.space.widths, found.space.learning_rates) == ((8, 16), (0.00125, 0.04))


# The folder


@pytest.fixture
def asked(npz, tmp_path):
    """The folder of a search that was asked for, and planned."""
    (tmp_path / "asked").mkdir()
    folder = SearchFolder(tmp_path / "asked")
    folder.write(SearchRecord(make_request(npz), jobs.load_search(FIXTURE).record.plan))
    return folder.path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_params": 2000}, r"max_params 6000 there, 2000 now"),
        ({"space": dataclasses.replace(SPACE, widths=(8, 24))}, r"space.widths \(8, 16\) there, \(8, 24\) now"),
        ({"recipe": {**RECIPE, "seed": 1}}, r"recipe.seed None there, 1 now"),
        (
            {"normalize": "mnist", "on_error": "skip", "memory_limit_bytes": 10**6},
            r"memory_limit_bytes None there, 1000000 now; on_error 'stop' there, 'skip' now; "
            r"normalize 'dataset' there, 'mnist' now",
        ),
        (
            {"image_size_pixels": (8, 9), "train_size": 90},
            r"image_size_pixels None there, \(8, 9\) now; train_size None",
        ),
        ({"recipe": {"epochs": 4}}, r"recipe.epochs 3 there, 4 now; recipe.batch_size 16 there, None now"),
        (
            {"tuner": "grid", "objective": "val_loss"},
            r"tuner .random. there, .grid. now; objective 'val_accuracy' there",
        ),
    ],
)
def test_another_search_in_the_folder(npz, asked, changes, message):
    before = read_files(asked)
    with pytest.raises(InputError, match=rf"holds another search. It differs in: {message}"):
        search(npz, asked, **changes)
    assert read_files(asked) == before


def test_other_data_in_the_folder(npz, asked):
    with pytest.raises(
        InputError, match=rf"It differs in: data '{npz}' there, 'digits' now. Choose another --search-dir"
    ):
        search("digits", asked)


def test_the_same_request_is_gone_on_with_and_may_have_more_trials(npz, asked):
    record = SearchFolder(asked).check(make_request(npz, trials=7))
    assert record == SearchRecord(make_request(npz), jobs.load_search(FIXTURE).record.plan)


def test_a_folder_of_something_else(npz, tmp_path):
    (tmp_path / "thesis.txt").write_text("no copy")
    with pytest.raises(InputError, match=r"must be new, empty, or hold a search. Received: .*, which holds thesis.txt"):
        search(npz, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError, match=r"must be a folder. Received: .*thesis.txt, which is a file"):
        search(npz, tmp_path / "thesis.txt")
    for text, reason in (
        ('{"format": 0}', "format 0"),
        ('{"format": 2}', "A SearchRecord needs request, plan"),
        ('{"format": 1}', "it has no 'request'"),
        ("{}", "it has no 'format'"),
    ):
        (tmp_path / SEARCH_FILE).write_text(text)
        with pytest.raises(InputError, match=f"search.json is not the record of a search of this version: {reason}"):
            search(npz, tmp_path)


def test_a_search_that_is_running(npz, asked):
    folder = SearchFolder(asked)
    folder.lock()
    before = read_files(asked)
    with pytest.raises(
        InputError, match=rf"is run by process {os.getpid()} on .*If that is gone, remove .*{LOCK_FILE}"
    ):
        search(npz, asked)
    assert read_files(asked) == before
    lock = json.loads((asked / LOCK_FILE).read_text())
    (asked / LOCK_FILE).write_text(json.dumps({**lock, "host": "elsewhere"}))
    with pytest.raises(InputError, match=r"is run by process \d+ on elsewhere"):
        search(npz, asked)
    folder.unlock()
    assert not (asked / LOCK_FILE).exists()


def test_a_lock_whose_process_is_gone_is_taken_over(tmp_path):
    folder = SearchFolder(tmp_path)
    folder.lock()
    own = FolderLock(tmp_path).read()
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    for left in (
        {"process": process.pid},
        {"process_started": own.process_started - 100},
    ):  # the number is another's now
        (tmp_path / LOCK_FILE).write_text(json.dumps(dataclasses.replace(own, **left).to_dict()))
        folder.lock()
        assert dataclasses.replace(FolderLock(tmp_path).read(), started=own.started) == own


@pytest.mark.parametrize("text", ["{", "[]", '{"process": 1, "host": "here", "started": 1.5}'])  # the last is of 0.1
def test_a_lock_that_names_no_process_is_left(tmp_path, text):
    (tmp_path / LOCK_FILE).write_text(text)
    message = rf"The search folder .* cannot be taken: .*{LOCK_FILE} names no process .* remove that file"
    with pytest.raises(SaveError, match=message):
        SearchFolder(tmp_path).lock()
    assert (tmp_path / LOCK_FILE).read_text() == text


# Several machines


@pytest.mark.parametrize("left_out", range(3))
def test_all_three_variables_or_none(npz, tmp_path, monkeypatch, left_out):
    set_variables(monkeypatch, "chief", "127.0.0.1", 8000)
    monkeypatch.delenv(VARIABLES[left_out])
    given = ", ".join(name for name in VARIABLES if name != VARIABLES[left_out])
    with pytest.raises(InputError, match=rf"needs all of {', '.join(VARIABLES)}. Received: only {given}\."):
        search(npz, tmp_path / "s")


@pytest.mark.parametrize("port", ["0", "65536", "-1", "eighty", "80.5"])
def test_a_port_that_is_none(npz, tmp_path, monkeypatch, port):
    set_variables(monkeypatch, "chief", "127.0.0.1", port)
    with pytest.raises(InputError, match=rf"ORACLE_PORT must be a port, 1 to 65535. Received: '{port}'"):
        search(npz, tmp_path / "s")


def test_a_port_in_use(npz, tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        set_variables(monkeypatch, "chief", "127.0.0.1", port)
        with pytest.raises(InputError, match=rf"listen at 127.0.0.1:{port} .*in use by no other process. Received: "):
            search(npz, tmp_path / "s")
    assert not (tmp_path / "s").exists()


# The command


def test_the_command_hands_on_how_data_is_read(npz, monkeypatch, capsys):
    asked = {}

    def refuse(data, **options):
        asked.update(options)
        raise InputError("far enough")

    monkeypatch.setattr(jobs, "search", refuse)
    options = ("--memory-limit", "2M", "--on-error", "skip", "--normalize", "mnist", "--data-dir", "d")
    assert run_main(monkeypatch, capsys, "search", npz, *options)[0] == 2
    taken = {name: asked.pop(name) for name in ("memory_limit_bytes", "on_error", "normalize", "data_dir")}
    assert taken == {"memory_limit_bytes": 2_000_000, "on_error": "skip", "normalize": "mnist", "data_dir": "d"}
    asked.clear()
    run_main(monkeypatch, capsys, "search", npz)
    assert not {"memory_limit_bytes", "on_error", "normalize"} & set(asked)
