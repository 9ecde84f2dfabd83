"""Private names of Keras, KerasTuner and TensorFlow that this package relies on, each with what it is for.

Names without a leading underscore are promises; these are not. A test looks each of them up, so that a release that lost one
fails by name. What is called from outside of a class is called through the functions below; the rest is overridden or
called by subclasses of KerasTuner's classes, in `search/oracles.py` and `search/tuner.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple


class PrivateName(NamedTuple):
    """A name, where it is, and what it is for."""

    owner: str  # a module or class, by its import path
    name: str
    purpose: str
    of_instance: bool = False  # whether only instances of the owner have it


PRIVATE_NAMES = (
    PrivateName("keras.Layer", "_flatten_layers", "all layers of a model, those of nested models included"),
    PrivateName("keras.Operation", "_inbound_nodes", "the calls of a layer: its inputs and outputs in a graph", True),
    PrivateName("tensorflow.python.util._pywrap_util_port", "IsMklEnabled", "whether oneDNN is on"),
    PrivateName(
        "tensorflow.python.framework.convert_to_constants",
        "convert_variables_to_constants_v2",
        "an exported graph with its weights as constants",
    ),
    PrivateName("keras_tuner.Oracle", "_duplicate", "whether a point was tried before"),
    PrivateName("keras_tuner.Oracle", "_random_values", "overridden: every random proposal goes through it"),
    PrivateName("keras_tuner.Oracle", "_save_trial", "overridden: a trial's file is written beside and renamed"),
    PrivateName("keras_tuner.Oracle", "_get_trial_dir", "the folder of a trial"),
    PrivateName("keras_tuner.Oracle", "_get_oracle_fname", "the file of the oracle's state"),
    PrivateName("keras_tuner.Oracle", "_seed_state", "how many proposals there were", True),
    PrivateName("keras_tuner.Oracle", "_max_collisions", "how often a proposal may repeat an earlier one", True),
    PrivateName("keras_tuner.Oracle", "_retry_queue", "trials that are to be given out again", True),
    PrivateName("keras_tuner.Oracle", "_project_dir", "the folder of all trials", True),
    PrivateName(
        "keras_tuner.oracles.BayesianOptimizationOracle", "_random_populate_space", "a random proposal at the start"
    ),
    PrivateName("keras_tuner.engine.base_tuner.BaseTuner", "_populate_initial_space", "overridden: the space is known"),
    PrivateName("keras_tuner.engine.base_tuner.BaseTuner", "_is_worker", "whether the oracle is another process'"),
    PrivateName("keras_tuner.engine.base_tuner.BaseTuner", "_get_tuner_fname", "the file of the tuner's state"),
    PrivateName(
        "keras_tuner.Tuner", "_get_checkpoint_fname", "the file in which KerasTuner looks for a trial's weights"
    ),
)


def flatten_layers(model: Any) -> Iterator[Any]:
    """Yields all layers of a Keras model, those of nested models and layers included, without the model itself."""
    yield from model._flatten_layers(include_self=False, recursive=True)


def get_nodes(operation: Any) -> list[Any]:
    """Returns the calls of a Keras layer or operation, in all models that it is part of: `input_tensors`, `outputs`.

    Public attributes such as `layer.input` tell the call only of a layer that was called once, and of a model its own
    input in place of what it was called on.
    """
    return operation._inbound_nodes


def freeze_variables(function: Any) -> Any:
    """Returns a concrete TensorFlow function with its variables as constants, so that TensorFlow can fold them."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(function)


def is_onednn_on() -> bool | None:
    """Whether TensorFlow computes with oneDNN; None where this release does not tell."""
    try:
        from tensorflow.python.util import _pywrap_util_port
    except ImportError:
        return None
    return _pywrap_util_port.IsMklEnabled()
