"""What a benchmark will measure: what is decided, left out and refused, and how operations are counted."""

import contextlib
import dataclasses
import subprocess
import sys

import keras
import pytest

from keras_resnet import InputError, count_macs, get_spec
from keras_resnet.benchmark import Workload, make_plan
from keras_resnet.benchmark import plan as plan_module
from keras_resnet.benchmark.workload import find_counterpart
from keras_resnet.environment import count_cores
from keras_resnet.specs import TABLE


def test_planning_loads_no_framework():
    code = (
        "import sys; from keras_resnet.benchmark import make_plan, measure; make_plan(('resnet50', 'resnet18_1d'));"
        "from keras_resnet.cli import cli; cli(['benchmark', '--help'], standalone_mode=False);"
        "print('heavy:', [m for m in ('tensorflow', 'keras', 'torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("heavy: []\n")
    assert "--against SIDE[,SIDE...]" in done.stdout


def test_what_is_left_open_is_decided(monkeypatch):
    monkeypatch.setattr(plan_module, "has_torch", lambda: False)
    plan = make_plan(("resnet50", "resnet20_cifar", "resnext50_32x4d", "resnet18_1d"), threads=3)
    works = [case.workload for case in plan.cases]
    assert [(work.network, work.batch_size, work.input_text) for work in works] == [
        ("resnet50", 16, "224x224x3"),
        ("resnet20_cifar", 128, "32x32x3"),
        ("resnext50_32x4d", 16, "224x224x3"),
        ("resnet18_1d", 16, "1024x1"),
    ]
    assert {(work.threads, work.dtype) for work in works} == {(3, "float32")}
    assert [case.sides for case in plan.cases] == [
        ("ours", "stock", "keras.applications"),
        ("ours", "stock"),
        ("ours",),
        ("ours", "stock"),
    ]
    reasons = dict(plan.cases[2].left_out)
    assert reasons["torch"] == "PyTorch is not installed: pip install torch"
    assert "minutes a step on a CPU: name it in --against" in reasons["stock"]
    assert reasons["keras.applications"] == "keras.applications has ResNet-50, -101 and -152 and their v2."
    infer = make_plan(("resnet50",), task="infer", image_size_pixels=(31, 64), against=("keras.applications",))
    assert [case.workload.batch_size for case in infer.cases] == [1, 16]
    assert infer.cases[0].workload.input_shape == (31, 64, 3)
    assert infer.cases[0].left_out == (("keras.applications", "keras.applications takes images of at least 32 pixels"),)
    named = make_plan(("resnext50_32x4d",) * 2, against=("stock", "stock"), batch_sizes=(4, 4))
    assert [case.sides for case in named.cases] == [("ours", "stock")]
    assert make_plan().cases[0].workload.threads == count_cores()


def test_pytorch_is_left_out_where_it_cannot(monkeypatch):
    monkeypatch.setattr(plan_module, "has_torch", lambda: True)
    (case,) = make_plan(("resnet18_d2l",)).cases
    assert case.sides == ("ours", "stock")
    assert dict(case.left_out)["torch-compile"].startswith("The PyTorch networks of the benchmark know neither")
    (case,) = make_plan(("resnet50_keras",)).cases
    assert case.sides == ("ours", "stock", "keras.applications", "torch", "torch-compile")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"networks": ()}, "at least one network. Received: none"),
        ({"networks": ("resnet51",)}, "Unknown network. Received: 'resnet51'. Did you mean 'resnet50'"),
        ({"task": "training"}, "task must be one of 'train', 'infer'. Received: 'training'. Did you mean 'train'"),
        ({"dtype": "float16"}, "dtype must be one of 'float32', 'mixed_bfloat16'. Received: 'float16'"),
        ({"task": "infer", "dtype": "mixed_bfloat16"}, "Exported models compute in float32"),
        ({"rounds": 1}, "rounds must be an integer of at least 2. Received: 1"),
        ({"threads": 0}, "threads must be an integer of at least 1. Received: 0"),
        ({"round_seconds": float("nan")}, "round_seconds must be at least 0 and at most 3600. Received: nan"),
        ({"batch_sizes": (4, 0)}, "A batch size must be an integer of at least 1. Received: 0"),
        ({"against": ("ours",)}, "must be one of 'stock', 'keras.applications', 'torch', 'torch-compile'"),
        ({"networks": ("resnet18_1d",), "image_size_pixels": (8, 8)}, "takes sequences, so the image size must be"),
        ({"image_size_pixels": (0, 8)}, "each at least 1"),
    ],
)
def test_a_plan_refuses(arguments, message):
    with pytest.raises(InputError) as error:
        make_plan(**{"against": (), **arguments})
    assert message in str(error.value)


def test_flops_are_two_for_each_multiply_add_and_three_passes_in_training():
    train = Workload("resnet50", "train", 16, (224, 224, 3), 1000, "float32", 1)
    assert train.count_flops("ours") == train.count_flops("torch") == 2 * 4_089_185_256 * 16 * 3
    # keras.applications has the stride elsewhere, and biases.
    assert train.count_flops("keras.applications") == 2 * count_macs("resnet50_keras") * 16 * 3
    infer = dataclasses.replace(train, task="infer", batch_size=1)
    assert infer.count_flops("stock") == 2 * 4_089_185_256


def test_every_counterpart_is_there():
    found = {}
    for name in TABLE:
        with contextlib.suppress(InputError):
            found[name] = find_counterpart(name)
    assert found["resnet50"] == found["resnet50_keras"] == ("ResNet50", "resnet50_keras")
    assert found["resnetv2_101"] == found["resnet101v2_keras"] == ("ResNet101V2", "resnet101v2_keras")
    assert len(found) == 12
    for function, row in found.values():
        assert hasattr(keras.applications, function)
        get_spec(row)
