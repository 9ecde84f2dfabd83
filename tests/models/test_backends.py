"""The builders on Keras' JAX and torch backends: the same weights give the same outputs, and a step trains."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from keras_resnet import ResNetSpec, build, get_dialect, get_spec

BASE = ResNetSpec("basic", "basic", (1, 1), (8, 16), (1, 2), "imagenet", 8)
FORMS = [
    BASE,
    replace(BASE, name="bottleneck", block="bottleneck"),
    replace(BASE, name="grouped", block="bottleneck", groups=4, width_per_group=32),
    replace(BASE, name="preactivation", dialect=get_dialect("torchvision_v2")),
    replace(BASE, name="keras_v2", block="bottleneck", strides=(2, 1), dialect=get_dialect("keras_v2")),
    replace(BASE, name="d2l", dialect=get_dialect("d2l")),
    replace(BASE, name="d_se", stem="deep", shortcut="D", se_ratio=0.25, stochastic_depth=0.2, dropout=0.1),
    replace(BASE, name="dilated", output_stride=4),
    replace(BASE, name="sequence", rank=1, kernel_sizes=(3, 5)),
    replace(BASE, name="grouped_sequence", rank=1, block="bottleneck", groups=2, width_per_group=64),
    get_spec("resnet8_cifar"),  # shortcut A
]

CHECK = """
import json, sys
import keras, keras_resnet, numpy as np
folder, backend = sys.argv[1:]
assert keras.backend.backend() == backend
for values in json.load(open(folder + "/specs.json")):
    spec = keras_resnet.ResNetSpec.from_dict(values)
    x = np.load(f"{folder}/x{spec.rank}.npy")
    model = keras_resnet.build(spec, x.shape[1:], 3)
    model.load_weights(f"{folder}/{spec.name}.weights.h5")
    y = keras.ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(y, np.load(f"{folder}/{spec.name}.npy"), atol=1e-5)
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert np.isfinite(model.train_on_batch(x, np.array([0, 1, 2, 0])))
    print(spec.name, flush=True)
assert backend == "tensorflow" or "tensorflow" not in sys.modules
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_one_net_of_each_block(tmp_path, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed (extra 'parity')")
    generator = np.random.default_rng(0)
    for rank, shape in ((1, (4, 37, 2)), (2, (4, 21, 26, 2))):
        np.save(tmp_path / f"x{rank}.npy", generator.normal(size=shape).astype("float32"))
    for spec in FORMS:
        x = np.load(tmp_path / f"x{spec.rank}.npy")
        model = build(spec, x.shape[1:], 3)
        model.save_weights(tmp_path / f"{spec.name}.weights.h5")
        np.save(tmp_path / f"{spec.name}.npy", model(x))
    (tmp_path / "specs.json").write_text(json.dumps([spec.to_dict() for spec in FORMS]))
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(tmp_path), backend],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [spec.name for spec in FORMS], done.stderr
