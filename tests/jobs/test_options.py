"""Where and how a job runs, as a record."""

import json
from pathlib import Path

import pytest

from keras_resnet import InputError
from keras_resnet.jobs.options import RunOptions


def test_options_as_json():
    options = RunOptions(Path("runs") / "a", 2, 1, 10**9, 2.5, 0)
    assert options.folder == str(Path("runs") / "a")
    for one in (options, RunOptions()):
        assert RunOptions.from_dict(json.loads(json.dumps(one.to_dict()))) == one


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"folder": ""}, r"A folder must be a path, or None. Received: ''"),
        ({"folder": 3}, r"A folder must be a path, or None. Received: 3"),
        ({"workers": -1}, r"workers must be an integer of at least 0. Received: -1"),
        ({"threads": 0}, r"threads must be None or an integer of at least 1. Received: 0"),
        ({"worker_memory_bytes": "4G"}, r"worker_memory must be None or an integer of at least 1. Received: '4G'"),
        ({"chief_timeout_seconds": 0}, r"chief_timeout must be above 0. Received: 0"),
        ({"verbose": 3}, r"verbose must be one of 'auto', 0, 1, 2. Received: 3"),
    ],
)
def test_options_that_cannot_be(fields, message):
    with pytest.raises(InputError, match=message):
        RunOptions(**fields)
