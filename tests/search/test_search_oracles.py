"""What the four oracles propose, with made-up scores: nothing is built or trained."""

import copy
import dataclasses
import json
import random
from pathlib import Path

import keras_tuner
import pytest
from space_helpers import TINY, all_points, declare, is_active

from keras_resnet import InputError, Recipe
from keras_resnet.search import TUNERS, Budget, Candidates, Space, make_oracle
from keras_resnet.search import oracles as oracles_module
from keras_resnet.search.oracles import WholeTuner

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner"),
]

BUDGET = Budget(max_params=60_000)
SMALL = dataclasses.replace(TINY, depths=(1,), widths=(4, 20), learning_rates=(0.01,), weight_decays=(0.001,))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No waiting for the disk; fewer points to look at; one fit of the Gaussian process instead of 21."""
    monkeypatch.setattr("os.fsync", lambda file: None)
    monkeypatch.setattr(oracles_module, "_BAYESIAN_DRAWS", 60)
    monkeypatch.setattr(oracles_module, "_BAYESIAN_NEIGHBOURS", 40)
    make = oracles_module.BayesianOptimizationOracle._make_gpr
    monkeypatch.setattr(
        oracles_module.BayesianOptimizationOracle,
        "_make_gpr",
        lambda self: make(self).set_params(n_restarts_optimizer=0),
    )


def _make_candidates(budget=BUDGET, **options):
    return Candidates((16, 16, 3), 10, budget=budget, **options)


def _open(folder, kind, candidates, **options):
    """An oracle on a folder as a chief has it: new, or gone on with."""
    tuner = WholeTuner(make_oracle(kind, candidates, **options), directory=str(folder), project_name="trials")
    tuner.oracle.verbose = 0
    tuner.save()
    return tuner.oracle


def _strip(values):
    """Without what Hyperband notes among the values."""
    return {name: value for name, value in values.items() if not name.startswith("tuner/")}


def _freeze(values):
    return tuple(sorted(_strip(values).items()))


def _score(values):
    return random.Random(repr(_freeze(values))).random()


def _end(oracle, trial, score=_score, status="COMPLETED", loss=1.0):
    if status == "COMPLETED":
        accuracy = score(trial.hyperparameters.values) if callable(score) else score
        oracle.update_trial(trial.trial_id, {"val_accuracy": accuracy, "val_loss": loss}, step=1)
    ended = copy.deepcopy(trial)  # over the wire it is another object
    ended.status = status
    oracle.end_trial(ended)


def _run(oracle, most=1000, score=_score):
    """Trials one after the other until there are no more; their values."""
    proposed = []
    while len(proposed) < most:
        trial = oracle.create_trial("worker")
        if trial.status != "RUNNING":
            assert trial.status == "STOPPED"
            break
        proposed.append(dict(trial.hyperparameters.values))
        _end(oracle, trial, score)
    return proposed


# What is proposed.


@pytest.mark.parametrize("kind", TUNERS)
def test_every_proposal_is_inside_the_budget(kind, tmp_path):
    candidates = _make_candidates(augment=True)
    options = {"epochs": 27} if kind == "hyperband" else {}
    if kind == "bayesian":
        options = {"num_initial_points": 44}
    proposed = _run(_open(tmp_path, kind, candidates, max_trials=64, seed=3, **options))
    assert len(proposed) == 64
    assert all(candidates.admits(values) for values in proposed)
    for values in proposed:
        assert set(_strip(values)) == {hp.name for hp in declare(candidates) if is_active(hp, values)}
    new = [values for values in proposed if not values.get("tuner/initial_epoch")]
    assert len({_freeze(values) for values in new}) == len(new) >= 40
    if kind != "grid":
        assert len({(values["block"], values["stages"]) for values in new}) > 5


def test_kerastuner_alone_proposes_what_exceeds_the_budget():
    candidates, hyperparameters = _make_candidates(), keras_tuner.HyperParameters()
    candidates.declare(hyperparameters)
    oracle = keras_tuner.oracles.RandomSearchOracle("val_accuracy", 64, seed=3, hyperparameters=hyperparameters)
    assert sum(not candidates.admits(oracle.populate_space("0")["values"]) for _ in range(64)) > 40


@pytest.mark.parametrize("kind", TUNERS)
def test_a_budget_that_hardly_any_point_meets(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(oracles_module, "_MOST_DRAWS", 10)
    with pytest.raises(InputError) as caught:
        _make_candidates(Budget(max_params=1))
    least = int(str(caught.value).split()[5].strip(",").replace(",", ""))
    candidates = _make_candidates(Budget(max_params=least))
    proposed = _run(_open(tmp_path, kind, candidates, max_trials=6, seed=3, epochs=4))
    assert len(proposed) == 6
    assert all(candidates.admits(values) for values in proposed)
    assert len({_freeze(values) for values in proposed if "tuner/trial_id" not in values}) >= 4


@pytest.mark.parametrize("kind", TUNERS)
def test_a_space_of_one_network_is_tried_once(kind, tmp_path):
    one = dataclasses.replace(
        SMALL, blocks=("basic",), stems=("cifar",), stages=(1,), depths=(1,), widths=(4,), growths=(1,)
    )
    oracle = _open(tmp_path, kind, _make_candidates(space=one), max_trials=None, seed=1)
    assert [_strip(values) for values in _run(oracle)] == [all_points(oracle.candidates)[0]]
    assert oracle.create_trial("worker").status == "STOPPED"


@pytest.mark.parametrize("kind", [kind for kind in TUNERS if kind != "grid"])
def test_seeds(kind, tmp_path):
    candidates = _make_candidates()

    def propose(folder, seed):
        options = {"num_initial_points": 4} if kind == "bayesian" else {"epochs": 9}
        return _run(_open(tmp_path / folder, kind, candidates, max_trials=8, seed=seed, **options))

    first, again, other = propose("a", 0), propose("b", 0), propose("c", 1)
    assert first == again
    assert not {_freeze(values) for values in first} & {_freeze(values) for values in other}
    assert make_oracle(kind, candidates).seed > 0


@pytest.mark.parametrize("name", ["hyperbnd", "", None])
def test_an_unknown_tuner(name):
    hint = r" Did you mean 'hyperband'\?" if name else ""
    with pytest.raises(InputError) as caught:
        make_oracle(name, _make_candidates())
    message = f"tuner must be one of 'random', 'bayesian', 'hyperband', 'grid'. Received: {name!r}."
    assert str(caught.value) == message + hint.replace("\\", "")


def test_defaults():
    candidates = _make_candidates(recipe=Recipe(epochs=13))
    assert make_oracle("hyperband", candidates).max_epochs == 13
    assert make_oracle("hyperband", candidates, epochs=5).max_epochs == 5
    assert make_oracle("bayesian", candidates, max_trials=40).num_initial_points == 10
    assert make_oracle("bayesian", candidates, max_trials=40, num_initial_points=7).num_initial_points == 7
    assert make_oracle("grid", candidates, max_trials=None).max_trials is None
    for kind in TUNERS:
        oracle = make_oracle(kind, candidates)
        assert (oracle.max_trials, oracle.objective.name, oracle.objective.direction) == (20, "val_accuracy", "max")


# The grid.


def _make_grid(limit=9_000):
    candidates = _make_candidates(Budget(max_params=limit), space=SMALL)
    points = all_points(candidates)
    admitted = {_freeze(values) for values in points if candidates.admits(values)}
    assert 20 < len(admitted) <= len(points)
    return candidates, admitted


def test_the_grid_is_every_admitted_point_once(tmp_path):
    candidates, admitted = _make_grid()
    assert len(admitted) < len(all_points(candidates)) - 10
    oracle = _open(tmp_path, "grid", candidates, max_trials=None)
    proposed = [_freeze(values) for values in _run(oracle)]
    assert len(proposed) == len(admitted)
    assert set(proposed) == admitted
    assert oracle.create_trial("worker").status == "STOPPED"
    again = _open(tmp_path, "grid", candidates, max_trials=None)
    assert again.create_trial("worker").status == "STOPPED"
    assert len(again.trials) == len(admitted)


@pytest.mark.parametrize("first", [1, 13, 26])
def test_the_grid_goes_on_where_it_was(first, tmp_path):
    candidates, admitted = _make_grid()
    whole = _run(_open(tmp_path / "whole", "grid", candidates, max_trials=None))
    begun = _run(_open(tmp_path / "parts", "grid", candidates, max_trials=None), most=first)
    rest = _run(_open(tmp_path / "parts", "grid", candidates, max_trials=None))
    assert begun + rest == whole
    assert len(whole) == len(admitted)


def test_the_grid_starts_with_the_defaults_and_leaves_out_none_for_two_workers(tmp_path):
    candidates, admitted = _make_grid(10**9)
    oracle = _open(tmp_path, "grid", candidates, max_trials=None)
    seen = []
    while True:
        trials = [oracle.create_trial(worker) for worker in ("a", "b")]
        running = [trial for trial in trials if trial.status == "RUNNING"]
        seen += [trial.hyperparameters.values for trial in running]
        for trial in reversed(running):
            _end(oracle, trial)
        if len(running) < 2:
            break
    assert len(seen) == len(admitted)
    assert {_freeze(values) for values in seen} == admitted
    assert seen[0] == {hp.name: hp.default for hp in declare(candidates) if hp.name in seen[0]}


def test_the_grid_divides_a_rate_into_its_default_and_ten_values(tmp_path):
    space = Space(
        blocks=("basic",),
        activation_orders=("pre",),
        stages=(1,),
        depths=(1,),
        widths=(4,),
        growths=(1,),
        learning_rates=(0.01, 0.1),
        weight_decays=(0.001,),
    )
    candidates = _make_candidates(space=space, recipe=Recipe(learning_rate=0.02))
    rates = [values["learning_rate"] for values in _run(_open(tmp_path, "grid", candidates, max_trials=None))]
    assert rates == pytest.approx([0.02, *(0.01 * 10 ** (0.05 + 0.1 * n) for n in range(10))])


# Hyperband.


def test_hyperband_promotes_the_best(tmp_path):
    oracle = _open(tmp_path, "hyperband", _make_candidates(), epochs=9, max_trials=None, seed=2)
    proposed = _run(oracle)
    # Brackets of 9, 3, 1 and 5, 2 and 3 trials.
    epochs = [(values["tuner/initial_epoch"], values["tuner/epochs"]) for values in proposed]
    expected = [(0, 1)] * 9 + [(1, 3)] * 3 + [(3, 9)] + [(0, 3)] * 5 + [(3, 9)] * 2 + [(0, 9)] * 3
    assert epochs == expected
    assert oracle.create_trial("worker").status == "STOPPED"
    for values in proposed:
        assert ("tuner/trial_id" in values) == (values["tuner/initial_epoch"] > 0)
        if "tuner/trial_id" in values:
            parent = oracle.get_trial(values["tuner/trial_id"]).hyperparameters.values
            assert _strip(parent) == _strip(values)
            assert parent["tuner/epochs"] == values["tuner/initial_epoch"]
    scores = [_score(values) for values in proposed]
    assert scores[9:12] == sorted(scores[:9], reverse=True)[:3]
    assert scores[12] == max(scores[:9])
    assert scores[18:20] == sorted(scores[13:18], reverse=True)[:2]


@pytest.mark.parametrize("most", [1, 7, 11, 40])
def test_hyperband_keeps_to_the_number_of_trials(most, tmp_path):
    oracle = _open(tmp_path, "hyperband", _make_candidates(), epochs=9, max_trials=most, seed=2)
    assert len(_run(oracle)) == most  # 40: more than one Hyperband has
    assert oracle.create_trial("worker").status == "STOPPED"


def test_hyperband_waits_for_what_it_may_promote(tmp_path):
    oracle = _open(tmp_path, "hyperband", _make_candidates(), epochs=2, factor=2, max_trials=None, seed=2)
    statuses = []
    running = [oracle.create_trial(f"worker{n}") for n in range(2)]
    while len(statuses) < 20 and (not statuses or statuses[-1] != "STOPPED"):
        trial = oracle.create_trial("other")
        statuses.append(trial.status)
        if trial.status == "RUNNING":
            _end(oracle, trial)
        elif running:
            _end(oracle, running.pop())
    assert "IDLE" in statuses
    assert statuses[-1] == "STOPPED"
    assert {trial.status for trial in oracle.trials.values()} == {"COMPLETED"}


# Bayesian optimization.


def test_the_better_region_is_preferred(tmp_path):
    candidates = _make_candidates(Budget(max_params=200_000))

    def count(kind):
        proposed = _run(
            _open(tmp_path / kind, kind, candidates, max_trials=30, seed=5),
            score=lambda values: 0.9 if values["block"] == "resnext" else 0.2,
        )
        return sum(values["block"] == "resnext" for values in proposed[15:])

    chosen, by_chance = count("bayesian"), count("random")
    assert by_chance < 10
    assert chosen >= by_chance + 4


def test_running_trials_are_not_proposed_twice(tmp_path):
    candidates = _make_candidates(space=SMALL)
    oracle = _open(tmp_path, "bayesian", candidates, max_trials=20, seed=5, num_initial_points=4)
    _run(oracle, most=4)
    running = [oracle.create_trial(f"worker{n}").hyperparameters.values for n in range(12)]
    assert len({_freeze(values) for values in running}) == 12
    assert all(candidates.admits(values) for values in running)


def test_bayesian_goes_on_as_if_uninterrupted_in_whatever_order_files_are_listed(tmp_path, monkeypatch):
    candidates, options = _make_candidates(), {"max_trials": 12, "seed": 5, "num_initial_points": 4}
    whole = _run(_open(tmp_path / "whole", "bayesian", candidates, **options))
    begun = _run(_open(tmp_path / "parts", "bayesian", candidates, **options), most=8)
    monkeypatch.setattr(
        "keras_tuner.src.backend.io.glob", lambda path: sorted(map(str, Path("/").glob(path[1:])), reverse=True)
    )
    gone_on = _open(tmp_path / "parts", "bayesian", candidates, **options)
    assert list(gone_on.trials) == gone_on.start_order
    assert begun + _run(gone_on) == whole


# Scores and failures.


def _rank(oracle):
    return [trial.trial_id for trial in oracle.get_best_trials(9) if trial.status == "COMPLETED"]


@pytest.mark.parametrize("kind", TUNERS)
def test_equal_accuracies_are_ranked_by_the_loss(kind, tmp_path):
    results = [(0.5, 0.7), (0.5, 0.6), (0.50001, 900.0), (0.4, 0.1), (0.5, 0.65)]
    options = {"max_trials": 5, "seed": 1, "epochs": 9}
    oracle = _open(tmp_path, kind, _make_candidates(), **options)
    for accuracy, loss in results:
        _end(oracle, oracle.create_trial("worker"), accuracy, loss=loss)
    assert _rank(oracle) == ["2", "1", "4", "0", "3"]
    assert _rank(_open(tmp_path, kind, _make_candidates(), **options)) == _rank(oracle)


def test_other_objectives_are_their_own_score(tmp_path):
    oracle = _open(tmp_path, "random", _make_candidates(), max_trials=3, seed=1, objective="val_loss")
    for accuracy, loss in [(0.9, 0.7), (0.1, 0.6), (0.5, 0.65)]:
        _end(oracle, oracle.create_trial("worker"), accuracy, loss=loss)
    assert _rank(oracle) == ["1", "2", "0"]
    assert [trial.score for trial in oracle.trials.values()] == [0.7, 0.6, 0.65]


@pytest.mark.parametrize("kind", TUNERS)
def test_failures_in_a_row_have_their_reasons_and_stop_nothing(kind, tmp_path):
    oracle = _open(tmp_path, kind, _make_candidates(), max_trials=16, seed=1, epochs=9)
    for number in range(12):
        trial = oracle.create_trial("worker")
        reason = Path(oracle._get_trial_dir(trial.trial_id)) / "reason.txt"
        if number != 3:
            reason.write_text(f"reason {number}", "utf-8")
        _end(oracle, trial, status="FAILED" if number % 2 else "INVALID")
    assert len(_run(oracle)) == 4
    for ended in (oracle, _open(tmp_path, kind, _make_candidates(), max_trials=16, seed=1, epochs=9)):
        messages = [trial.message for trial in ended.trials.values()]
        assert messages == [None if n == 3 or n > 11 else f"reason {n}" for n in range(16)]
        assert [trial.status for trial in ended.trials.values()] == ["FAILED"] * 12 + ["COMPLETED"] * 4
        assert ended.create_trial("worker").status == "STOPPED"


@pytest.mark.filterwarnings("ignore:All-NaN axis:RuntimeWarning")
def test_a_score_that_is_no_number_fails_the_trial(tmp_path):
    oracle = _open(tmp_path, "random", _make_candidates(), max_trials=2, seed=1)
    _end(oracle, oracle.create_trial("worker"), float("nan"))
    _run(oracle)
    assert [trial.status for trial in oracle.trials.values()] == ["FAILED", "COMPLETED"]


# Interruption.


class _Killed(BaseException):
    """The end of the process."""


class _Writer:
    """`write_beside`, until the process ends within the `last`-th file, which stays half written."""

    def __init__(self, write_beside, last=None):
        self.write_beside, self.last, self.count = write_beside, last, 0

    def __call__(self, path, writer):
        if self.count == self.last:
            Path(path).with_name(f"partial-{Path(path).name}").write_text("{", "utf-8")
            raise _Killed
        self.count += 1
        self.write_beside(path, writer)


INTERRUPTED = {  # four trials that go through every kind of proposal
    "random": {},
    "bayesian": {"num_initial_points": 2},
    "hyperband": {"epochs": 2, "factor": 2},
    "grid": {},
}


def _work(oracle, workers, finished):
    """Workers in turns, each with one trial; the fourth trial fails."""
    for _ in range(50):
        trials = [oracle.create_trial(f"worker{n}") for n in range(workers)]
        for trial in trials:
            if trial.status == "RUNNING":
                assert trial.trial_id not in finished
                _end(oracle, trial, status="FAILED" if trial.trial_id == "3" else "COMPLETED")
                finished.append(trial.trial_id)
        if {trial.status for trial in trials} == {"STOPPED"}:
            return
    raise AssertionError("no end")


def _describe(oracle):
    return [(i, t.status, t.message, t.score, t.hyperparameters.values) for i, t in sorted(oracle.trials.items())]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", TUNERS)
def test_an_end_at_any_moment_loses_and_repeats_nothing(kind, workers, tmp_path, monkeypatch):
    monkeypatch.setattr(oracles_module, "_BAYESIAN_DRAWS", 10)
    monkeypatch.setattr(oracles_module, "_BAYESIAN_NEIGHBOURS", 5)
    space = Space(blocks=("basic", "bottleneck"), activation_orders=("pre",), stages=(1, 2), widths=(4, 8, 16))
    write_beside, candidates = oracles_module.write_beside, _make_candidates(space=space)

    def open_oracle(folder):
        return _open(tmp_path / folder, kind, candidates, max_trials=4, seed=4, **INTERRUPTED[kind])

    writer = _Writer(write_beside)
    monkeypatch.setattr(oracles_module, "write_beside", writer)
    whole = open_oracle("whole")
    _work(whole, workers, [])
    assert len(whole.trials) == 4
    assert writer.count >= 2 + 6 + 6 + 6 + 5  # a failed trial has no figures
    for last in range(writer.count):
        finished = []
        monkeypatch.setattr(oracles_module, "write_beside", _Writer(write_beside, last))
        with pytest.raises(_Killed):
            _work(open_oracle(str(last)), workers, finished)
        monkeypatch.setattr(oracles_module, "write_beside", write_beside)
        for path in (tmp_path / str(last)).glob("trials/trial_*/trial.json"):
            trial = json.loads(path.read_text("utf-8"))
            if trial["status"] in ("COMPLETED", "FAILED") and trial["trial_id"] not in finished:
                finished.append(trial["trial_id"])
        gone_on = open_oracle(str(last))
        assert set(finished) <= set(gone_on.end_order)
        _work(gone_on, workers, finished)
        for oracle in (gone_on, *([open_oracle(str(last))] if last % 6 == 0 else [])):
            ids = [f"{n}" for n in range(4)]
            assert sorted(oracle.trials) == sorted(oracle.start_order) == sorted(oracle.end_order) == ids
            assert {trial.status for trial in oracle.trials.values()} == {"COMPLETED", "FAILED"}
            assert not oracle.ongoing_trials
            assert not oracle._retry_queue
            assert oracle.create_trial("worker").status == "STOPPED"
            if workers == 1:
                assert _describe(oracle) == _describe(whole)
        folders = sorted(path.name for path in (tmp_path / str(last) / "trials").glob("trial_*"))
        assert folders == [f"trial_{n}" for n in range(4)]
        for path in (tmp_path / str(last)).rglob("*.json"):
            assert path.name.startswith("partial-") or isinstance(json.loads(path.read_text("utf-8")), dict)


def test_a_search_goes_on_with_more_trials(tmp_path):
    candidates = _make_candidates()
    whole = _run(_open(tmp_path / "whole", "random", candidates, max_trials=7, seed=4))
    begun = _run(_open(tmp_path / "parts", "random", candidates, max_trials=4, seed=4))
    assert begun + _run(_open(tmp_path / "parts", "random", candidates, max_trials=7, seed=4)) == whole
