"""HyperResNet under KerasTuner's own tuners, and our tuner: what it trains, what it keeps, what it goes on from."""

import itertools
import json
import random
import signal
import warnings
from pathlib import Path
from types import SimpleNamespace

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from helpers import draw_images

from keras_resnet import InputError, Preprocessing, Recipe, data, files, models, training
from keras_resnet.data import Split
from keras_resnet.epochs import Epoch, EpochLog
from keras_resnet.search import HyperResNet, Progress, Space, make_tuner
from keras_resnet.search import tuner as tuner_module
from keras_resnet.search.hypermodel import BUILT
from keras_resnet.search.tuner import Tuner, _TimedStub

SPACE = Space(blocks=("basic",), stages=(2,), depths=(1,), widths=(4, 8), stems=("cifar",))
RECIPE = Recipe(epochs=2, batch_size=16, seed=3)
MAX_PARAMS = 800  # of the space's twelve networks, the two of 4 and 4 filters are below
PREPROCESSING = Preprocessing((8, 8), 1, (0.5,), (0.25,))
PIXELS, LABELS = draw_images(48, 8, 8, 1, 3, seed=1)
HELD_OUT, HELD_OUT_LABELS = draw_images(24, 8, 8, 1, 3, seed=2)


@pytest.fixture(autouse=True)
def _clear():
    keras.utils.clear_session(free_memory=False)


def _scale(pixels):
    return ((pixels / 255 - 0.5) / 0.25).astype("float32")


def _as_arrays():
    return (_scale(PIXELS), LABELS), {"validation_data": (_scale(HELD_OUT), HELD_OUT_LABELS)}


def _as_dataset():
    def batch(pixels, labels):
        return tf.data.Dataset.from_tensor_slices((_scale(pixels), labels)).batch(16)

    return (batch(PIXELS, LABELS),), {"validation_data": batch(HELD_OUT, HELD_OUT_LABELS)}


def _make_data(recipe, first_epoch=0):
    train = data.make_train_dataset(
        Split(PIXELS, LABELS),
        PREPROCESSING,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        augmentation=recipe.augmentation,
        first_epoch=first_epoch,
    )
    return train, data.make_eval_dataset(Split(HELD_OUT, HELD_OUT_LABELS), PREPROCESSING, batch_size=16)


class Watched(HyperResNet):
    """Notes what it has built."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.networks = []

    def build(self, hp):
        model = super().build(hp)
        self.networks.append((model.name, model.count_params()))
        return model


class Watch(keras.callbacks.Callback):
    """Calls functions with the epoch, and the model with it; the same object for every trial."""

    def __init__(self, **functions):
        super().__init__()
        self._functions = functions

    def __deepcopy__(self, _):
        return self

    def _call(self, name, index):
        if name in self._functions:
            self._functions[name](self.model, index)

    def on_train_begin(self, logs=None):
        self._call("train_begin", None)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self._call("epoch_begin", epoch)

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            self._call("second_batch", self.epoch)

    def on_epoch_end(self, epoch, logs=None):
        self._call("epoch_end", epoch)


def _read_trials(tuner):
    """What is on disk of each trial."""
    return {
        path.parent.name: json.loads(path.read_text()) for path in sorted(Path(tuner.project_dir).glob("*/trial.json"))
    }


# KerasTuner's own tuners


@pytest.mark.parametrize(
    ("kind", "options", "give"),
    [
        (keras_tuner.RandomSearch, {"max_trials": 2}, _as_arrays),
        (keras_tuner.BayesianOptimization, {"max_trials": 2}, _as_dataset),
        (keras_tuner.GridSearch, {"max_trials": 2}, _as_dataset),
        (keras_tuner.Hyperband, {"max_epochs": 2, "factor": 2}, _as_arrays),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_any_tuner_of_kerastuner_stays_inside_the_budget(tmp_path, kind, options, give):
    hypermodel = Watched((8, 8, 1), 3, space=SPACE, recipe=RECIPE, max_params=MAX_PARAMS)
    tuner = kind(hypermodel, objective="val_accuracy", directory=tmp_path, seed=1, **options)
    tuner.oracle.max_trials = min(tuner.oracle.max_trials or 3, 3)  # two trials of Hyperband and the better one again
    arguments, keywords = give()
    tuner.search(*arguments, **keywords, verbose=0)
    trials = tuner.oracle.trials.values()
    assert len(trials) >= 2
    assert {trial.status for trial in trials} == {"COMPLETED"}, [trial.message for trial in trials]
    assert len(hypermodel.networks) >= len(trials)
    assert all(parameters <= MAX_PARAMS for _, parameters in hypermodel.networks)
    moved = [not hypermodel.candidates.admits(trial.hyperparameters.values) for trial in trials]
    assert any(moved)
    for trial, was_moved in zip(trials, moved, strict=True):
        stored = keras_tuner.engine.trial.Trial.load(str(Path(tuner.get_trial_dir(trial.trial_id)) / "trial.json"))
        spec, _ = hypermodel.sample(stored.hyperparameters)
        assert hypermodel.build(stored.hyperparameters).name == spec.name
        assert (stored.hyperparameters.values.get(BUILT) == spec.name) == was_moved
        assert (BUILT in stored.hyperparameters.values) == was_moved
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        (best,) = tuner.get_best_models()
    assert best.count_params() <= MAX_PARAMS
    _, accuracy = best.evaluate(_scale(HELD_OUT), HELD_OUT_LABELS, verbose=0)
    assert accuracy == pytest.approx(tuner.oracle.get_best_trials()[0].score)


def test_sequences(tmp_path):
    hypermodel = HyperResNet((16, 2), 3, space=SPACE, recipe=RECIPE)
    tuner = keras_tuner.RandomSearch(hypermodel, objective="val_loss", directory=tmp_path, max_trials=1, seed=0)
    sequences = _scale(PIXELS[:, :4]).reshape(48, 16, 2)
    tuner.search(sequences, LABELS, validation_split=0.25, epochs=1, verbose=0)
    assert tuner.get_best_models()[0].input_shape == (None, 16, 2)


def test_values_inside_the_budget_lose_the_name_of_others():
    """Grid search copies a trial's values to the next."""
    hypermodel = HyperResNet((8, 8, 1), 3, space=SPACE, max_params=MAX_PARAMS)
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    hp.values |= {"width": 8, "growth2": 1.0}
    assert hypermodel.build(hp).name == hp.values[BUILT] == "basic_post_cifar_d1-1_w4-4"
    hp.values |= {"width": 4}
    hypermodel.build(hp)
    assert BUILT not in hp.values


# fit


@pytest.fixture
def asked(monkeypatch):
    """What `training.fit` was asked for; nothing is trained."""
    calls = []

    def fit(model, batches, recipe, **options):
        calls.append({"batches": batches, "recipe": recipe, **options})
        return training.Trained((), 1, 0, 0, 0.0, interrupted=False)

    monkeypatch.setattr(training, "fit", fit)
    return calls


def _make_hypermodel(**options):
    hypermodel = HyperResNet((8, 8, 1), 3, space=SPACE, recipe=RECIPE, **options)
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    return hypermodel, hp


class Model:
    """Stands in where nothing is trained."""

    history = "history"
    optimizer = SimpleNamespace(iterations=0)


def test_the_schedule_spans_the_epochs_of_the_rung():
    hypermodel, hp = _make_hypermodel()
    model = hypermodel.build(hp)
    rates = []
    watch = Watch(second_batch=lambda model, _: rates.append(float(model.optimizer.learning_rate)))
    history = hypermodel.fit(
        hp,
        model,
        _scale(PIXELS),
        LABELS,
        validation_split=0.25,
        epochs=4,
        initial_epoch=2,
        callbacks=[watch],
        verbose=0,
    )
    assert history.epoch == [2, 3]
    assert int(model.optimizer.iterations) == 6  # 36 of the 48 images, in batches of 16
    schedule = training.make_schedule(RECIPE, 6)
    np.testing.assert_allclose(rates, [schedule(2), schedule(5)], rtol=1e-6)


def test_arrays_are_split_batched_and_drawn_anew_each_epoch(asked):
    hypermodel, hp = _make_hypermodel()
    images = np.arange(10.0).reshape(10, 1)
    assert hypermodel.fit(hp, Model(), images, list(range(10)), validation_split=0.2, batch_size=3) == "history"
    (call,) = asked
    batches = call["batches"]
    assert (call["recipe"].epochs, call["recipe"].batch_size, batches.steps_per_epoch) == (2, 3, 3)
    np.testing.assert_array_equal(batches.validation[0], images[8:])
    np.testing.assert_array_equal(batches.validation[1], [8, 9])
    assert call["validation_batch_size"] == 3

    def draw(batches):
        parts = [(x[:, 0].tolist(), y.tolist()) for x, y in batches]
        batches.on_epoch_end()
        assert all(x == y for x, y in parts)
        return [x for x, _ in parts]

    first, second = draw(batches.train), draw(batches.train)
    assert [len(part) for part in first] == [3, 3, 2]
    assert sorted(itertools.chain(*first)) == sorted(itertools.chain(*second)) == list(range(8))
    assert first != second
    hypermodel.fit(hp, Model(), x=images, y=np.arange(10), epochs=5)
    assert asked[1]["recipe"].epochs == 5
    assert len(asked[1]["batches"].train) == 1
    assert asked[1]["batches"].validation is None


def test_data_that_cannot_be_used(asked):
    hypermodel, hp = _make_hypermodel()
    with pytest.raises(InputError, match=r"tuner.search\(...\) is given, or on make_data\(recipe\). Received: neither"):
        hypermodel.fit(hp, Model())
    endless = tf.data.Dataset.from_generator(lambda: iter([]), output_types=tf.float32)
    with pytest.raises(InputError, match=r"give tuner.search\(...\) steps_per_epoch, or a dataset with a length"):
        hypermodel.fit(hp, Model(), endless)
    hypermodel.fit(hp, Model(), endless, steps_per_epoch=7)
    assert asked[0]["batches"].steps_per_epoch == 7
    with pytest.raises(InputError, match=r"one label per image, at least one. Received: 48 images, 47 labels"):
        hypermodel.fit(hp, Model(), _scale(PIXELS), LABELS[1:])
    with pytest.raises(InputError, match=r"at least one. Received: 0 images, 0 labels"):
        hypermodel.fit(hp, Model(), PIXELS[:0], LABELS[:0])


def test_make_data_with_and_without_first_epoch(asked):
    calls = []

    def plain(recipe):
        calls.append(recipe.shift_fraction)
        return [len(calls)], "held out"

    hypermodel, hp = _make_hypermodel(make_data=plain)
    hp.values["shift_fraction"] = 0.1875
    hypermodel.fit(hp, Model())
    assert calls == [0.1875, 0.1875]
    assert asked[0]["batches"] == training.Batches([1], 1, "held out", [2])

    def resumable(recipe, *, first_epoch):
        calls.append(first_epoch)
        return [0], None

    calls.clear()
    hypermodel, hp = _make_hypermodel(make_data=resumable)
    hypermodel.fit(hp, Model(), epochs=9, initial_epoch=3)
    done = SimpleNamespace(epochs=[Epoch(4, 0.1), Epoch(5, 0.1)])
    hypermodel.fit(hp, Model(), epochs=9, initial_epoch=3, checkpoint=done, validation_data="other")
    assert calls == [3, 3, 5, 5]
    assert [call["first_epoch"] for call in asked[1:]] == [3, 3]
    assert asked[2]["batches"].validation == "other"
    assert asked[2]["checkpoint"] is done


def test_augmentation_is_searched_where_the_search_makes_its_batches():
    with_it, hp = _make_hypermodel(make_data=_make_data)
    assert "shift_fraction" in hp
    assert with_it.sample(hp)[1].shift_fraction == hp["shift_fraction"]
    without, hp = _make_hypermodel()
    assert "shift_fraction" not in hp
    assert without.sample(hp)[1].shift_fraction == RECIPE.shift_fraction


# Our tuner, with real trainings

EPOCHS = 3


def _search_one(folder, callbacks=()):
    """Runs or goes on with a search of one trial; returns the tuner."""
    hypermodel = HyperResNet((8, 8, 1), 3, space=SPACE, recipe=RECIPE, make_data=_make_data)
    tuner = make_tuner("random", hypermodel, max_trials=1, epochs=EPOCHS, seed=5, directory=folder)
    tuner.search(epochs=EPOCHS, verbose=0, callbacks=list(callbacks))
    return tuner


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The epochs, the trial and the weights of a search that nothing interrupted."""
    keras.utils.clear_session(free_memory=False)
    return _get_results(_search_one(tmp_path_factory.mktemp("undisturbed")))


def _get_results(tuner):
    epochs = Progress(tuner.get_trial_dir("0")).epochs
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        (model,) = tuner.get_best_models()
    return epochs, _read_trials(tuner), model.get_weights()


def _stop_by_signal(*_):
    signal.raise_signal(signal.SIGINT)


def _stop_by_exception(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("moment", "stop", "whole"),
    [
        ("epoch_begin", _stop_by_exception, False),
        ("second_batch", _stop_by_signal, False),
        ("epoch_end", _stop_by_exception, True),
    ],
)
def test_a_trial_interrupted_in_every_epoch_comes_to_the_same(tmp_path, undisturbed, moment, stop, whole):
    """Bit for bit, and no epoch that was finished is trained again."""
    begun = []
    for epoch in range(EPOCHS):

        def interrupt(_, index, epoch=epoch):
            if index == epoch:
                stop()

        with pytest.raises(KeyboardInterrupt):
            _search_one(
                tmp_path, [Watch(epoch_begin=lambda _, index: begun.append(index)), Watch(**{moment: interrupt})]
            )
        epochs = Progress(tmp_path / "untitled_project" / "trial_0").epochs
        assert [epoch.number for epoch in epochs] == list(range(1, epoch + 1 + whole))
    tuner = _search_one(tmp_path, [Watch(epoch_begin=lambda _, index: begun.append(index))])
    assert begun == (list(range(EPOCHS)) if whole else [n for epoch in range(EPOCHS) for n in (epoch, epoch)])
    epochs, trials, weights = _get_results(tuner)
    assert epochs == undisturbed[0]
    assert trials == undisturbed[1]
    for mine, theirs in zip(weights, undisturbed[2], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_undisturbed_search_is_one_worth_comparing_with(undisturbed):
    epochs, trials, _ = undisturbed
    assert [epoch.number for epoch in epochs] == [1, 2, 3]
    assert trials["trial_0"]["status"] == "COMPLETED"
    best = min(epochs, key=lambda epoch: epoch.val_loss)
    assert trials["trial_0"]["best_step"] == best.number
    assert trials["trial_0"]["score"] == pytest.approx(best.val_accuracy)


def test_a_promoted_trial_starts_from_the_weights_of_the_one_it_comes_from(tmp_path):
    begun = []  # (weights at the beginning, epochs) of each training
    hypermodel = HyperResNet((8, 8, 1), 3, space=SPACE, recipe=RECIPE, make_data=_make_data)
    tuner = make_tuner("hyperband", hypermodel, max_trials=3, epochs=2, factor=2, seed=0, directory=tmp_path)
    watch = Watch(
        train_begin=lambda model, _: begun.append((model.get_weights(), [])),
        epoch_begin=lambda _, epoch: begun[-1][1].append(epoch),
    )
    tuner.search(verbose=0, callbacks=[watch])
    assert [epochs for _, epochs in begun] == [[0], [0], [1]]
    promoted = tuner.oracle.trials["2"].hyperparameters
    source = tuner.oracle.trials[promoted.values["tuner/trial_id"]]
    assert source.score == max(tuner.oracle.trials[name].score for name in ("0", "1"))
    model = hypermodel.build(promoted)
    models.load_weights(model, tuner._get_checkpoint_fname(source.trial_id))
    for mine, theirs in zip(begun[2][0], model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert [epoch.number for epoch in Progress(tuner.get_trial_dir("2")).epochs] == [2]


@pytest.mark.parametrize(("part", "name"), [(0, "loss"), (1, "val_loss")])
def test_a_loss_that_is_no_number_fails_the_trial_and_the_search_goes_on(tmp_path, part, name):
    rates = []

    def make_data(recipe, first_epoch=0):
        rates.append(recipe.learning_rate)
        made = list(_make_data(recipe, first_epoch))
        if recipe.learning_rate == rates[0]:
            made[part] = made[part].map(lambda images, labels: (images * float("nan"), labels))
        return made

    hypermodel = HyperResNet((8, 8, 1), 3, space=SPACE, recipe=RECIPE, make_data=make_data)
    tuner = make_tuner("random", hypermodel, max_trials=2, seed=0, directory=tmp_path)
    tuner.search(verbose=0, epochs=1)
    reason = f"{name} became nan in epoch 1"
    assert [(trial.status, trial.message) for trial in tuner.oracle.trials.values()] == [
        ("FAILED", reason),
        ("COMPLETED", None),
    ]
    assert _read_trials(tuner)["trial_0"]["message"] == reason
    assert (Path(tuner.get_trial_dir("0")) / "reason.txt").read_text() == reason
    assert tuner.get_best_hyperparameters()[0].values == tuner.oracle.trials["1"].hyperparameters.values


def test_divergence_fails_the_trial(tmp_path):
    space = Space(**{**SPACE.to_dict(), "learning_rates": (1e30,)})
    hypermodel = HyperResNet((8, 8, 1), 3, space=space, recipe=RECIPE, make_data=_make_data)
    tuner = make_tuner("random", hypermodel, max_trials=1, seed=0, directory=tmp_path)
    tuner.search(verbose=0)
    (trial,) = tuner.oracle.trials.values()
    assert trial.status == "FAILED"
    assert trial.message.startswith(("loss became ", "val_loss became "))


# Our tuner, with trainings that cost nothing: it is what is on disk that matters


class Fake(HyperResNet):
    """Its training is arithmetic on one weight; `work(trial's learning rate, epoch)` may raise."""

    def __init__(self, work=None, **options):
        super().__init__((8, 8, 1), 3, space=SPACE, recipe=RECIPE, **options)
        self.work = work or (lambda rate, epoch: None)

    def build(self, hp):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.5), "mse")
        return model

    def fit(self, hp, model, *, epochs, initial_epoch, checkpoint, callbacks, **_):
        rate = self.sample(hp)[1].learning_rate
        weight = model.trainable_variables[0]
        log, first = EpochLog(checkpoint.epochs), initial_epoch
        if log.epochs:
            first = log.epochs[-1].number
            checkpoint.resume(model)
        for epoch in range(first, epochs):
            for callback in callbacks:
                callback.set_model(model)
                callback.on_epoch_begin(epoch)
            self.work(rate, epoch)
            weight.assign(weight * 0.5 + rate * (epoch + 1))
            loss = abs(float(weight[0, 0]) - 0.02)
            logs = {"loss": loss, "accuracy": 0.5, "val_loss": loss, "val_accuracy": round(1 - loss, 1)}
            log.add(Epoch(epoch + 1, 0.5, logs))
            checkpoint.save_epoch(model, log, whole=True)
            for callback in callbacks:
                callback.on_epoch_end(epoch, logs)


@pytest.fixture
def light(monkeypatch):
    """Without the collection of garbage before each trial, which is most of what a fake one takes."""
    monkeypatch.setattr(tuner_module.gc, "collect", lambda: None)
    monkeypatch.setattr(keras.backend, "clear_session", lambda: None)


class Death(BaseException):
    """The process is gone."""


def _search_fakes(folder, kind="random", trials=3, work=None, **search_options):
    options = {"factor": 2} if kind == "hyperband" else {}
    tuner = make_tuner(
        kind, Fake(work), max_trials=trials, epochs=2, seed=0, directory=folder, project_name="p", **options
    )
    tuner.search(verbose=0, **search_options)
    return tuner


def _tell(tuner):
    """All that a search has come to: trials, epochs, kept weights."""
    results = {}
    for name, trial in _read_trials(tuner).items():
        for metric in trial["metrics"]["metrics"].values():
            for seen in metric["observations"]:  # the oracle may have been told twice
                (seen["value"],) = set(seen["value"])
        model = tuner.hypermodel.build(None)
        model.load_weights(tuner._get_checkpoint_fname(trial["trial_id"]))
        progress = Progress(Path(tuner.project_dir) / name)
        results[name] = trial, progress.epochs, [weight.tolist() for weight in model.get_weights()]
    return results


@pytest.mark.parametrize("kind", ["random", "hyperband", "bayesian", "grid"])
def test_a_death_before_or_after_any_write_loses_nothing(light, tmp_path, monkeypatch, kind):
    """Every file is written beside and renamed, so what a death can cut apart is the sequence of renames."""
    replace, written = files.os.replace, []

    def count(source, target):
        written.append(Path(target))
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", count)
    expected = _tell(tuner := _search_fakes(tmp_path / "whole", kind))
    assert len(expected) == 3
    there = {path for path in Path(tuner.project_dir).rglob("*") if path.is_file()}
    assert there <= set(written)
    kinds = ["random", "hyperband", "bayesian", "grid"]
    for moment in range(kinds.index(kind), 2 * len(written), 11):
        left = moment

        def die(source, target):
            nonlocal left
            before, left = left, left - 2
            if before == 0:
                raise Death
            replace(source, target)
            if before == 1:
                raise Death

        monkeypatch.setattr(files.os, "replace", die)
        folder = tmp_path / str(moment)
        with pytest.raises(Death):
            _search_fakes(folder, kind)
        monkeypatch.setattr(files.os, "replace", replace)
        assert _tell(_search_fakes(folder, kind)) == expected, moment


def test_without_a_seed_the_first_trial_goes_on_too(light, tmp_path):
    def search(work):
        tuner = make_tuner("random", Fake(work), max_trials=1, epochs=2, directory=tmp_path, project_name="p")
        tuner.search(verbose=0)

    def die(rate, epoch):
        work.append((rate, epoch))
        if epoch == 1:
            raise Death

    work = []
    random.seed(1)
    with pytest.raises(Death):
        search(die)
    random.seed(2)  # that KerasTuner draws another seed
    search(lambda *step: work.append(step))
    (rate, _), *_ = work
    assert work == [(rate, 0), (rate, 1), (rate, 1)]


def test_a_finished_search_is_not_repeated_and_more_trials_add_to_it(light, tmp_path):
    work = []
    tuner = _search_fakes(tmp_path, work=lambda *step: work.append(step))
    before = _tell(tuner)
    assert len(work) == 3 * 2
    assert _tell(_search_fakes(tmp_path, work=lambda *step: work.append(step))) == before
    assert len(work) == 3 * 2
    after = _tell(_search_fakes(tmp_path, trials=4, work=lambda *step: work.append(step)))
    assert len(work) == 4 * 2
    assert {name: after[name] for name in before} == before


class ResourceExhaustedError(Exception):
    """As TensorFlow's is called."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "out of memory: MemoryError"),
        (ResourceExhaustedError("OOM when allocating\nmore"), "out of memory: OOM when allocating"),
        (tf.errors.ResourceExhaustedError(None, None, "no memory"), "out of memory: no memory"),
        (RuntimeError("CUDA out of memory"), "out of memory: CUDA out of memory"),
    ],
)
def test_lack_of_memory_fails_the_trial(light, tmp_path, error, message):
    rates = []

    def work(rate, epoch):
        rates.append(rate)
        if rate == rates[0]:
            raise error

    tuner = _search_fakes(tmp_path, work=work)
    assert [(trial.status, trial.message) for trial in tuner.oracle.trials.values()] == [
        ("FAILED", message),
        ("COMPLETED", None),
        ("COMPLETED", None),
    ]
    assert len(rates) == 1 + 2 * 2


def test_a_bug_stops_the_search_and_its_trial_is_finished_once_it_is_mended(light, tmp_path):
    expected = _tell(_search_fakes(tmp_path / "whole"))

    def work(rate, epoch):
        if epoch == 1:
            raise ValueError("a bug")

    for _ in range(5):  # as often as it takes to find the bug
        with pytest.raises(ValueError, match="a bug"):
            _search_fakes(tmp_path / "bug", work=work)
    error = (tmp_path / "bug" / "p" / "trial_0" / "error.txt").read_text()
    assert "ValueError: a bug" in error
    assert "Traceback" in error
    begun = []
    mended = _search_fakes(tmp_path / "bug", work=lambda rate, epoch: begun.append(epoch))
    assert _tell(mended) == expected
    assert begun == [1, 0, 1, 0, 1]
    assert not (tmp_path / "bug" / "p" / "trial_0" / "error.txt").exists()


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_trial_that_kills_its_process_again_and_again_is_given_up(light, tmp_path, epoch):
    rates = []

    def work(rate, now):
        rates.append(rate)
        if rate == rates[0] and now == epoch:
            raise Death

    for _ in range(3):
        with pytest.raises(Death):
            _search_fakes(tmp_path, work=work)
    tuner = _search_fakes(tmp_path, work=work)
    message = f"the worker died 3 times in epoch {epoch + 1} of this trial: out of memory?"
    assert [(trial.status, trial.message) for trial in tuner.oracle.trials.values()] == [
        ("FAILED", message),
        ("COMPLETED", None),
        ("COMPLETED", None),
    ]


def test_starts_that_were_forgiven_do_not_count(light, tmp_path):
    progress = Progress(tmp_path)
    for _ in range(5):
        progress.begin()
        progress.forgive()
    assert Progress(tmp_path).attempts == 0


def test_above_its_memory_the_search_is_left_to_another_process(light, tmp_path):
    work, rounds = [], 0
    expected = _tell(_search_fakes(tmp_path / "whole"))
    while True:
        tuner = make_tuner(
            "random", Fake(lambda *step: work.append(step)), max_trials=3, seed=0, directory=tmp_path, project_name="p"
        )
        tuner.memory_limit = 1
        tuner.search(verbose=0)
        rounds += 1
        if not tuner.out_of_memory:
            break
        assert len(work) == 2 * rounds
    assert rounds == 4  # the last one finds that nothing is left
    assert len(work) == len(set(work)) == 3 * 2
    assert _tell(tuner) == expected


def test_before_a_trial_that_would_not_fit_the_search_is_left_to_another_process(light, tmp_path, monkeypatch):
    work = []
    tuner = make_tuner("random", Fake(lambda *step: work.append(step)), max_trials=3, seed=0, directory=tmp_path)
    monkeypatch.setattr(tuner.hypermodel.candidates, "estimate_memory", lambda spec: 10**16)
    tuner.memory_limit = 10**15  # the first trial of a process has its chance
    tuner.search(verbose=0)
    assert tuner.out_of_memory
    assert len(work) == 2


def test_equal_accuracies_are_ranked_by_the_loss(light, tmp_path):
    tuner = _search_fakes(tmp_path, trials=6)
    last = {name: min(epochs, key=lambda e: e.val_loss) for name, (_, epochs, _) in _tell(tuner).items()}
    by_hand = sorted(last.values(), key=lambda epoch: (-epoch.val_accuracy, epoch.val_loss))
    accuracies = [epoch.val_accuracy for epoch in by_hand]
    assert len(set(accuracies)) < len(accuracies)  # there are ties
    best = [f"trial_{trial.trial_id}" for trial in tuner.oracle.get_best_trials(6)]
    assert [last[name] for name in best] == by_hand


def test_a_tuner_refuses(light, tmp_path):
    hypermodel = Fake()
    with pytest.raises(InputError, match=r"tuner must be one of .* Received: 'hyperbnd'. Did you mean 'hyperband'"):
        make_tuner("hyperbnd", hypermodel, directory=tmp_path)
    oracle = make_tuner("random", hypermodel, directory=tmp_path).oracle
    with pytest.raises(InputError, match=r"hypermodel must be a HyperResNet. Received: <function"):
        Tuner(oracle, lambda hp: None, directory=tmp_path)


def test_a_chief_that_does_not_answer_is_named(monkeypatch):
    import grpc

    class Unreachable(grpc.RpcError):
        def details(self):
            return "Deadline Exceeded"

    class Stub:
        def CreateTrial(self, request, **options):
            return request, options

        def EndTrial(self, request, **options):
            raise Unreachable

    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "10.0.0.7")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "8000")
    stub = _TimedStub(Stub(), 2.5)
    assert stub.CreateTrial("r", wait_for_ready=True, timeout=3600) == ("r", {"wait_for_ready": True, "timeout": 2.5})
    message = r"The chief at 10.0.0.7:8000 did not answer EndTrial within 2.5 s: Deadline Exceeded. KERASTUNER_ORACLE_"
    with pytest.raises(InputError, match=message):
        stub.EndTrial("r", timeout=3600)
