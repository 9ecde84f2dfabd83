"""The sides on TensorFlow, in this process."""

import contextlib
from dataclasses import replace

import keras
import numpy as np
import pytest
from benchmark_fakes import WORKLOAD

import keras_resnet
from keras_resnet.benchmark import keras_sides
from keras_resnet.benchmark.keras_sides import build, draw_batch, make_training
from keras_resnet.benchmark.messages import Exported, ExportJob, FirstStep, MeasureJob, MemoryRequest, Steps
from keras_resnet.benchmark.side_process import do_job
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


def test_the_counterpart_is_that_of_keras_applications():
    work = replace(WORKLOAD, network="resnet50", input_shape=(32, 32, 3), classes=7)
    assert build("keras.applications", work, None).count_params() == keras_resnet.count_params(
        "resnet50_keras", (32, 32, 3), 7
    )


@pytest.fixture
def threads(monkeypatch):
    """The threads that TensorFlow was told to use: once it runs, as here, they cannot change."""
    told = []
    monkeypatch.setattr(keras_sides, "_use_threads", told.append)
    return told


class Ended(Exception):
    """There are no more requests."""


def talk(*requests):
    """What the process of a side answers to these."""
    waiting, answers = list(requests), []

    def receive():
        if not waiting:
            raise Ended
        return waiting.pop(0)

    with contextlib.suppress(Ended):
        do_job(receive, answers.append)
    return answers


def test_stock_trains(threads):
    ready, first, steps = talk(MeasureJob("stock", replace(WORKLOAD, threads=3)), FirstStep(), Steps(2))
    assert ready.device in ("cpu", "gpu")
    assert threads == [3]
    assert all(answer.seconds > 0 for answer in (ready, first, steps))


def test_stock_is_exported_and_infers(threads, tmp_path):
    work = replace(WORKLOAD, task="infer", threads=2)
    (exported,) = talk(ExportJob("stock", work, str(tmp_path / "stock")))
    assert exported == Exported(str(tmp_path / "stock"))
    ready, first, steps, memory = talk(
        MeasureJob("stock", work, exported.folder), FirstStep(), Steps(2), MemoryRequest()
    )
    assert threads == [2, 2]
    assert all(answer.seconds > 0 for answer in (ready, first, steps))
    assert memory.size_bytes > 2**20
