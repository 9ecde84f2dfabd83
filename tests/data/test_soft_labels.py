"""Training on labels that are a weight for each class, validated on integers."""

import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import TINY, draw_images

from keras_resnet import (
    Augmentation,
    Preprocessing,
    Recipe,
    build,
    jobs,
    make_eval_dataset,
    make_train_dataset,
    training,
)
from keras_resnet.data import Split

SOFT = {"mixup_alpha": 0.2, "cutmix_alpha": 1.0, "label_smoothing": 0.1}


def _linear(recipe):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(inputs))
    training.compile_model(model, recipe, steps=2)
    return model


@pytest.mark.parametrize("soft", [True, False])
def test_loss_gradient_and_accuracy_are_the_formulas(soft):
    model = _linear(Recipe(label_smoothing=0.2 if soft else 0.0))
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(6, 4)).astype(np.float32), np.arange(6) % 3
    kernel, bias = model.get_weights()
    exponentials = np.exp(x @ kernel + bias)
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    hits = probabilities.argmax(1) == labels
    kinds = [labels, 0.8 * np.eye(3)[labels] + 0.2 / 3] if soft else [labels]
    for y, weights in zip(kinds, (np.eye(3)[labels], kinds[-1]), strict=False):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(y=tf.constant(y), y_pred=model(x))
        assert float(loss) == pytest.approx(-(weights * np.log(probabilities)).sum(1).mean(), rel=1e-5)
        gradient = x.T @ (probabilities - weights) / 6
        np.testing.assert_allclose(tape.gradient(loss, model.trainable_weights)[0], gradient, atol=1e-6)
        found = model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
        assert found["accuracy"] == pytest.approx(hits.mean())
        assert found["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_one_fit_takes_soft_training_and_integer_validation_labels(tmp_path):
    images, labels = draw_images(32, 8, 8, 1, 3)
    split, preprocessing = Split(images, labels), Preprocessing((8, 8), 1, (0.5,), (0.3,))
    recipe = Recipe(epochs=2, batch_size=16, **SOFT)
    train = make_train_dataset(split, preprocessing, batch_size=16, augmentation=recipe.augmentation, classes=3)
    assert train.element_spec[1] == tf.TensorSpec((16, 3), tf.float32)
    model = build(TINY, (8, 8, 1), 3, classifier_activation=None)
    held_out = make_eval_dataset(split, preprocessing, batch_size=16)
    trained = training.fit(model, training.Batches(train, 2, held_out), recipe, verbose=0)
    assert all({"loss", "accuracy", "val_loss", "val_accuracy"} <= set(epoch.figures) for epoch in trained.epochs)
    evaluation = training.evaluate(model, held_out, labels, verbose=0)
    # What the model is left with is Keras' own loss, for integers, with the optimizer that has been trained.
    kept = model.evaluate(held_out, verbose=0, return_dict=True)
    assert kept["loss"] == pytest.approx(evaluation.loss, rel=1e-4)
    assert kept["accuracy"] == pytest.approx(evaluation.accuracy)
    assert int(model.optimizer.iterations) == 4
    model.save(tmp_path / "model.keras")
    assert b"keras_resnet" not in zipfile.ZipFile(tmp_path / "model.keras").read("config.json")


def test_a_run_with_everything_round_trips(npz, tmp_path):
    chosen = {**SOFT, "randaugment_ops": 1, "erasing_probability": 0.3, "brightness": 0.2, "horizontal_flip": True}
    run = jobs.train(
        npz,
        model=TINY,
        run_dir=tmp_path / "run",
        recipe={"epochs": 1, "batch_size": 32, "resized_crop": (0.5, 1.0), **chosen},
        verbose=0,
    )
    assert jobs.load_run(run.path).recipe.augmentation == Augmentation(resized_crop=(0.5, 1.0), **chosen)
    assert run.record.validation.loss > 0
    assert b"keras_resnet" not in zipfile.ZipFile(run.model_path).read("config.json")
