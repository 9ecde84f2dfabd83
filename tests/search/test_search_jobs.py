"""Whole searches in processes of their own: what the folder holds, and the training of the winner.

Every search here is of one seed, so what a disturbed one must come to is known: the fixture `finished`.
"""

import csv
import dataclasses
import json
import shutil

import pytest
from helpers import draw_images, run_main, write_folder
from PIL import Image
from search_helpers import (
    MAX_PARAMS,
    PATIENCE,
    WORKER_MEMORY,
    customize,
    find_children,
    find_port,
    read_files,
    search,
    start,
    tell,
    write_planned,
)

from keras_resnet import InputError, Recipe, jobs, load_data
from keras_resnet.jobs.run_record import Winner
from keras_resnet.jobs.searches import job, process
from keras_resnet.jobs.searches.record import read_record
from keras_resnet.jobs.searches.service import VARIABLES
from keras_resnet.search import Budget, Space


def test_a_search_folder_holds_the_search(finished):
    names = {path.name for path in finished.path.iterdir()}
    assert names == {"search.json", "leaderboard.csv", "pareto.png", "trials", "logs"}
    with Image.open(finished.path / "pareto.png") as picture:
        assert picture.format == "PNG"
    assert len(finished.trials) == 3
    for trial in finished.trials:
        assert trial.status == "COMPLETED"
        assert trial.parameters <= MAX_PARAMS
        assert [epoch.number for epoch in trial.history] == [1, 2, 3]
        left = {path.name for path in (finished.path / "trials" / f"trial_{trial.trial_id}").iterdir()}
        assert left == {"trial.json", "progress.json", "checkpoint.weights.h5"}
    assert jobs.load_search(finished.path).trials == finished.trials
    record = read_record(json.loads((finished.path / "search.json").read_text()))
    assert record == finished.record
    assert (record.status, record.trials, record.completed) == ("finished", 3, 3)
    best = finished.best
    assert (record.best.trial_id, record.best.spec, record.best.recipe) == (best.trial_id, best.spec, best.recipe)
    assert record.best.parameters == best.parameters
    assert record.best.val_loss == best.kept.val_loss == min(epoch.val_loss for epoch in best.history)
    assert (record.plan.data.train_images, record.plan.data.validation_images) == (77, 19)
    supervisor, chief, worker = record.processes
    assert [facts.name for facts in record.processes] == ["supervisor", "chief", "worker0"]
    assert 0 < worker.peak_bytes < WORKER_MEMORY
    assert (supervisor.starts, chief.starts, worker.starts) == (1, 1, 1)
    assert find_children() == []


def test_the_leaderboard_is_the_ranking(finished):
    with open(finished.path / "leaderboard.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert [row["trial"] for row in rows] == [trial.trial_id for trial in finished.ranking]
    figures = [(-float(row["val_accuracy"]), float(row["val_loss"])) for row in rows]
    assert figures == sorted(figures)
    assert [row["network"] for row in rows] == [trial.spec.name for trial in finished.ranking]
    assert {row["status"] for row in rows} == {"completed"}


def test_memory_is_a_limit_of_its_own(finished):
    """Without one it is what a worker's memory leaves."""
    assert finished.record.request.budget == Budget(MAX_PARAMS)
    assert finished.record.plan.budget == Budget(MAX_PARAMS, None, WORKER_MEMORY - job.WORKER_BASE_BYTES)


def test_the_same_call_repeats_nothing_also_on_a_search_of_0_1(stored):
    before, seen = read_files(stored / "trials"), []
    found = jobs.load_search(stored)
    again = jobs.search(
        "digits",
        search_dir=stored,
        **{"tuner": "random", "trials": 2, "max_params": 2000, "train_size": 200, "threads": 1},
        **{"space": found.record.request.space, "recipe": {"epochs": 1, "batch_size": 16}},
        on_change=seen.append,
    )
    files = {path: content for path, content in read_files(stored / "trials").items() if path in before}
    assert {path.name for path in files if files[path] != before[path]} <= {"oracle.json"}
    assert again.trials == found.trials
    assert seen == [found.trials]
    assert (again.record.request, again.record.plan) == (found.record.request, found.record.plan)
    assert again.record.status == "finished"
    assert again.record.seconds > found.record.seconds
    assert again.record.best == found.record.best
    assert json.loads((stored / "search.json").read_text())["format"] == 2


def test_more_trials_add_to_it_and_a_worker_above_its_memory_is_replaced_after_them(
    npz, finished, copied, tmp_path, monkeypatch
):
    code = "import keras_resnet.search.tuner as tuner\ntuner.Tuner._exceeds = lambda self, more: True"
    monkeypatch.setenv("PYTHONPATH", customize(tmp_path / "site", code))
    before = read_files(copied / "trials")
    more = search(npz, copied, trials=4)
    assert tell(more)[:3] == tell(finished)
    assert [trial.status for trial in more.trials] == ["COMPLETED"] * 4
    assert more.record.request.trials == 4
    assert more.record.seconds > finished.record.seconds
    for path, content in before.items():
        if path.parent.name in ("trial_0", "trial_1", "trial_2"):
            assert path.read_bytes() == content
    starts = {facts.name: facts.starts for facts in more.record.processes}
    assert starts["worker0"] == 2  # the second finds that nothing is left


# Several machines, and images of which one cannot be decoded


@pytest.fixture(scope="session")
def images_folder(tmp_path_factory):
    """A data set of files, one of them cut off, and that file."""
    images, labels = draw_images(40, 8, 8, 1, 2)
    folder = write_folder(tmp_path_factory.mktemp("images") / "set", images, labels, ["dark", "light"])
    broken = load_data(folder).train.images[3]
    with open(broken, "rb+") as file:
        file.truncate(80)
    return folder, broken


@pytest.fixture(scope="session")
def by_machines(images_folder, tmp_path_factory):
    """A search of Hyperband by a chief and by a machine of workers: its folder, and what both commands printed."""
    folder, port = tmp_path_factory.mktemp("machines") / "s", str(find_port())
    options = ("--tuner", "hyperband", "--trials", "4", "--on-error", "skip", "--normalize", "mnist", "--workers")
    commands = [
        start(
            images_folder[0], folder, *options, workers, **dict(zip(VARIABLES, (name, "127.0.0.1", port), strict=True))
        )
        for name, workers in (("chief", "0"), ("machine-a", "1"))
    ]
    outputs = [command.communicate(timeout=PATIENCE)[0] for command in reversed(commands)]
    assert [command.returncode for command in commands] == [0, 0], outputs
    return folder, outputs


def test_a_chief_and_a_machine_of_workers_finish_a_search(by_machines):
    """Three networks for an epoch, the best of them for two more."""
    folder, outputs = by_machines
    assert all("4 trials completed, 0 failed" in output for output in outputs)
    found = jobs.load_search(folder)
    epochs = [[epoch.number for epoch in trial.history] for trial in found.trials]
    assert epochs == [[1], [1], [1], [2, 3]]
    assert [(trial.first_epoch, trial.epochs) for trial in found.trials] == [(0, 1)] * 3 + [(1, 3)]
    first, promoted = found.trials[:3], found.trials[3]
    best = min(first, key=lambda trial: (-trial.kept.val_accuracy, trial.kept.val_loss))
    assert (promoted.spec, promoted.recipe) == (best.spec, best.recipe)
    assert [facts.name for facts in found.record.processes] == ["supervisor", "chief"]
    assert (folder / "logs" / "machine-a-0.log").exists()


def test_data_is_read_as_asked_in_the_plan_in_workers_and_by_the_training_of_the_winner(
    images_folder, by_machines, tmp_path
):
    folder, broken = images_folder
    found = jobs.load_search(by_machines[0])  # a worker that stopped at the broken image had stopped the search
    plan = found.record.plan
    assert plan.data.skipped_images == (broken,)
    assert plan.data.train_images + plan.data.validation_images == 31
    assert (plan.preprocessing.mean, plan.preprocessing.std) == ((0.1307,), (0.3081,))
    common = {"search_dir": found.path, "recipe": {"max_steps": 1}, "verbose": 0}
    run = jobs.train(folder, run_dir=tmp_path / "taken", **common)
    assert (run.preprocessing.mean, run.record.data.skipped_images) == ((0.1307,), (broken,))
    assert (run.record.source.on_error, run.record.input.normalize) == ("skip", "mnist")
    own = jobs.train(folder, run_dir=tmp_path / "given", normalize="dataset", **common)
    assert own.record.input.normalize == "dataset"
    assert own.preprocessing.mean != run.preprocessing.mean
    with pytest.raises(InputError, match=r"could not be decoded as a PNG or JPEG image"):
        jobs.train(folder, run_dir=tmp_path / "stops", on_error="stop", **common)


# Training the winner


def test_the_winner_is_trained_by_its_recipe(npz, finished, tmp_path):
    run = jobs.train(npz, search_dir=finished.path, run_dir=tmp_path / "r", recipe={"max_steps": 2}, verbose=0)
    best, record = finished.best, run.record
    assert run.spec == best.spec
    assert record.model.parameters == best.parameters
    assert record.search == Winner(str(finished.path), best.trial_id)
    assert best.recipe.validation_split == process.SEARCH_VALIDATION_SPLIT
    changed = {"validation_split": Recipe().validation_split, "max_steps": 2}
    assert record.recipe == dataclasses.replace(best.recipe, **changed)
    assert record.recipe.epochs == 3
    assert jobs.evaluate(run.path, verbose=0).to_dict() == record.test.to_dict()


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


def test_a_search_in_which_every_trial_fails_says_why(npz, finished, tmp_path, monkeypatch, capsys):
    fields = {"blocks": ("basic",), "stages": (2,), "depths": (1,), "widths": (8, 16), "stems": ("cifar",)}
    space = Space(**fields, learning_rates=(1e30,))
    plan = dataclasses.replace(finished.record.plan, space=space.complete((8, 8, 1), 1.0))
    record = dataclasses.replace(finished.record, plan=plan)
    folder = write_planned(tmp_path / "s", record, trials=1, space=space)
    options = ("--tuner", "random", "--trials", "1", "--max-params", "6k", "--epochs", "3", "--batch-size", "16")
    options += ("--search-dir", folder, "--threads", "1")
    for name, values in (*fields.items(), ("learning_rates", (1e30,))):
        options += ("--space", f"{name}={','.join(map(str, values))}")
    status, output, error = run_main(monkeypatch, capsys, "search", npz, *options)
    assert status == 2
    found = jobs.load_search(folder)
    (trial,) = found.trials
    assert (trial.status, found.ranking, found.record.best) == ("FAILED", [], None)
    assert trial.reason.startswith(("loss became ", "val_loss became "))
    assert trial.reason.endswith(" in epoch 1")
    assert f"{trial.spec.name} failed: {trial.reason}\n0 trials completed, 1 failed; in {folder}\n" in output
    with open(folder / "leaderboard.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["rank"], row["status"], row["reason"]) == ("", "failed", trial.reason)
    assert not (folder / "pareto.png").exists()
    message = f"A search must have at least one completed trial. Received: {folder}, where 1 have begun."
    assert error.endswith(f"Error: {message}\n")
    with pytest.raises(InputError) as caught:
        jobs.train(npz, search_dir=folder, run_dir=tmp_path / "r")
    assert str(caught.value) == message
