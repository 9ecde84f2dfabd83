"""The sides on TensorFlow, in this process."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from benchmark_fakes import WORKLOAD

from keras_resnet.benchmark import keras_sides, make_plan, measure, runner
from keras_resnet.benchmark.keras_sides import build, draw_batch, make_training
from keras_resnet.export import verify
from keras_resnet.fused import fuse_model


def test_a_training_step_is_a_step_of_fit():
    model = build("ours", WORKLOAD, None)
    model.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    fuse_model(twin)  # a clone computes BN as Keras does, which rounds otherwise
    twin.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images, labels = draw_batch(WORKLOAD)
    traced, train_step = [], model.train_step
    model.train_step = lambda *arguments: traced.append(1) or train_step(*arguments)
    side = make_training(model, images, labels)
    side.first()
    side.run(2)
    twin.fit(np.tile(images, (3, 1, 1, 1)), np.tile(labels, 3), batch_size=4, shuffle=False, verbose=0)
    for mine, theirs in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert traced == [1]  # what the first step has traced serves the others


def test_stock_has_keras_layers_only_and_computes_the_same():
    work = replace(WORKLOAD, network="resnext11_2x16d_cifar")
    ours, stock = build("ours", work, None), build("stock", work, None)
    assert {layer.__class__.__module__.split(".")[0] for layer in ours.layers} == {"keras", "keras_resnet"}
    assert {layer.__class__.__module__.split(".")[0] for layer in stock.layers} == {"keras"}
    stock.set_weights(ours.get_weights())
    images, _ = draw_batch(work)
    np.testing.assert_allclose(ours(images), stock(images), atol=1e-5)


def test_the_counterpart_is_made_by_keras_applications(monkeypatch):
    asked = {}
    monkeypatch.setattr(keras.applications, "ResNet50V2", lambda **options: asked.update(options) or "network")
    work = replace(WORKLOAD, network="resnetv2_50", input_shape=(32, 32, 3), classes=7)
    assert build("keras.applications", work, "softmax") == "network"
    assert asked == {"weights": None, "input_shape": (32, 32, 3), "classes": 7, "classifier_activation": "softmax"}


def test_a_plan_of_both_tasks_is_measured(threads, monkeypatch):
    """Ours and stock: trained, exported and run by TensorFlow's session, beside the matrix product."""
    monkeypatch.setattr(verify, "verify_saved_model", lambda *_: {})  # it starts processes
    for module in (keras_sides, runner):
        monkeypatch.setattr(module, "PRODUCT_SIZE", 64)
    options = {"batch_sizes": (2,), "image_size_pixels": (8, 8), "rounds": 2, "round_seconds": 0, "threads": 3}
    train, infer = (
        make_plan(("resnet8_cifar",), task=task, against=("stock",), **options) for task in ("train", "infer")
    )
    measured = measure(replace(train, cases=train.cases + infer.cases))
    assert [(one.workload.task, one.side) for one in measured] == [
        (task, side) for task in ("train", "infer") for side in ("ours", "stock")
    ]
    assert set(threads) == {3}
    assert len(threads) == 8  # two matrix products, four sides, two exports
    for one in measured:
        assert not one.failed
        assert one.device in ("cpu", "gpu")
        assert all(value > 0 for value in one.figures.to_dict().values())
        assert one.figures.peak_share == pytest.approx(one.figures.gflops / one.figures.peak_gflops)
