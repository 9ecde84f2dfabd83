"""Cutting a network open at its logits, and what is served of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from networks import SMALL, draw_input, draw_weights, make_conv, make_network

from keras_resnet import InputError, build
from keras_resnet.export.heads import Classifier, cut_head


def _pooled(x, channels=6):
    return layers.GlobalAveragePooling2D()(make_conv(x, channels))


HEADS = {
    "softmax in Dense": lambda x: layers.Dense(3, activation="softmax")(_pooled(x)),
    "softmax layer": lambda x: layers.Softmax()(layers.Dense(3)(_pooled(x))),
    "softmax activation": lambda x: layers.Activation("softmax")(layers.Dense(3)(_pooled(x))),
    "logits": lambda x: layers.Dense(3)(_pooled(x)),
}


def _check_cut(model):
    draw_weights(model)
    x = draw_input(model)
    cut = cut_head(model)
    logits, features = (np.asarray(y) for y in cut(x))
    outputs = np.asarray(model(x))
    sums_to_one = np.allclose(outputs.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(keras.ops.softmax(logits) if sums_to_one else logits, outputs, atol=1e-6)
    assert features.shape[0] == 3
    assert not np.allclose(logits.sum(-1), 1, atol=1e-3)
    return logits, features


@pytest.mark.parametrize("head", HEADS)
def test_logits_and_features_of_each_head(head):
    model = make_network(HEADS[head])
    logits, features = _check_cut(model)
    assert (logits.shape, features.shape) == ((3, 3), (3, 6))
    (dense,) = [layer for layer in model.layers if isinstance(layer, layers.Dense)]
    np.testing.assert_allclose(features @ np.asarray(dense.kernel) + np.asarray(dense.bias), logits, atol=1e-5)


def test_networks_of_this_package():
    with_softmax = draw_weights(build(SMALL, (8, 8, 3), 3))
    with_logits = build(SMALL, (8, 8, 3), 3, classifier_activation=None)
    with_logits.set_weights(with_softmax.get_weights())
    a, b = (cut_head(model)(draw_input(model)) for model in (with_softmax, with_logits))
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    np.testing.assert_array_equal(a[0], with_logits(draw_input(with_logits)))


@pytest.mark.parametrize("activation", ["softmax", None])
@pytest.mark.parametrize("rescaled", [True, False])
def test_a_nested_classifier_is_cut_inside(activation, rescaled):
    """`Rescaling` before a whole network that is called as a layer."""
    inner = build(SMALL, (8, 8, 3), 3, classifier_activation=activation)
    _check_cut(make_network(lambda x: inner(layers.Rescaling(0.5, 0.1)(x) if rescaled else x)))


def test_a_softmax_behind_a_nested_classifier():
    _check_cut(make_network(lambda x: layers.Softmax()(build(SMALL, (8, 8, 3), 3, classifier_activation=None)(x))))


def test_a_sequential_classifier():
    _check_cut(
        keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(4, 3),
                layers.GlobalAveragePooling2D(),
                layers.Dense(3, activation="softmax"),
            ]
        )
    )


@pytest.mark.parametrize(
    ("body", "shapes", "message"),
    [
        (lambda x: layers.Dense(3, activation="sigmoid")(_pooled(x)), 1, r"no activation or one softmax. .*'sigmoid'"),
        (
            lambda x: layers.Softmax()(layers.Dense(3, activation="softmax")(_pooled(x))),
            1,
            r"no activation or one softmax. Received: 'softmax' and a softmax behind it",
        ),
        (lambda x: layers.Activation("sigmoid", name="s")(layers.Dense(3)(_pooled(x))), 1, r"a Dense layer .*: s\."),
        (lambda x: layers.Dense(3, name="map")(make_conv(x)), 1, r"on pooled features, .* Received: map\."),
        (lambda x: make_conv(x, name="map"), 1, r"on pooled features, .* Received: map\."),
        (lambda x: [_pooled(x), layers.Dense(3)(_pooled(x))], 1, r"Received: 1 inputs and 2 outputs\."),
        (lambda x, y: layers.Dense(3)(_pooled(x + y)), 2, r"Received: 2 inputs and 1 outputs\."),
    ],
    ids=["sigmoid", "two softmax", "sigmoid layer", "dense on a map", "no dense", "two outputs", "two inputs"],
)
def test_other_ends_are_refused(body, shapes, message):
    with pytest.raises(InputError, match=message):
        cut_head(make_network(body, *[(8, 8, 3)] * shapes))


def test_a_classifier_gives_the_same_in_a_graph_in_keras_and_in_numpy():
    logits = np.random.default_rng(0).normal(size=(3, 7)) * 5
    head = Classifier(tuple("abcdefg"))
    wanted = head.compute(logits)
    inputs = keras.Input((7,))
    built = keras.Model(inputs, head.build(inputs))(logits.astype(np.float32))
    served = head.serve(tf.constant(logits, tf.float32))
    assert set(wanted) == set(head.compared) == set(built)
    for name in head.compared:
        np.testing.assert_allclose(built[name], wanted[name], rtol=1e-5)
        np.testing.assert_allclose(served[name], wanted[name], rtol=1e-5)
    np.testing.assert_allclose(wanted["probabilities"].sum(-1), 1, rtol=1e-12)
    ids = np.argsort(-logits)[:, :5]
    np.testing.assert_array_equal(served["class_ids"], ids)
    assert [[name.decode() for name in row] for row in served["class_names"].numpy()] == [
        ["abcdefg"[index] for index in row] for row in ids
    ]
