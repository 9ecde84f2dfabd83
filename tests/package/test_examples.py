"""Every example runs in its smoke mode, all in one process; each refuses flags it does not know."""

import ast
import runpy
import sys

import pytest
from shown import EXAMPLES, collected, run_in_one_process

PRINTS = {
    "plain_keras.py": "test accuracy ",
    "tutorial_mnist.py": "after re-estimating BN",
    "textbook_fashion_mnist.py": "test accuracy ",
    "lecture_cifar10.py": "epoch 1: test accuracy ",
    "benchmark_memory.py": "MiB",
    "own_block.py": "bottleneck at 256 channels: 69,632 parameters\n",  # the figure of the lecture notes
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


@pytest.fixture(scope="module")
def outcomes(request, tmp_path_factory):
    """What each example that is asked for printed, and its error, by its name."""
    scratch, jobs = tmp_path_factory.mktemp("examples"), []
    for script in collected(request, "script"):
        folder = scratch / script.stem
        folder.mkdir()
        jobs.append({"name": script.name, "folder": str(folder), "path": str(script), "arguments": ["--smoke"]})
    return run_in_one_process(jobs, scratch, TFDS_DATA_DIR=None)


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_example(script, outcomes):
    outcome = outcomes[script.name]
    assert outcome["error"] is None, outcome["error"]
    assert PRINTS[script.name] in outcome["printed"]


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_an_unknown_flag_fails(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(script), "--no-such-flag"])
    monkeypatch.syspath_prepend(script.parent)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name="__main__")
    assert stop.value.code == 2
    assert "--no-such-flag" in capsys.readouterr().err


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_opens_with_its_command_and_result(script):
    opening = ast.get_docstring(ast.parse(script.read_text("utf-8")))
    assert f"python examples/{script.name}" in opening
    assert "Measured" in opening
