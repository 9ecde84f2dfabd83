"""search.json as records, of this version and of 0.1, and what is told of trials; no process is started."""

import dataclasses
import json
import shutil

import pytest
from search_helpers import FIXTURE, make_request

from keras_resnet import InputError, Recipe, jobs
from keras_resnet.environment import Machine
from keras_resnet.epochs import Epoch
from keras_resnet.inputs import DataSource, InputOptions, Preprocessing
from keras_resnet.jobs.searches.folder import SEARCH_FILE, SearchFolder
from keras_resnet.jobs.searches.process import _ROLES
from keras_resnet.jobs.searches.record import ProcessFacts, SearchRecord, SearchRequest, read_record
from keras_resnet.jobs.searches.tasks import ChiefTask, WorkerTask
from keras_resnet.jobs.stored import DataFacts
from keras_resnet.search import Budget, Space


def test_a_search_of_0_1(stored):
    found = jobs.load_search(stored)
    record = found.record
    assert record.request == SearchRequest(
        source=DataSource("digits"),
        input=InputOptions(train_size=200),
        tuner="random",
        objective="val_accuracy",
        trials=2,
        budget=Budget(2000),
        space=Space(blocks=("basic",), stages=(2,), depths=(1,), widths=(4, 8), stems=("cifar",)),
        recipe={"epochs": 1, "batch_size": 16},
    )
    assert record.plan.data == DataFacts(
        origin="scikit-learn load_digits",
        class_names=tuple("0123456789"),
        channels=1,
        streamed=None,
        skipped_images=(),
        train_images=160,
        validation_images=40,
        test_images=0,
    )
    assert record.plan.preprocessing == Preprocessing((8, 8), 1, (0.303483,), (0.375047,))
    assert record.plan.recipe == Recipe(epochs=1, batch_size=16, validation_split=0.2, shift_fraction=0.125)
    assert record.plan.budget.max_params == 2000
    assert record.plan.space.learning_rates == (0.00125, 0.04)
    assert record.plan.versions["keras-native-resnet"] == "0.1.0"
    assert isinstance(record.plan.machine, Machine)
    assert (record.status, record.trials, record.completed) == ("finished", 2, 2)
    assert [facts.name for facts in record.processes] == ["supervisor", "chief", "worker0"]
    assert all(facts.starts == 1 and facts.peak_bytes > 10**7 for facts in record.processes)
    assert record.best == found.best.to_best()
    assert [(trial.trial_id, trial.status, trial.epochs_done) for trial in found.trials] == [
        ("0", "COMPLETED", 1),
        ("1", "COMPLETED", 1),
    ]
    assert all(trial.parameters <= 2000 and trial.kept.number == 1 for trial in found.trials)


def test_a_search_of_before_there_were_data_options_is_gone_on_with(stored):
    asked = jobs.load_search(stored).record.request
    values = json.loads((stored / SEARCH_FILE).read_text())
    for name in ("memory_limit_bytes", "on_error", "normalize"):
        del values["request"][name]
    (stored / SEARCH_FILE).write_text(json.dumps(values))
    found = SearchFolder(stored).check(asked)
    assert found is not None
    assert found.request == asked
    other = dataclasses.replace(asked, input=dataclasses.replace(asked.input, normalize="imagenet"))
    with pytest.raises(InputError, match=r"It differs in: normalize 'dataset' there, 'imagenet' now. Choose"):
        SearchFolder(stored).check(other)


def test_a_search_of_0_1_that_has_not_ended(stored):
    values = json.loads((stored / SEARCH_FILE).read_text())
    record = read_record({name: values[name] for name in ("format", "request", "plan")})
    assert record == SearchRecord(record.request, record.plan)
    assert (record.status, record.processes, record.best) == (None, (), None)


def test_records_as_json(stored):
    record = jobs.load_search(stored).record
    SearchFolder(stored).write(record)
    values = json.loads((stored / SEARCH_FILE).read_text())
    assert values["format"] == 2
    assert read_record(values) == record
    folder = SearchFolder(stored)
    for one in (record, SearchRecord(record.request, record.plan)):
        folder.write(one)
        assert folder.read() == one
    with pytest.raises(InputError, match=r"A SearchRecord has the fields .* Received: 'bset'. Did you mean 'best'"):
        read_record({**values, "bset": None})


@pytest.mark.parametrize("given", [(0.5, 1.0), [0.5, 1.0]])
def test_a_request_has_its_recipe_as_a_recipe_has_it(given):
    request = make_request("digits", recipe={"resized_crop": given})
    assert request.recipe == {"resized_crop": (0.5, 1.0)}
    assert SearchRequest.from_dict(json.loads(json.dumps(request.to_dict()))) == request


def test_tasks_as_json():
    worker = WorkerTask(error_path="e", folder="f", index=1, threads=2, memory_limit_bytes=3, chief_timeout_seconds=4.5)
    for task in (ChiefTask(error_path="e", folder="f"), worker):
        kind, _ = _ROLES[task.role]
        assert kind.from_dict(json.loads(json.dumps(task.to_dict()))) == task
    with pytest.raises(InputError, match=r"A WorkerTask: threads must be int. Received: '2'"):
        dataclasses.replace(worker, threads="2")
    assert {role: kind.role for role, (kind, _) in _ROLES.items()} == {role: role for role in _ROLES}


def test_facts_of_a_process_have_types():
    with pytest.raises(InputError, match=r"A ProcessFacts: starts must be int. Received: None"):
        ProcessFacts("chief", None, 1)


def test_ties_go_by_the_loss_and_trials_without_an_end_have_no_rank():
    stored = jobs.load_search(FIXTURE)
    figures = [(0.5, 0.3), (0.75, 0.9), (0.75, 0.8), (0.9, 0.1)]
    trials = tuple(
        dataclasses.replace(
            stored.trials[0],
            trial_id=str(index),
            status="RUNNING" if index == 3 else "COMPLETED",
            history=(Epoch(1, 0.1, {"val_accuracy": accuracy, "val_loss": loss}),),
        )
        for index, (accuracy, loss) in enumerate(figures)
    )
    for objective, order in (("val_accuracy", "210"), ("val_loss", "021")):
        request = dataclasses.replace(stored.record.request, objective=objective)
        record = dataclasses.replace(stored.record, request=request)
        search = dataclasses.replace(stored, record=record, trials=trials)
        assert "".join(trial.trial_id for trial in search.ranking) == order


def test_the_kept_epoch_is_that_of_the_lowest_loss():
    trial = jobs.load_search(FIXTURE).trials[0]
    epochs = ((1, 0.5, 0.9), (2, 0.8, 0.4), (3, 0.9, 0.6))
    history = tuple(Epoch(number, 0.1, {"val_accuracy": a, "val_loss": loss}) for number, a, loss in epochs)
    kept = dataclasses.replace(trial, history=history).kept
    assert (kept.number, kept.val_accuracy, kept.val_loss) == (2, 0.8, 0.4)
    nothing = dataclasses.replace(trial, history=(), first_epoch=4)
    assert (nothing.kept, nothing.epochs_done) == (None, 4)
    assert (nothing.to_row(None)["val_loss"], nothing.to_row(None)["rank"]) == ("", "")


def test_trials_are_in_the_order_of_their_beginning_whatever_the_digits_of_their_names(stored):
    """A search of nine trials that is then given more writes trial_09 beside trial_0."""
    shutil.copytree(stored / "trials" / "trial_1", stored / "trials" / "trial_02")
    file = stored / "trials" / "trial_02" / "trial.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "trial_id": "02"}))
    assert [trial.trial_id for trial in jobs.load_search(stored).trials] == ["0", "1", "02"]
