"""Searches whose processes are killed, stopped, broken or not there: nothing is lost, and no process is left.

Workers are disturbed at writes of files, where they wait or kill themselves, so that no case depends on how fast a
machine is.
"""

import os
import random
import signal

import numpy as np
import pytest
from helpers import draw_images
from search_helpers import (
    any_runs,
    count_epochs,
    customize,
    find_children,
    find_port,
    read_files,
    search,
    set_variables,
    start,
    tell,
    wait_until,
    write_planned,
)

from keras_resnet import InputError, SearchFailed, jobs
from keras_resnet.folders import LOCK_FILE
from keras_resnet.inputs import DataSource

# At a certain write into a trial's folder the worker dies, once; before its first it waits until all workers have a trial.
DIE = """
import os, signal, time
from pathlib import Path
marks, moments, replace, writes = Path({marks!r}), {moments!r}, os.replace, []
def replace_or_die(source, target):
    if "trial_" in str(target):
        name = os.environ["KERASTUNER_TUNER_ID"]
        (marks / name).touch()
        while not all((marks / other).exists() for other in moments):
            time.sleep(0.01)
        writes.append(target)
        if len(writes) == moments[name] and not (marks / f"{{name}}.died").exists():
            (marks / f"{{name}}.died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = replace_or_die
"""

# The worker stays at the n-th write of a file until it is ended.
STAY = """
import os, time
replace, writes = os.replace, []
def replace_or_stay(source, target):
    if str(target).endswith({name!r}):
        writes.append(target)
        while len(writes) == {number}:
            time.sleep(0.1)
    replace(source, target)
os.replace = replace_or_stay
"""

BUG = """
import keras_resnet.training as training
def fit(*arguments, **options):
    raise ValueError("a bug of ours")
training.fit = fit
"""


def test_killed_workers_lose_no_trial_and_the_test_split_is_not_looked_at(npz, finished, tmp_path, monkeypatch):
    """Two workers, each killed once with its first trial; the images are the same but for those of the test split."""
    with np.load(npz) as arrays:
        other = dict(arrays)
    other["x_test"], other["y_test"] = draw_images(6, 8, 8, 1, 3, seed=77)
    np.savez(tmp_path / "other.npz", **other)
    source = DataSource(str(tmp_path / "other.npz"))
    planned = write_planned(tmp_path / "planned", finished.record, source=source)
    (tmp_path / "marks").mkdir()
    draw = random.Random(0)
    moments = {
        f"worker{index}": draw.randint(1, 7) for index in range(2)
    }  # a trial of three epochs has 7 writes or more
    code = DIE.format(marks=str(tmp_path / "marks"), moments=moments)
    monkeypatch.setenv("PYTHONPATH", customize(tmp_path / "site", code))
    found = search(source.name, planned, workers=2)
    starts = {facts.name: facts.starts for facts in found.record.processes}
    assert starts == {"supervisor": 1, "chief": 1, "worker0": 2, "worker1": 2}
    assert tell(found) == tell(finished)


def test_a_search_goes_on_after_a_bug_after_ctrl_c_and_after_a_kill(npz, finished, planned, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", customize(tmp_path / "bug", BUG))
        with pytest.raises(SearchFailed, match=r"(?s)^worker0: ValueError: a bug of ours\nTraceback .*sitecustomize"):
            search(npz, planned)
    assert find_children() == []
    assert "a bug of ours" in (planned / "trials" / "trial_0" / "error.txt").read_text()
    assert not (planned / LOCK_FILE).exists()

    within = STAY.format(name=os.path.join("trial_0", "progress.json"), number=3)  # that of its second epoch
    process = start(npz, planned, PYTHONPATH=customize(tmp_path / "within", within))
    wait_until(lambda: count_epochs(planned) == 1, process)
    children = find_children(process)
    assert len(children) == 2
    process.send_signal(signal.SIGINT)
    output = process.communicate()[0]
    assert process.returncode == 130
    assert output.endswith("Stopped.\n")
    assert "Traceback" not in output
    assert not any_runs(children)
    assert not (planned / LOCK_FILE).exists()
    stopped = jobs.load_search(planned)
    assert (stopped.record.status, stopped.record.completed, stopped.ranking) == ("stopped", 0, [])

    between = STAY.format(name=os.path.join("trial_1", "progress.json"), number=1)
    process = start(npz, planned, PYTHONPATH=customize(tmp_path / "between", between))
    wait_until(lambda: len(jobs.load_search(planned).trials) == 2, process)
    children = find_children(process)
    assert len(children) == 2
    process.kill()
    process.communicate()
    wait_until(lambda: not any_runs(children))
    assert (planned / LOCK_FILE).exists()
    assert [trial.status for trial in jobs.load_search(planned).trials] == ["COMPLETED", "RUNNING"]
    before = read_files(planned / "trials" / "trial_0")
    assert "error.txt" not in {path.name for path in before}

    assert tell(search(npz, planned)) == tell(finished)
    assert read_files(planned / "trials" / "trial_0") == before
    assert not (planned / LOCK_FILE).exists()


def test_a_chief_that_does_not_answer(npz, planned, tmp_path, monkeypatch):
    port = find_port()
    set_variables(monkeypatch, "machine-a", "127.0.0.1", port)
    with pytest.raises(InputError, match=r"Workers need the search folder of their chief. .* no chief has written"):
        search(npz, tmp_path / "s", chief_timeout=0.1)
    assert not (tmp_path / "s").exists()
    message = rf"The chief at 127.0.0.1:{port} did not answer CreateTrial within 2 s"
    with pytest.raises(InputError, match=message):
        search(npz, planned, chief_timeout=2)
    assert find_children() == []
    with pytest.raises(InputError, match=r"workers must be an integer of at least 1. Received: 0"):
        search(npz, planned, workers=0)
    with pytest.raises(InputError, match=r"holds another search. It differs in: tuner 'random' there, 'grid' now"):
        search(npz, planned, tuner="grid")
