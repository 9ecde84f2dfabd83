"""`run.json` as it is written now and as version 0.1 wrote it: read once, into a frozen record."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from keras_resnet import DataSource, InputError, InputOptions, Preprocessing, Recipe, ResNetSpec, jobs
from keras_resnet.jobs.run_record import FORMAT, RunRecord

OLD = Path(__file__).parents[1] / "fixtures" / "run_0_1"
OLD_VALUES = json.loads((OLD / "run.json").read_text("utf-8"))


def test_a_run_of_version_0_1_is_read():
    run = jobs.load_run(OLD)
    record = run.record
    tiny = ResNetSpec(
        "tiny", "basic", depths=(1, 1), filters=(4, 8), strides=(1, 2), stem="cifar", stem_filters=4, shortcut="A"
    )
    assert run.spec == tiny
    assert run.recipe == Recipe(
        epochs=2, batch_size=32, learning_rate=0.02, mixup_alpha=0.2, shift_fraction=0.125, horizontal_flip=False
    )
    assert run.preprocessing == Preprocessing.from_dict(OLD_VALUES["preprocessing"])
    assert run.class_names == tuple("0123456789")
    assert record.source == DataSource("digits")
    assert record.input == InputOptions(train_size=300, test_size=50)
    assert (record.data.origin, record.data.channels) == ("scikit-learn load_digits", 1)
    assert (record.data.train_images, record.data.validation_images, record.data.test_images) == (270, 30, 50)
    assert (record.model.parameters, record.steps, record.best_epoch) == (1390, 18, OLD_VALUES["best_epoch"])
    assert (record.test.accuracy, record.test.num_examples) == (OLD_VALUES["test"]["accuracy"], 50)
    assert record.validation.loss == OLD_VALUES["validation"]["loss"]
    assert record.machine.cores == 2
    assert record.search is None


def test_its_model_gives_what_its_record_says():
    evaluation = jobs.evaluate(OLD, verbose=0)
    assert evaluation.num_examples == 50
    assert evaluation.accuracy == OLD_VALUES["test"]["accuracy"]
    assert evaluation.loss == pytest.approx(OLD_VALUES["test"]["loss"], rel=1e-5)


def test_a_record_is_json_both_ways(run):
    written = json.loads((run.path / "run.json").read_text("utf-8"))
    assert written["format"] == FORMAT
    assert RunRecord.read(written) == run.record
    assert RunRecord.read(json.loads(json.dumps(run.record.to_json()))) == run.record
    old = RunRecord.read(OLD_VALUES)
    assert RunRecord.read(json.loads(json.dumps(old.to_json()))) == old


def _paths(values, prefix=()):
    for name, value in values.items():
        yield (*prefix, name)
        if isinstance(value, dict):
            yield from _paths(value, (*prefix, name))


def _read_error(folder):
    """The words of the error that reading a run ends with; None where it does not."""
    try:
        jobs.load_run(folder)
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize("layout", ["old", "new"])
def test_an_edited_record_is_a_short_error(run, tmp_path, layout):
    """Each key once left out, once of another type; what has a default may be missing."""
    values = OLD_VALUES if layout == "old" else json.loads((run.path / "run.json").read_text("utf-8"))
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(OLD / "model.keras", folder)
    refused = 0
    for path in _paths(values):
        for change in (None, ["odd"]):
            edited = copy.deepcopy(values)
            inner = edited
            for name in path[:-1]:
                inner = inner[name]
            if change is None:
                del inner[path[-1]]
            else:
                inner[path[-1]] = change
            (folder / "run.json").write_text(json.dumps(edited))
            error = _read_error(folder)
            if error is not None:
                assert error.startswith(f"{folder / 'run.json'} is not the record of a run of this version: ")
                assert len(error) < 1000
                refused += 1
    assert refused > 60


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"Expecting property name"),
        ("[]", r"it holds list"),
        ('{"format": 3, "preprocessing": {"a": 1}}', r"its format must be 2 or 1. Received: 3"),
        ('{"format": 1}', r"must store its preprocessing"),
        ('{"format": 1, "preprocessing": {"a": 1}}', r"it has no 'data'"),
    ],
)
def test_what_is_no_record(tmp_path, text, message):
    shutil.copy(OLD / "model.keras", tmp_path)
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=rf"run.json is not the record of a run of this version: .*{message}"):
        jobs.load_run(tmp_path)


def test_records_take_numpys_numbers_as_their_own():
    options = InputOptions((np.int64(8), np.int64(9)), train_size=np.int32(5))
    assert json.loads(json.dumps(options.to_dict())) == {
        "image_size_pixels": [8, 9],
        "normalize": "dataset",
        "train_size": 5,
        "test_size": None,
        "prepare_on": "host",
    }
