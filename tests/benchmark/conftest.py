"""Shared by the tests of the benchmark: sides without processes of their own."""

import pytest
from benchmark_fakes import FakeSides, SideThread

from keras_resnet.benchmark import plan, runner


@pytest.fixture
def fake(monkeypatch):
    """Sides that answer in place of processes, PyTorch's among them; none runs on behind a test."""
    sides = FakeSides()
    monkeypatch.setattr(runner, "SideProcess", sides.start)
    monkeypatch.setattr(plan, "has_torch", lambda: True)
    yield sides
    assert sides.running == 0


@pytest.fixture
def threads(monkeypatch):
    """Sides in threads of this process; the list is of the numbers of threads that TensorFlow was told to use.

    Once it runs, as here, that number cannot change.
    """
    from keras_resnet.benchmark import keras_sides

    told = []
    monkeypatch.setattr(runner, "SideProcess", SideThread)
    monkeypatch.setattr(keras_sides, "_use_threads", told.append)
    return told
