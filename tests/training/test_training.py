"""Recipes, schedules, BN re-estimation, choice of the best epoch, evaluation."""

import json
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import TINY
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from keras_resnet import InputError, Preprocessing, Recipe, build, reestimate_batchnorm, training
from keras_resnet.epochs import Epoch, EpochLog
from keras_resnet.recipes import default_model, default_recipe


@pytest.fixture(autouse=True)
def _clear():
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)


def _rates(recipe, steps):
    schedule = training.make_schedule(recipe, steps)
    return np.array([float(schedule(step)) if callable(schedule) else schedule for step in range(steps)])


def test_recipes_are_json_both_ways():
    for record in (Recipe(epochs=3, clip_norm=1.0), Preprocessing((8, 9), 1, (0.5,), (0.25,))):
        assert type(record).from_dict(json.loads(json.dumps(record.to_dict()))) == record
    with pytest.raises(InputError, match=r"Received: 'epoch'. Did you mean 'epochs'"):
        Recipe.from_dict({"epoch": 3})
    with pytest.raises(InputError, match=r"A Preprocessing needs mean. Received: image_size_pixels, channels, std"):
        Preprocessing.from_dict({"image_size_pixels": [8, 8], "channels": 1, "std": [1.0]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, r"epochs must be an integer of at least 1. Received: 0"),
        ({"batch_size": -1}, r"batch_size must be an integer of at least 1. Received: -1"),
        ({"max_steps": 0}, r"max_steps must be an integer of at least 1"),
        ({"seed": -1}, r"seed must be an integer of at least 0"),
        (
            {"optimizer": "adamm"},
            r"optimizer must be one of 'sgd', 'adam', 'adamw'. Received: 'adamm'. Did you mean 'adam'",
        ),
        ({"schedule": "linear"}, r"schedule must be one of 'cosine', 'step', 'constant'. Received: 'linear'"),
        ({"learning_rate": 0.0}, r"learning_rate must be above 0. Received: 0.0"),
        ({"learning_rate": float("nan")}, r"learning_rate must be above 0. Received: nan"),
        ({"momentum": 1.0}, r"momentum must be at least 0 and below 1. Received: 1.0"),
        ({"validation_split": 1.0}, r"validation_split must be at least 0 and below 1"),
        ({"weight_decay": -0.1}, r"weight_decay must be at least 0. Received: -0.1"),
        ({"clip_norm": 0.0}, r"clip_norm must be above 0"),
        ({"clip_norm": float("inf")}, r"clip_norm must be above 0. Received: inf"),
        ({"dtype": "bfloat16"}, r"dtype must be one of 'float32', 'mixed_bfloat16', 'mixed_float16'. Rec.*'bfloat16'"),
        ({"seed": 2**32}, r"seed must be below 2\*\*32. Received: 4294967296"),
    ],
)
def test_bad_recipes(changes, message):
    with pytest.raises(InputError, match=message):
        Recipe(**changes)


def test_defaults_follow_the_data():
    assert default_recipe("mnist", 60_000).shift_fraction == 0
    assert not default_recipe("digits", 1_438).horizontal_flip
    assert default_recipe("cifar10", 50_000).horizontal_flip
    assert default_recipe("digits", 1_438).epochs > default_recipe("mnist", 60_000).epochs
    assert (default_model((32, 32)), default_model((65, 20))) == ("resnet20_cifar", "resnet18")
    assert Recipe(batch_size=256).peak_learning_rate == pytest.approx(2 * Recipe(batch_size=128).peak_learning_rate)
    assert Recipe(optimizer="adam").peak_learning_rate == Recipe(optimizer="adam", batch_size=8).peak_learning_rate


def test_cosine_warms_up_and_falls_to_zero():
    rates = _rates(Recipe(learning_rate=0.4, warmup_fraction=0.2), 50)
    np.testing.assert_allclose(rates[:11], np.linspace(0, 0.4, 11), atol=1e-6)
    np.testing.assert_allclose(rates[10:], 0.2 * (1 + np.cos(np.pi * np.arange(40) / 40)), atol=1e-6)


def test_constant_and_step_schedules():
    np.testing.assert_allclose(_rates(Recipe(learning_rate=0.4, schedule="constant", warmup_fraction=0), 9), 0.4)
    rates = _rates(Recipe(learning_rate=0.4, schedule="constant", warmup_fraction=0.2), 50)
    np.testing.assert_allclose(rates[10:], 0.4, atol=1e-6)
    rates = _rates(Recipe(learning_rate=0.4, schedule="step", warmup_fraction=0), 40)
    np.testing.assert_allclose(rates, [0.4] * 20 + [0.04] * 10 + [0.004] * 10, rtol=1e-5)
    rates = _rates(Recipe(learning_rate=0.4, schedule="step", warmup_fraction=0.1), 40)
    np.testing.assert_allclose(rates[:5], [0.1, 0.2, 0.3, 0.4, 0.4], rtol=1e-5)
    np.testing.assert_allclose(rates[18:22], [0.4, 0.4, 0.04, 0.04], rtol=1e-5)
    for schedule in ("cosine", "step", "constant"):
        assert (_rates(Recipe(schedule=schedule), 1) >= 0).all()  # one step is enough for any


def test_bn_and_biases_do_not_decay():
    model = build(TINY, (8, 8, 1), 3, classifier_activation=None)
    training.compile_model(
        model, Recipe(learning_rate=0.1, weight_decay=0.5, schedule="constant", warmup_fraction=0), steps=5
    )
    before = [weight.numpy().copy() for weight in model.trainable_weights]
    for weight in model.trainable_weights:
        weight.assign(weight + 1)  # gammas and biases away from where they start
    before = [weight.numpy().copy() for weight in model.trainable_weights]
    model.optimizer.apply([tf.zeros(w.shape) for w in model.trainable_weights], model.trainable_weights)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        factor = 1 - 0.1 * 0.5 if len(weight.shape) > 1 else 1.0
        np.testing.assert_allclose(weight.numpy(), old * factor, rtol=1e-5, err_msg=weight.path)


@pytest.mark.parametrize(("optimizer", "weight_decay"), [("sgd", 0.0), ("adam", 0.01), ("adamw", 0.0)])
def test_every_optimizer_trains(optimizer, weight_decay):
    model = build(TINY, (8, 8, 1), 2, classifier_activation=None)
    training.compile_model(model, Recipe(optimizer=optimizer, clip_norm=1.0, weight_decay=weight_decay), steps=20)
    x = np.concatenate([np.zeros((8, 8, 8, 1)), np.ones((8, 8, 8, 1))]).astype("float32")
    y = np.repeat([0, 1], 8)
    losses = [float(model.train_on_batch(x, y)[0]) for _ in range(20)]
    assert losses[-1] < losses[1]


def test_bn_statistics_of_a_batch_of_two_by_hand():
    """S5: per channel, over batch and pixels: mean of [1, 3, 5, 7] is 4, of [2, 2, 4, 4] is 3; variances 5 and 1."""
    inputs = keras.Input((1, 2, 2))
    model = keras.Model(inputs, keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(inputs))
    x = np.array([[[[1, 2], [3, 2]]], [[[5, 4], [7, 4]]]], np.float32)
    assert reestimate_batchnorm(model, [x]) == 2
    bn = model.layers[1]
    np.testing.assert_allclose(bn.moving_mean, [4, 3])
    np.testing.assert_allclose(bn.moving_variance, [5, 1])
    assert bn.momentum == 0.9
    np.testing.assert_allclose(model(x)[0, 0, 0], [(1 - 4) / np.sqrt(5 + 1e-5), (2 - 3) / np.sqrt(1 + 1e-5)], rtol=1e-5)


def test_reestimation_is_the_statistic_over_all_batches():
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, keras.layers.BatchNormalization()(inputs))
    x = np.random.default_rng(0).normal(3, 2, (50, 4, 4, 3)).astype("float32")
    batches = [(x[:32], None), (x[32:], None)]  # of unequal size
    assert reestimate_batchnorm(model, batches) == 50
    np.testing.assert_allclose(model.layers[1].moving_mean, x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(model.layers[1].moving_variance, x.var((0, 1, 2)), rtol=1e-4)
    assert reestimate_batchnorm(model, batches, batches=1) == 32
    np.testing.assert_allclose(model.layers[1].moving_mean, x[:32].mean((0, 1, 2)), rtol=1e-5)


def test_reestimation_changes_no_weight_and_leaves_training_as_it_was():
    model = build(TINY, (8, 8, 1), 3, classifier_activation=None)
    training.compile_model(model, Recipe(), steps=10)
    x, y = np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype("float32"), np.arange(16) % 3
    model.train_on_batch(x, y)
    weights = [w.numpy().copy() for w in model.trainable_weights]
    estimator = training.BatchNormEstimator(model)
    for _ in range(2):
        estimator([(x, y)])
    for weight, old in zip(model.trainable_weights, weights, strict=True):
        np.testing.assert_array_equal(weight, old)
    bn = model.get_layer("stem_bn")
    before = bn.moving_mean.numpy().copy()
    # The compiled step still averages: a tenth of the way to the new batch, not all of it.
    convolved = keras.Model(model.input, model.get_layer("stem_conv").output)(x + 100).numpy().mean((0, 1, 2))
    model.train_on_batch(x + 100, y)
    after = bn.moving_mean.numpy()
    np.testing.assert_allclose(after, 0.9 * before + 0.1 * convolved, rtol=1e-3, atol=1e-3)


def test_reestimation_needs_images_and_bn():
    model = build(TINY, (8, 8, 1), 3)
    before = model.get_layer("stem_bn").moving_variance.numpy()
    with pytest.raises(InputError, match=r"needs at least one batch. Received: an empty dataset"):
        reestimate_batchnorm(model, [])
    np.testing.assert_array_equal(model.get_layer("stem_bn").moving_variance, before)
    inputs = keras.Input((2,))
    assert reestimate_batchnorm(keras.Model(inputs, keras.layers.Dense(1)(inputs)), []) == 0


def _dataset(x, y, batch=8):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch)


def _fit_with_losses(monkeypatch, losses, checkpoint=None, **options):
    """A training whose epochs end with chosen validation losses; returns (model, what it came to, weights by epoch)."""
    model, batches, recipe = _make_training(epochs=len(losses), **options)
    values, kept = iter(losses), []
    real = training.callbacks.KeepEpochs.on_epoch_end

    def on_epoch_end(self, epoch, logs=None):
        kept.append(self.model.get_weights())
        real(self, epoch, {**(logs or {}), "val_loss": next(values)})

    monkeypatch.setattr(training.callbacks.KeepEpochs, "on_epoch_end", on_epoch_end)
    return model, training.fit(model, _read(batches), recipe, checkpoint=checkpoint, verbose=0), kept


def test_the_best_epoch_is_kept_not_the_last(monkeypatch):
    model, trained, kept = _fit_with_losses(monkeypatch, [3.0, 1.0, 2.0, float("nan")], reestimate_bn=False)
    assert trained.best_epoch == 2
    assert [epoch.number for epoch in trained.epochs] == [1, 2, 3, 4]
    assert (trained.steps, trained.bn_images, trained.interrupted) == (8, 0, False)
    for a, b, last in zip(model.get_weights(), kept[1], kept[3], strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.ndim < 2 or (a != last).any()


def test_divergence_is_an_error(monkeypatch):
    with pytest.raises(
        training.Diverged, match=r"training diverged. Lower the learning rate .* Received: losses \[nan"
    ):
        _fit_with_losses(monkeypatch, [float("nan"), float("inf")])


def test_bn_is_reestimated_by_the_steps_taken(monkeypatch):
    """Before validations by the steps planned, at the end by those taken, though the optimizer's counter goes back."""
    asked = []
    monkeypatch.setattr(training.fitting, "reestimation_batches", lambda recipe, steps: asked.append(steps) or 1)
    model, batches, recipe = _make_training()
    assert training.fit(model, _read(batches), recipe, verbose=0).bn_images == 8
    assert asked == [6]  # without a validation there is one, at the end
    asked.clear()
    model, batches, recipe = _make_training(epochs=3)
    stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", epoch == 1))

    class Backward(training.MemoryCheckpoint):
        def load_best(self, model):
            model.optimizer.iterations.assign(1)
            return super().load_best(model)

    trained = training.fit(model, _read(batches, batches), recipe, checkpoint=Backward(), callbacks=[stop], verbose=0)
    assert asked == [6, 6, 4]
    assert trained.steps == 4
    asked.clear()
    model.evaluate(batches, verbose=0)
    assert asked == []  # an evaluation that is not of this training


def test_a_checkpoint_whose_model_nobody_uses_is_not_reestimated():
    class Elsewhere(training.MemoryCheckpoint):
        def load_best(self, model):
            return False

    model, batches, recipe = _make_training(reestimate_bn=True)
    assert training.fit(model, _read(batches), recipe, checkpoint=Elsewhere(), verbose=0).bn_images == 0


def test_reestimation_that_fails_leaves_no_batch_behind():
    model = build(TINY, (8, 8, 1), 3)
    before = [w.numpy().copy() for w in model.non_trainable_weights]

    def broken():
        yield np.ones((4, 8, 8, 1), np.float32)
        raise RuntimeError("disk gone")

    with pytest.raises(RuntimeError, match="disk gone"):
        reestimate_batchnorm(model, broken())
    for weight, old in zip(model.non_trainable_weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert model.get_layer("stem_bn").momentum == 0.9


def test_fit_stops_at_max_steps_and_keeps_the_last_epoch_without_validation():
    model = build(TINY, (8, 8, 1), 2, classifier_activation=None)
    x, y = np.random.default_rng(0).normal(size=(32, 8, 8, 1)).astype("float32"), np.arange(32) % 2
    recipe = Recipe(epochs=5, batch_size=8, max_steps=6)
    trained = training.fit(model, training.Batches(_dataset(x, y), 4), recipe, verbose=0)
    assert int(model.optimizer.iterations) == trained.steps == 6
    assert trained.best_epoch == 2
    assert training.count_steps(recipe, 4) == 6


def test_bn_is_reestimated_by_default_only_after_short_training():
    assert training.reestimation_batches(Recipe(batch_size=64), 1000) == 128
    assert training.reestimation_batches(Recipe(batch_size=64), 20) == 20
    assert training.reestimation_batches(Recipe(batch_size=64), 10_000) == 0
    assert training.reestimation_batches(Recipe(reestimate_bn=True), 10_000) > 0
    assert training.reestimation_batches(Recipe(reestimate_bn=False), 100) == 0


def test_evaluate_equals_scikit_learn():
    model = build(TINY, (8, 8, 1), 3, classifier_activation=None)
    x, y = np.random.default_rng(0).normal(0, 5, size=(20, 8, 8, 1)).astype("float32"), np.arange(20) % 3
    evaluation = training.evaluate(model, _dataset(x, y, 7), y, verbose=0)
    logits = np.asarray(model(x), np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert evaluation.loss == pytest.approx(log_loss(y, probabilities, labels=[0, 1, 2]), rel=1e-5)
    assert evaluation.accuracy == (logits.argmax(1) == y).mean()
    assert evaluation.confusion.sum() == evaluation.num_examples == 20
    assert np.trace(evaluation.confusion) == round(evaluation.accuracy * 20)
    with pytest.raises(InputError, match=r"one label per image. Received: 20 images, 19 labels"):
        training.evaluate(model, _dataset(x, y), y[:-1], verbose=0)


def test_a_training_needs_a_step():
    with pytest.raises(InputError, match=r"at least 1 step. Received: 0"):
        training.compile_model(build(TINY, (8, 8, 1), 3), Recipe(), steps=0)


def _make_training(**changes):
    """A compiled-to-be network, batches of two classes and a recipe of three epochs."""
    keras.utils.set_random_seed(0)
    model = build(TINY, (8, 8, 1), 2, classifier_activation=None)
    x, y = np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype("float32"), np.arange(16) % 2
    return model, _dataset(x, y), Recipe(**{"epochs": 3, "batch_size": 8, **changes})


def _read(batches, validation=None, bn=None):
    """The batches of `_make_training` as `fit` takes them."""
    return training.Batches(batches, 2, validation, bn)


def test_the_schedule_spans_the_epochs_that_are_left():
    model, batches, recipe = _make_training(epochs=5)
    begun = []
    watch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch))
    trained = training.fit(model, _read(batches, batches), recipe, first_epoch=3, callbacks=[watch], verbose=0)
    assert begun == [3, 4]
    assert [epoch.number for epoch in trained.epochs] == [4, 5]
    assert trained.steps == 4
    schedule = training.make_schedule(recipe, 4)
    np.testing.assert_allclose([e.learning_rate for e in trained.epochs], [schedule(2), schedule(4)], rtol=1e-6)


class _OnDisk(training.MemoryCheckpoint):
    """Weights and optimizer after each epoch in files, and where to go on from."""

    def __init__(self, folder, epochs=()):
        super().__init__()
        self.folder, self.epochs, self.calls = folder, list(epochs), []

    def resume(self, model):
        model.load_weights(self.folder / f"epoch_{len(self.epochs)}.weights.h5")

    def save_epoch(self, model, log, *, whole):
        super().save_epoch(model, log, whole=whole)
        self.calls.append((len(log.epochs), log.latest_is_best, whole))
        model.save_weights(self.folder / f"epoch_{len(log.epochs)}.weights.h5")


@pytest.mark.parametrize("compiled", [False, True])
def test_an_interrupted_training_goes_on_to_the_same_end(tmp_path, compiled):
    """Weights, optimizer and epochs after the second of three, and the third in another model."""
    model, batches, recipe = _make_training(reestimate_bn=False)
    whole = training.fit(model, _read(batches, batches), recipe, checkpoint=_OnDisk(tmp_path), verbose=0)
    weights = model.get_weights()
    other, batches, _ = _make_training(reestimate_bn=False)
    if compiled:  # before anybody knew how many steps there are
        training.compile_model(other, recipe)
    begun = []
    watch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch))
    rest = training.fit(
        other,
        _read(batches, batches),
        recipe,
        checkpoint=_OnDisk(tmp_path, whole.epochs[:2]),
        compiled=compiled,
        callbacks=[watch],
        verbose=0,
    )
    assert begun == [2]
    assert (rest.steps, rest.epochs, rest.best_epoch) == (6, whole.epochs, whole.best_epoch)
    if whole.best_epoch == 3:  # otherwise the earlier part has the best weights
        for mine, theirs in zip(other.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    for optimizer in (other.optimizer, model.optimizer):
        assert int(optimizer.iterations) == 6


def test_a_compiled_model_keeps_its_loss_metrics_and_optimizer():
    model, batches, recipe = _make_training(learning_rate=0.25)
    optimizer = keras.optimizers.Adam()
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseTopKCategoricalAccuracy(1, name="top")],
    )
    trained = training.fit(model, _read(batches), recipe, compiled=True, verbose=0)
    assert model.optimizer is optimizer
    assert set(trained.epochs[0].figures) == {"loss", "top"}
    schedule = training.make_schedule(recipe, 6)
    np.testing.assert_allclose(
        [e.learning_rate for e in trained.epochs], [schedule(2), schedule(4), schedule(6)], rtol=1e-5
    )


@pytest.mark.parametrize("of_its_own", [True, False])
def test_bn_is_reestimated_on_data_of_its_own(of_its_own):
    model, batches, recipe = _make_training(epochs=1, reestimate_bn=True)
    x = np.random.default_rng(1).normal(5, 1, (8, 8, 8, 1)).astype("float32")
    trained = training.fit(model, _read(batches, bn=[(x, None)] if of_its_own else None), recipe, verbose=0)
    assert trained.bn_images == (8 if of_its_own else 16)
    if not of_its_own:
        x = np.concatenate([images for images, _ in batches])
    convolved = keras.Model(model.input, model.get_layer("stem_conv").output)(x).numpy().mean((0, 1, 2))
    np.testing.assert_allclose(model.get_layer("stem_bn").moving_mean, convolved, rtol=1e-3, atol=1e-4)


def test_callbacks_see_the_epoch_after_it_was_kept(tmp_path):
    model, batches, recipe = _make_training()
    seen, checkpoint = [], _OnDisk(tmp_path)
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append((epoch, len(checkpoint.calls), set(logs)))
    )
    trained = training.fit(model, _read(batches, batches), recipe, checkpoint=checkpoint, callbacks=[watch], verbose=0)
    names = {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert [entry[:2] for entry in seen] == [(0, 1), (1, 2), (2, 3)]
    assert all(keys >= names for *_, keys in seen)
    assert all(whole for *_, whole in checkpoint.calls)
    assert not trained.interrupted


def test_ctrl_c_ends_the_training_after_the_step(tmp_path):
    """The signal comes in the first step of the second epoch, which then is the last and not whole."""
    model, batches, recipe = _make_training(steps_per_execution=1)

    def interrupt(batch, logs):
        if len(kept.calls) == 1 and batch == 0:
            os.kill(os.getpid(), signal.SIGINT)

    kept = _OnDisk(tmp_path)
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)
    trained = training.fit(model, _read(batches), recipe, checkpoint=kept, callbacks=[watch], verbose=0)
    assert trained.interrupted
    assert [whole for *_, whole in kept.calls] == [True, False]
    assert trained.steps == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _epochs(losses, first=1):
    return [Epoch(first + n, 0.1, {"loss": 1.0, "val_loss": loss}) for n, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("losses", "kept"),
    [([3.0, 1.0, 2.0], 12), ([3.0, float("nan")], 11), ([float("nan")], None), ([1.0, 1.0], 11), ([], None)],
)
def test_the_best_of_earlier_epochs(losses, kept):
    earlier = _epochs(losses, first=11)
    log = EpochLog(earlier)
    assert (log.best and log.best.number) == kept
    assert log.epochs == earlier
    assert log.epochs is not earlier


def test_an_epoch_after_earlier_ones_must_be_better_than_all_of_them():
    log = EpochLog(_epochs([0.5, 0.7]))
    log.add(Epoch(3, 0.1, {"loss": 1.0, "val_loss": 0.6}))
    assert not log.latest_is_best
    log.add(Epoch(4, 0.1, {"loss": 1.0, "val_loss": 0.4}))
    assert log.latest_is_best


def test_without_a_validation_the_latest_epoch_is_the_best():
    log = EpochLog([Epoch(1, 0.1, {"loss": 0.1}), Epoch(2, 0.1, {"loss": 0.9})])
    assert log.best.number == 2
    log.add(Epoch(3, 0.1, {"loss": float("nan")}))
    assert log.best.number == 2


def test_epochs_are_rows_both_ways():
    epoch = Epoch(3, 0.25, {"loss": 1.5, "val_loss": 2.0, "val_accuracy": 0.5, "f1": 0.125})
    assert epoch.to_row() == {
        "epoch": 3,
        "loss": 1.5,
        "val_loss": 2.0,
        "val_accuracy": 0.5,
        "f1": 0.125,
        "learning_rate": 0.25,
    }
    assert Epoch.from_row(epoch.to_row()) == epoch
    assert (epoch.loss, epoch.val_loss, epoch.val_accuracy) == (1.5, 2.0, 0.5)
    assert (Epoch(1, 0.1).loss, Epoch(1, 0.1).val_loss) == (None, None)


@pytest.mark.parametrize("max_steps", [None, 8, 9])
def test_several_steps_at_a_time_train_the_same_network(max_steps):
    weights, records = [], []
    for at_once in (1, 3):
        keras.utils.set_random_seed(0)
        model = build(TINY, (8, 8, 1), 2, classifier_activation=None)
        x, y = np.random.default_rng(0).normal(size=(40, 8, 8, 1)).astype("float32"), np.arange(40) % 2
        recipe = Recipe(epochs=2, batch_size=8, max_steps=max_steps, steps_per_execution=at_once)
        trained = training.fit(model, training.Batches(_dataset(x, y), 5, _dataset(x, y)), recipe, verbose=0)
        assert trained.steps == (max_steps or 10)
        assert [epoch.number for epoch in trained.epochs] == [1, 2]
        weights.append(model.get_weights())
        records.append([(epoch.loss, epoch.val_loss) for epoch in trained.epochs])
    assert model.steps_per_execution == (2 if max_steps == 9 else 3)  # the 4 steps of the last epoch
    np.testing.assert_allclose(*records, rtol=1e-5)
    for one, several in zip(*weights, strict=True):
        np.testing.assert_allclose(one, several, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 50), st.integers(1, 400), st.integers(1, 40))
def test_no_execution_goes_beyond_the_last_step(steps_per_epoch, steps, wanted):
    recipe = Recipe(steps_per_execution=wanted)
    at_once = training.choose_steps_per_execution(recipe, steps, steps_per_epoch)
    assert 1 <= at_once <= min(wanted, steps_per_epoch)
    assert steps % steps_per_epoch % at_once == 0


def test_small_steps_are_taken_several_at_a_time():
    def choose(multiply_adds, **changes):
        return training.choose_steps_per_execution(Recipe(batch_size=64, **changes), 1000, 100, multiply_adds)

    assert choose(2_500_000) == 8
    assert choose(40_000_000) == 1
    assert choose(None) == 1
    assert choose(2_500_000, steps_per_execution=1) == 1
    assert choose(40_000_000, steps_per_execution=20) == 20
    with pytest.raises(InputError, match=r"steps_per_execution must be an integer of at least 1. Received: 0"):
        Recipe(steps_per_execution=0)


def test_a_callback_that_acts_in_each_step_gets_each_step():
    seen = []
    each = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))

    class Some(keras.callbacks.Callback):
        some_steps_will_do = True

        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)

    for callback, expected in ((each, [0, 1]), (Some(), [1]), (keras.callbacks.CSVLogger("unused"), [])):
        seen.clear()
        model, batches, recipe = _make_training(epochs=1)
        callbacks = [] if isinstance(callback, keras.callbacks.CSVLogger) else [callback]
        assert training.needs_each_step(callback) == (expected == [0, 1])
        training.fit(model, _read(batches), recipe, multiply_adds=1, callbacks=callbacks, verbose=0)
        assert seen == expected
        assert model.steps_per_execution == (1 if callback is each else 2)
