"""Every example runs in its smoke mode, in a process of its own, as a user would start it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(path for path in EXAMPLES.glob("*.py") if path.name != "smoke_data.py")
PRINTS = {
    "plain_keras.py": "test accuracy ",
    "tutorial_mnist.py": "after re-estimating BN",
    "textbook_fashion_mnist.py": "test accuracy ",
    "lecture_cifar10.py": "epoch 1: test accuracy ",
    "benchmark_memory.py": "MiB",
    "own_block.py": "bottleneck at 256 channels: 69,632 parameters\n",  # S3's figure
    "multiscale_sequences.py": "multiscale_blocks: 131,770 parameters, test accuracy ",
    "degradation.py": "plain8_cifar: training loss ",
    "benchmark_build.py": "resnet20_cifar",
    "grow.py": "from_scratch after 3 steps",
    "tune_keras_tuner.py": "parameters, ends in logits",
    "search_mnist.py": "winner ",
    "search_cifar10.py": "multiply-adds, learning rate",
    "benchmark_search.py": "500 different specs checked against both budgets",
    "benchmark_keras_tuner.py": "seed 0, ours: best validation accuracy",
    "benchmark_export.py": "resnet8_cifar off 2 ",
    "benchmark_data.py": "batches identical in four runs",
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_example(script, tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "2"}
    environment.pop("TFDS_DATA_DIR", None)
    done = subprocess.run(
        [sys.executable, str(script), "--smoke"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert PRINTS[script.name] in done.stdout
    refused = subprocess.run(
        [sys.executable, str(script), "--no-such-flag"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2  # unknown flags fail


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_opens_with_its_command_and_result(script):
    opening = ast.get_docstring(ast.parse(script.read_text("utf-8")))
    assert f"python examples/{script.name}" in opening
    assert "Measured" in opening
