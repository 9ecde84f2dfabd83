"""The end of a network: where it is cut open, and what is served of its logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

from keras_resnet.errors import InputError
from keras_resnet.export.fold import as_functional, get_producers, is_network
from keras_resnet.models import deep_graph
from keras_resnet.private import get_nodes
from keras_resnet.probabilities import softmax

TOP_K = 5  # classes that a server names


@dataclass(frozen=True)
class Classifier:
    """`softmax(logits)` over classes, wherever it is computed: in a server's graph, by Keras or by NumPy.

    This is the one place that knows the outputs of a served network beside its `features`.
    """

    class_names: tuple[str, ...]
    compared: ClassVar[tuple[str, ...]] = ("logits", "probabilities")  # outputs that the Keras model tells as well

    def serve(self, logits: Any) -> dict[str, Any]:
        """Outputs of a SavedModel: TensorFlow tensors of `logits`, (batch, classes) float32.

        `probabilities` and `logits` are (batch, classes), `class_ids` and `class_names` (batch, min(5, classes)), by
        falling probability.
        """
        import tensorflow as tf

        top = tf.math.top_k(logits, min(TOP_K, len(self.class_names)))
        return {
            "probabilities": tf.nn.softmax(logits),
            "logits": logits,
            "class_ids": tf.cast(top.indices, tf.int64),
            "class_names": tf.gather(tf.constant(self.class_names), top.indices),
        }

    def build(self, logits: Any) -> dict[str, Any]:
        """Outputs of the other formats: Keras tensors of `logits`, (batch, classes), of a functional model."""
        probabilities = keras.layers.Softmax(name="probabilities", dtype="float32")(logits)
        return {"probabilities": probabilities, "logits": logits}

    def compute(self, logits: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs that are compared, (batch, classes) float64: what the others must give."""
        return {"logits": logits, "probabilities": softmax(logits)}


def cut_head(model: keras.Model, *, softmax: bool = True) -> keras.Model:
    """`x -> (logits, features)`: what comes before the softmax, and the pooled embedding before the last Dense layer.

    Args:
        model: ends in a Dense layer, with or without a softmax in or behind it; the layers are shared with the result.
        softmax: whether there may be one.

    Returns:
        A model of the same input and two outputs, (batch, classes) and (batch, channels).

    Raises:
        InputError: another end, several inputs or outputs.
    """
    model = as_functional(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InputError(
            f"{model.name}: a network with one input and one output is exported. Received: {len(model.inputs)} inputs and "
            f"{len(model.outputs)} outputs."
        )
    producers = get_producers(model)
    tensor = model.outputs[0]
    last: Any = producers.get(id(tensor))
    has_softmax = softmax and _is_softmax(last)
    if has_softmax:
        last = producers.get(id(last.input))
    with deep_graph():
        if is_network(last):
            # What it was called on; `last.input` is an input of its own.
            outputs = cut_head(last, softmax=softmax and not has_softmax)(get_nodes(last)[0].input_tensors[0])
            return keras.Model(model.input, outputs, name=model.name)
        if not isinstance(last, keras.layers.Dense) or len(last.input.shape) != 2:
            raise InputError(
                f"{model.name}: an exported network must end in a Dense layer on pooled features, (batch, channels), with "
                f"or without a softmax. Received: {'no layer' if last is None else last.name}."
            )
        if last.activation is keras.activations.linear:
            logits = last.output
        elif last.activation is keras.activations.softmax and softmax and not has_softmax:
            linear = type(last).from_config({**last.get_config(), "activation": "linear"})
            logits = linear(last.input)
            linear.set_weights(last.get_weights())
        else:
            raise InputError(
                f"{model.name}: the last Dense layer must have no activation or one softmax. Received: "
                f"{keras.activations.serialize(last.activation)!r}{' and a softmax behind it' if has_softmax else ''}."
            )
        return keras.Model(model.input, [logits, last.input], name=model.name)


def _is_softmax(layer: Any) -> bool:
    if isinstance(layer, keras.layers.Softmax):
        return layer.axis in (-1, 1)
    return isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.softmax
