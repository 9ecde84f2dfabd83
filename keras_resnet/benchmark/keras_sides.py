"""The sides on TensorFlow: our networks, the same of Keras' own layers, `keras.applications`, and a matrix product."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_resnet
from keras_resnet import training
from keras_resnet.benchmark.messages import ExportJob, MeasureJob
from keras_resnet.benchmark.sides import Side
from keras_resnet.benchmark.workload import (
    APPLICATIONS,
    LEARNING_RATE,
    MOMENTUM,
    OURS,
    PRODUCT_SIZE,
    Workload,
    find_counterpart,
)
from keras_resnet.recipes import Recipe


def make(job: MeasureJob) -> Side:
    """Training or inference of "ours", "stock" or "keras.applications"."""
    work = job.workload
    _use_threads(work.threads)
    if work.task == "infer":
        assert job.saved_model is not None
        return make_session(work, job.saved_model)
    keras.config.set_dtype_policy(work.dtype)
    model = build(job.side, work, activation=None)
    if job.side == OURS:
        recipe = Recipe(
            learning_rate=LEARNING_RATE, momentum=MOMENTUM, weight_decay=0.0, schedule="constant", warmup_fraction=0.0
        )
        training.compile_model(model, recipe, steps=1)
    else:
        model.compile(
            optimizer=keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM, nesterov=True),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    return make_training(model, *draw_batch(work))


def _use_threads(threads: int) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def _device() -> str:
    return "gpu" if tf.config.list_physical_devices("GPU") else "cpu"


def build(side: str, work: Workload, activation: str | None) -> keras.Model:
    """The network of a side."""
    shape, classes = work.input_shape, work.classes
    if side == APPLICATIONS:
        function = getattr(keras.applications, find_counterpart(work.network)[0])
        return function(weights=None, input_shape=shape, classes=classes, classifier_activation=activation)
    model = keras_resnet.build(work.network, shape, classes, classifier_activation=activation)
    return model if side == OURS else to_stock(model)


def to_stock(model: keras.Model) -> keras.Model:
    """The same network, weights included, without a layer of ours."""
    stock_layers = {
        keras_resnet.GroupedConv1D: keras.layers.Conv1D,
        keras_resnet.GroupedConv2D: keras.layers.Conv2D,
    }

    def clone(layer: keras.Layer) -> keras.Layer:
        return stock_layers.get(type(layer), type(layer)).from_config(layer.get_config())

    stock = keras.models.clone_model(model, clone_function=clone)
    stock.set_weights(model.get_weights())
    return stock


def draw_statistics(model: keras.Model) -> None:
    """Gives BN and biases values as after a training: what a new network's BN folds to, 0, TensorFlow would leave out."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            ranges = {"gamma": (0.5, 1.5), "beta": (-0.5, 0.5), "moving_mean": (-0.5, 0.5), "moving_variance": (0.5, 2)}
            for weight in layer.weights:
                weight.assign(rng.uniform(*ranges[weight.name], weight.shape))
        elif isinstance(layer, keras.layers.Dense):
            layer.bias.assign(rng.uniform(-0.5, 0.5, layer.bias.shape))


def draw_batch(work: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Images as a pipeline gives them, float32 around 0, and labels."""
    generator = np.random.default_rng(0)
    images = generator.normal(size=(work.batch_size, *work.input_shape)).astype(np.float32)
    return images, generator.integers(0, work.classes, work.batch_size)


def make_training(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> Side:
    """Steps of a compiled model on one batch that is already there, again and again."""
    batches = tf.data.Dataset.from_tensors((tf.constant(images), tf.constant(labels))).repeat()

    def first() -> None:
        model.fit(batches, epochs=1, steps_per_epoch=1, shuffle=False, verbose=0)

    return Side(first, _make_training_step(model, batches), _device())


def _make_training_step(model: keras.Model, batches: tf.data.Dataset) -> Callable[[int], None]:
    """Steps as `model.fit` takes them: its own compiled function on an iterator, without its callbacks."""
    iterator = iter(batches)

    def run(steps: int) -> None:
        logs: dict[str, Any] = {}
        for _ in range(steps):
            logs = model.train_function(iterator)
        float(logs["loss"])  # an accelerator may still be at it

    return run


def export(job: ExportJob) -> str:
    """Writes the SavedModel of a side and returns its folder: ours verified, the others by `model.export`."""
    _use_threads(job.workload.threads)
    model = build(job.side, job.workload, activation="softmax")
    draw_statistics(model)
    if job.side == OURS:
        return str(keras_resnet.export_saved_model(model, Path(job.folder), warm_up=False))
    model.export(job.folder, verbose=False)
    return job.folder


def make_session(work: Workload, folder: str) -> Side:
    """A SavedModel in a session, as TensorFlow Serving runs it, on float32 images of the network's size."""
    threads = work.threads
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
    session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
    with session.graph.as_default():
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], folder).signature_def
    signature = signatures.get("serve_float", signatures["serving_default"])
    (inputs,) = signature.inputs.values()
    call = session.make_callable([tensor.name for tensor in signature.outputs.values()], [inputs.name])
    shape = (work.batch_size, *work.input_shape)
    batch = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)

    def run(steps: int) -> None:
        for _ in range(steps):
            call(batch)

    return Side(lambda: run(1), run, _device())


def make_matrix_product(work: Workload) -> Side:
    """`a @ b` of two square matrices by TensorFlow, in the type that the networks compute in."""
    _use_threads(work.threads)
    dtype = keras.dtype_policies.get(work.dtype).compute_dtype
    values = np.random.default_rng(0).normal(size=(2, PRODUCT_SIZE, PRODUCT_SIZE))
    a, b = (tf.constant(value, dtype) for value in values)

    def run(steps: int) -> None:
        for _ in range(steps):
            product = tf.matmul(a, b)
        product[0, 0].numpy()

    return Side(lambda: run(1), run, _device())
