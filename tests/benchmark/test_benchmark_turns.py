"""How sides take turns, with sides that only say how long they took."""

import pytest

from keras_resnet import count_macs
from keras_resnet.benchmark import make_plan, measure
from keras_resnet.benchmark.processes import SideFailed, SideUnavailable
from keras_resnet.benchmark.workload import PRODUCT_SIZE


def test_sides_take_turns_and_figures_are_medians(fake):
    # Ours takes 2, 4 and 3 seconds in the rounds, behind two steps of warm-up; PyTorch is twice as slow in each.
    fake.seconds["ours"] = lambda asked: {3: 2.0, 4: 4.0, 5: 3.0}.get(asked, 5.0)
    fake.seconds["torch"] = lambda asked: {3: 4.0, 4: 8.0, 5: 6.0}.get(asked, 5.0)
    fake.seconds["matrix product"] = lambda asked: 0.125 if asked == 5 else 0.25  # its fastest turn is the peak
    said, handed = [], []
    plan = make_plan(("resnet8_cifar",), against=("torch",), batch_sizes=(6,), rounds=3)
    measured = measure(plan, on_progress=said.append, on_measurements=lambda so_far: handed.append(len(so_far)))
    turns = [side for side, _ in fake.turns][-12:]
    assert turns == [
        *("ours", "torch", "matrix product", "matrix product"),  # short: one that is not counted comes first
        *("torch", "ours", "matrix product", "matrix product"),
        *("ours", "torch", "matrix product", "matrix product"),
    ]
    ours, theirs = (one.figures for one in measured)
    assert (ours.milliseconds, ours.milliseconds_min, ours.milliseconds_max) == (3000, 2000, 4000)
    assert ours.images_per_second == 2
    assert ours.gflops == pytest.approx(2 * 3 * 6 * count_macs("resnet8_cifar") / 3 / 1e9)
    assert ours.peak_gflops == pytest.approx(2 * PRODUCT_SIZE**3 / 0.125 / 1e9)
    assert ours.peak_share == pytest.approx(ours.gflops / ours.peak_gflops)
    assert (ours.memory_mib, ours.first_step_seconds, ours.ready_seconds, ours.ours_ratio) == (3, 9, 2, 1)
    assert (theirs.milliseconds, theirs.ours_ratio) == (6000, 0.5)
    assert [(one.side, one.rounds, one.steps) for one in measured] == [("ours", 3, 1), ("torch", 3, 1)]
    assert handed == [2]
    assert said[-1] == "resnet8_cifar train, batch 6, 32x32x3: round 3 of 3"


def test_the_ratio_is_by_round(fake):
    # The machine is ten times slower in the second round: it is in both, and leaves the ratio as it is.
    fake.seconds["ours"] = lambda asked: {4: 30.0}.get(asked, 3.0)
    fake.seconds["stock"] = lambda asked: {4: 40.0}.get(asked, 4.0)
    _, stock = measure(make_plan(("resnet8_cifar",), against=("stock",), rounds=2))
    assert stock.figures.ours_ratio == 0.75


def test_a_turn_has_as_many_steps_as_fill_it(fake):
    fake.seconds["ours"] = lambda asked: 0.5 if asked <= 2 else 0.1  # faster once it is warm
    (row,) = measure(make_plan(("resnet8_cifar",), against=(), rounds=2, round_seconds=2.0))
    assert [steps for side, steps in fake.turns if side == "ours"] == [1, 1, 4, 1, 20, 1, 20]
    assert (row.steps, row.rounds) == (20, 2)
    assert row.figures.milliseconds == pytest.approx(100)


def test_one_side_that_cannot_leaves_the_others(fake, caplog):
    fake.seconds |= {
        "ours": 3.0,
        "stock": lambda asked: SideFailed("It died. The end of its log:\nOOM") if asked == 4 else 3.0,
        "torch": SideFailed("It never ran. The end of its log:\nImportError"),
        "torch-compile": SideUnavailable("torch.compile failed"),
    }
    plan = make_plan(("resnet8_cifar",), rounds=3)
    ours, stock, eager, compiled, applications = measure(plan)
    assert (ours.figures.milliseconds, ours.failed, ours.note) == (3000, False, "")
    assert (stock.figures, stock.failed, stock.note) == (None, True, "It died. The end of its log:")
    assert (eager.failed, eager.note) == (True, "It never ran. The end of its log:")
    assert (compiled.failed, compiled.note) == (False, "torch.compile failed")
    assert (applications.side, applications.failed) == ("keras.applications", False)
    assert "OOM" in caplog.text
    assert "ImportError" in caplog.text


def test_without_ours_there_is_no_ratio(fake):
    fake.seconds |= {"ours": SideFailed("no"), "stock": 1.0}
    ours, stock = measure(make_plan(("resnet8_cifar",), against=("stock",), rounds=2))
    assert (ours.failed, stock.figures.milliseconds, stock.figures.ours_ratio) == (True, 1000, None)


def test_a_network_is_exported_once(fake):
    fake.seconds |= {"ours": 1.0, "torch": 1.0}
    plan = make_plan(("resnet8_cifar",), task="infer", batch_sizes=(1, 2), against=("torch",), rounds=2)
    assert len(measure(plan)) == 4
    sides = [("MeasureJob", side) for side in ("matrix product", "ours", "torch")]
    assert fake.started == [sides[0], ("ExportJob", "ours"), *sides[1:], *sides]
