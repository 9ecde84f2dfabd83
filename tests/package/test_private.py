"""Every private name of Keras, KerasTuner and TensorFlow that the package uses is in one table, and is there."""

import ast
import importlib
import sys
from pathlib import Path

import keras
import keras_tuner
import pytest

import keras_resnet
from keras_resnet.private import PRIVATE_NAMES, flatten_layers, get_nodes, is_onednn_on

PACKAGE = Path(keras_resnet.__file__).parent


def _find(path):
    """The module or class of an import path."""
    for cut in range(path.count(".") + 1):
        module, *rest = path.rsplit(".", cut) if cut else (path,)
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        for name in rest:
            found = getattr(found, name)
        return found
    raise ModuleNotFoundError(path)


def _make_instance(owner):
    if owner is keras.Operation:
        return keras.layers.Dense(1)
    oracle = keras_tuner.oracles.RandomSearchOracle("val_loss", max_trials=1)
    oracle._set_project_dir("unused", "unused")
    return oracle


@pytest.mark.parametrize("private", PRIVATE_NAMES, ids=lambda private: f"{private.owner}.{private.name}")
def test_it_is_there(private, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    owner = _find(private.owner)
    assert hasattr(_make_instance(owner) if private.of_instance else owner, private.name), private.purpose


def test_the_functions_give_what_they_say():
    inputs = keras.Input((4,))
    inner = keras.Model(inputs, keras.layers.Dense(2, name="inner_dense")(inputs))
    outer = keras.Model(inputs, inner(inputs))
    assert {"inner_dense"} <= {layer.name for layer in flatten_layers(outer)}
    assert outer not in set(flatten_layers(outer))
    (node,) = get_nodes(inner.get_layer("inner_dense"))
    assert [tensor.shape for tensor in node.outputs] == [(None, 2)]
    assert is_onednn_on() in (True, False)


def test_no_other_private_name_of_another_package_is_used():
    """Attributes with a leading underscore are of `self`, or in the table; none is imported elsewhere."""
    known = {private.name for private in PRIVATE_NAMES}
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        own = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        own |= {
            node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                of_another = not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "os"))
                if of_another and node.attr not in own and path.name != "private.py":
                    assert node.attr in ("_replace", "_fields", "_asdict") or node.attr in known, (
                        f"{path}:{node.lineno}: {node.attr}"
                    )
            if isinstance(node, ast.ImportFrom) and node.module and "keras_resnet" not in node.module:
                private = any(part.startswith("_") for part in (*node.module.split("."), *(a.name for a in node.names)))
                inside = node.module.startswith(("tensorflow.python", "keras.src", "keras_tuner.src"))
                if (private and node.module != "__future__") or inside:
                    assert path.name == "private.py", f"{path}:{node.lineno}: {node.module}"
    assert "keras_resnet.private" in sys.modules
