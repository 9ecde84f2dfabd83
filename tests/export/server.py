"""A stand-in for TensorFlow Serving; it takes nothing but TensorFlow, so that a fresh process has it quickly."""

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2


class Server:
    """A SavedModel as TensorFlow Serving runs it: the graph of the file, tensors by their names.

    Neither Keras nor the Python side of a session looks at what is fed: only the graph does.
    """

    def __init__(self, path):
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        loaded = tf.compat.v1.saved_model.load(self.session, ["serve"], str(path))
        self.signatures = {k: v for k, v in loaded.signature_def.items() if not k.startswith("__")}
        self._callables = {}

    def __call__(self, signature, value, outputs=None):
        definition = self.signatures[signature]
        outputs = tuple(outputs or sorted(definition.outputs))
        if (signature, outputs) not in self._callables:
            (tensor,) = definition.inputs.values()
            options = config_pb2.CallableOptions(
                feed=[tensor.name], fetch=[definition.outputs[name].name for name in outputs]
            )
            self._callables[signature, outputs] = self.session._make_callable_from_options(options)
        return dict(zip(outputs, self._callables[signature, outputs](value), strict=True))


def check_refused(server, signature, value, message):
    """Whichever outputs are asked for, and again: two branches of a graph may race for who says it first."""
    outputs = sorted(server.signatures[signature].outputs)
    for asked in [outputs, outputs, outputs, *([name] for name in outputs)]:
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            server(signature, value, asked)
