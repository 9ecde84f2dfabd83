"""A search that nothing disturbs, and folders made of it."""

import shutil
from pathlib import Path

import pytest
from search_helpers import FIXTURE, search, write_planned


@pytest.fixture(scope="session")
def finished(npz, tmp_path_factory):
    """A search of three trials by one worker that nothing disturbed."""
    return search(npz, tmp_path_factory.mktemp("searches") / "finished")


@pytest.fixture
def planned(finished, tmp_path):
    """The folder of the same search before its first trial."""
    return write_planned(tmp_path / "planned", finished.record)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of its folder."""
    return Path(shutil.copytree(finished.path, tmp_path / "copied"))


@pytest.fixture
def stored(tmp_path):
    """A search of 0.1."""
    return Path(shutil.copytree(FIXTURE, tmp_path / "stored"))
