"""Shared by the tests of the benchmark: sides without processes."""

import pytest
from benchmark_fakes import FakeSides

from keras_resnet.benchmark import plan, runner


@pytest.fixture
def fake(monkeypatch):
    """Sides that answer in place of processes, PyTorch's among them; none runs on behind a test."""
    sides = FakeSides()
    monkeypatch.setattr(runner, "SideProcess", sides.start)
    monkeypatch.setattr(plan, "has_torch", lambda: True)
    yield sides
    assert sides.running == 0
