"""Every row is saved, and loaded in a fresh process: with built-in layers without this package, else with its import."""

import json
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest

from keras_resnet import build
from keras_resnet.specs import TABLE

LOAD = """
import json, sys
if sys.argv[1] == "before":
    import keras_resnet
else:
    sys.modules["keras_resnet"] = None  # importing it would fail
import keras, numpy as np
if sys.argv[1] == "after":
    try:  # what is needed is needed
        keras.saving.load_model(f"{sys.argv[2]}/{json.load(open(sys.argv[2] + '/names.json'))[0]}.keras")
        sys.exit("it loads without its layers")
    except TypeError as error:
        assert "GroupedConv2D" in str(error), error
    del sys.modules["keras_resnet"]
    import keras_resnet
for name in json.load(open(sys.argv[2] + "/names.json")):
    model = keras.saving.load_model(f"{sys.argv[2]}/{name}.keras")
    x = np.load(f"{sys.argv[2]}/x{len(model.input_shape) - 2}.npy")
    np.testing.assert_allclose(model(x), np.load(f"{sys.argv[2]}/{name}.npy"), atol=1e-5)
    print(name, flush=True)
"""
GROUPED = [name for name, row in TABLE.items() if row.spec.groups > 1]
# resnet1202_cifar is deeper than Keras' recursion goes: it has a slow test of its own.
BUILT_IN = [name for name in TABLE if name not in GROUPED and name != "resnet1202_cifar"]


def narrow(spec):
    """The same layers with the same names, an eighth as wide, so that all rows together fit a test."""
    return (
        replace(spec, filters=tuple(f // 8 for f in spec.filters), stem_filters=spec.stem_filters // 8)
        if (spec.groups == 1)
        else replace(spec, groups=2)
    )


@pytest.mark.parametrize(
    ("names", "how"),
    [(BUILT_IN, "without"), (GROUPED, "before"), (GROUPED[:1], "after")],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)}-rows",
)
def test_saved_models_load_in_a_fresh_process(tmp_path, names, how):
    generator = np.random.default_rng(0)
    inputs = {1: generator.normal(size=(2, 40, 2)), 2: generator.normal(size=(2, 20, 24, 2))}
    for rank, x in inputs.items():
        np.save(tmp_path / f"x{rank}.npy", x.astype("float32"))
    for name in names:
        spec = narrow(TABLE[name].spec)
        x = inputs[spec.rank].astype("float32")
        model = build(spec, x.shape[1:], 5)
        model.save(tmp_path / f"{name}.keras")
        np.save(tmp_path / f"{name}.npy", model(x))
        keras.utils.clear_session()
    (tmp_path / "names.json").write_text(json.dumps(names))
    done = subprocess.run([sys.executable, "-c", LOAD, how, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == names, done.stderr
