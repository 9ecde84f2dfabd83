"""What export takes from Keras' and TensorFlow's private names, each behind one function."""

from __future__ import annotations

from typing import Any


def get_nodes(operation: Any) -> list[Any]:
    """The calls of a layer or operation, in all models that it is part of: `input_tensors` to `outputs` each.

    Public attributes such as `layer.input` tell the call only of a layer that was called once, and of a model its own
    input in place of what it was called on.
    """
    return operation._inbound_nodes


def freeze_variables(function: Any) -> Any:
    """A concrete function with its variables as constants, in which TensorFlow then folds what can be folded."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(function)
