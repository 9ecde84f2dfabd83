"""Folders of versions: how they are numbered, and what is left when an export fails."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from serving import COLOUR, check_nothing_left, network, read_files

from keras_resnet import InputError, SaveError
from keras_resnet.export import export_saved_model, verify
from keras_resnet.export.folders import new_version
from keras_resnet.export.record import SavedModelRecord, Verified
from keras_resnet.export.reference import Reference
from keras_resnet.export.saved_model import SavedModelWriter


def test_versions_are_numbered(tmp_path, instant):
    assert instant(tmp_path) == tmp_path / "tiny" / "1"
    assert instant(tmp_path) == tmp_path / "tiny" / "2"
    assert instant(tmp_path, version=9) == tmp_path / "tiny" / "9"
    assert instant(tmp_path) == tmp_path / "tiny" / "10"
    assert instant(tmp_path, version=5) == tmp_path / "tiny" / "5"
    assert instant(tmp_path, name="other") == tmp_path / "other" / "1"
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == {"1", "2", "5", "9", "10"}
    for path in (tmp_path / "tiny").iterdir():
        assert json.loads((path / "export.json").read_text())["version"] == int(path.name)
    (tmp_path / "tiny" / "notes").mkdir()  # no version
    assert instant(tmp_path).name == "11"


def test_an_existing_version_is_never_touched(tmp_path, instant):
    instant(tmp_path, version=3)
    before = read_files(tmp_path)
    with pytest.raises(
        InputError, match=r"never changed. Received: version 3, which .*tiny already has; the next is 4"
    ):
        instant(tmp_path, version=3)
    assert read_files(tmp_path) == before
    (tmp_path / "tiny" / "4").mkdir()  # somebody's, and empty
    with pytest.raises(InputError, match=r"Received: version 4"):
        instant(tmp_path, version=4)
    assert instant(tmp_path).name == "5"


def test_versions_of_one_model_have_one_format(tmp_path, instant):
    (tmp_path / "tiny" / "1").mkdir(parents=True)
    (tmp_path / "tiny" / "1" / "model.onnx").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    for version in (None, 7):
        with pytest.raises(InputError, match=r"one format.* Received: saved_model for .*tiny, where 1 is onnx. Choose"):
            instant(tmp_path, version=version)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("version", [0, -1, 1.0, "1", True])
def test_a_version_is_a_number(tmp_path, instant, version):
    with pytest.raises(InputError, match=r"version must be a whole number of at least 1. Received: "):
        instant(tmp_path / "x", version=version)
    assert not list(tmp_path.iterdir())


def test_numpys_integers_are_integers(tmp_path, instant):
    path = instant(tmp_path, version=np.int64(3), max_pixels=np.int64(10**6))
    record = json.loads((path / "export.json").read_text())
    assert (path.name, record["version"], record["max_pixels"]) == ("3", 3, 10**6)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a b", "a\n", 3])
def test_a_name_is_one_folder(tmp_path, instant, name):
    with pytest.raises(InputError, match=r"made of letters, digits and _ - . Received: "):
        instant(tmp_path / "x", name=name)
    assert not list(tmp_path.iterdir())


def _finish(new):
    (new.partial / "saved_model.pb").write_bytes(b"mine")
    new.write_record(
        SavedModelRecord(
            format="saved_model",
            name=new.name,
            version=new.version,
            input_shape=(8, 8, 1),
            class_names=("a",),
            preprocessing=None,
            verified=Verified((1, 7), 1e-4, {}),
            versions={},
            signatures=(),
            max_pixels=1,
            warm_up_requests=0,
        )
    )


def test_a_version_that_another_process_took_meanwhile(tmp_path):
    """The next free one is taken, and the record says so; the other one stays as it is."""
    with new_version(tmp_path / "m") as new:
        _finish(new)
        (tmp_path / "m" / "1").mkdir()
        (tmp_path / "m" / "1" / "saved_model.pb").write_bytes(b"theirs")
    assert new.path == tmp_path / "m" / "2"
    assert (tmp_path / "m" / "1" / "saved_model.pb").read_bytes() == b"theirs"
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"1", "2"}
    assert json.loads((new.path / "export.json").read_text())["version"] == 2


def test_a_version_asked_for_that_another_process_took_meanwhile(tmp_path):
    def write():
        with new_version(tmp_path / "m", 4) as new:
            _finish(new)
            (tmp_path / "m" / "4").mkdir()

    with pytest.raises(InputError, match=r"Received: version 4, which"):
        write()
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["4"]
    assert not list((tmp_path / "m" / "4").iterdir())


def test_two_exports_of_one_process_do_not_meet(tmp_path):
    """As in two threads."""
    with new_version(tmp_path / "m") as first:
        with new_version(tmp_path / "m") as second:
            _finish(second)
        _finish(first)
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"1", "2"}


def _half_a_save(error):
    def write(_, folder):
        (folder / "saved_model.pb").write_bytes(b"half")
        (folder / "variables").mkdir()
        raise error

    return write


@pytest.mark.parametrize(
    ("raised", "error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), SaveError, r"tiny/1 could not be written: .*No space left"),
        (PermissionError(errno.EACCES, "Permission denied"), SaveError, r"could not be written: .*Permission denied"),
        (tf.errors.ResourceExhaustedError(None, None, "disk full"), SaveError, r"could not be written: disk full"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (MemoryError(), MemoryError, None),
        (ValueError("a bug"), ValueError, "a bug"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_save_that_breaks_off_leaves_nothing(tmp_path, instant, monkeypatch, raised, error, message):
    monkeypatch.setattr(SavedModelWriter, "write", _half_a_save(raised))
    check_nothing_left(tmp_path, error, message, instant)


def test_tensorflow_that_cannot_save_leaves_nothing(tmp_path, monkeypatch):
    write = _half_a_save(tf.errors.ResourceExhaustedError(None, None, "disk full"))
    monkeypatch.setattr(tf.saved_model, "save", lambda _, path, **__: write(None, Path(path)))
    message = r"tiny/1 could not be written: disk full"
    check_nothing_left(tmp_path, SaveError, message, lambda path: export_saved_model(network(), path, COLOUR))


@pytest.mark.parametrize("step", [(verify, "run_processes"), (Reference, "make_cases")], ids=lambda step: step[1])
def test_ctrl_c_later_leaves_nothing(tmp_path, instant, monkeypatch, step):
    def stop(*_):
        assert list(tmp_path.rglob("saved_model.pb"))
        raise KeyboardInterrupt

    monkeypatch.setattr(*step, stop)
    check_nothing_left(tmp_path, KeyboardInterrupt, None, instant)


def test_a_failure_leaves_other_versions_alone(tmp_path, instant, monkeypatch):
    instant(tmp_path)
    before = read_files(tmp_path)
    monkeypatch.setattr(SavedModelWriter, "write", _half_a_save(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(SaveError, match=r"tiny/2 could not be written: .*Nothing of it is left"):
        instant(tmp_path)
    assert read_files(tmp_path) == before
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["1"]


@pytest.mark.parametrize("place", ["file", "file/below", "model"])
def test_a_destination_that_is_no_folder(tmp_path, instant, place):
    """What a folder without permission gives, too; below a file not even root may write."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tiny").write_text("mine")
    before = read_files(tmp_path)
    with pytest.raises(SaveError, match=r"(could not be written|cannot be looked at): .*Not a directory"):
        instant(tmp_path / place)
    assert read_files(tmp_path) == before


def test_a_folder_without_permission(tmp_path, instant):
    if os.geteuid() == 0:
        pytest.skip("permissions do not bind root")
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    with pytest.raises(SaveError, match=r"could not be written: .*Permission denied"):
        instant(locked)
    assert not list(locked.iterdir())
