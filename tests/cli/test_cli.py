"""The command line: what it prints, and what bad input gets."""

import json
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from helpers import draw_images, run_main
from PIL import Image

from keras_resnet import Recipe, SearchFailed, cli, get_spec
from keras_resnet.cli import options, searches
from keras_resnet.epochs import Epoch
from keras_resnet.jobs import load_search
from keras_resnet.jobs.inference import Prediction
from keras_resnet.jobs.searches.results import Search, TrialResult
from keras_resnet.search import Space
from keras_resnet.training import Evaluation


def _invoke(*arguments):
    return CliRunner().invoke(cli.cli, list(arguments), prog_name="keras-resnet")


def test_help_names_every_command():
    for arguments in (["--help"], ["-h"]):
        output = _invoke(*arguments).output
        assert all(command in output for command in ("train", "evaluate", "predict", "search", "data", "models"))
    for command in ("train", "evaluate", "predict", "search", "data", "models"):
        assert _invoke(command, "--help").exit_code == 0


def test_models_lists_the_table():
    output = _invoke("models", "resnet5*").output
    assert "resnet50 " in output
    assert "25,610,152" in output
    assert "25,557,032" in output
    assert "4,089,185,256" in output
    assert "resnet56_cifar" in output
    assert "resnet18" not in output
    assert "arXiv:1512.03385" in output
    assert "464,154" in _invoke("models", "resnet32_cifar").output
    assert "resnet26_cifar" in _invoke("models", "resnet26_cifar").output  # of the family, not in the table


def test_models_names_the_families():
    output = _invoke("models", "wrn*").output
    assert "wrn28_10_cifar" in output
    assert "36,479,194" in output
    assert "resnext{9n+2}_{groups}x{width}d_cifar" in output
    assert "resnext152_8x8d" in _invoke("models", "resnext152_8x8d").output


def test_show_prints_a_network_by_stages_and_draws_it(tmp_path):
    picture = tmp_path / "network.png"
    done = _invoke("show", "resnext50_32x4d", "--plot", str(picture))
    assert done.exit_code == 0, done.output
    assert "resnext50_32x4d: 25,097,128 parameters, 4,230,480,872 multiply-adds at 224x224x3" in done.output
    assert "6 x [1x1->512, 3x3->512 in 32 groups, 1x1->1024], the first with stride 2" in done.output
    assert "14x14x1024" in done.output
    with Image.open(picture) as image:
        assert image.format == "PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["network.png"]
    output = _invoke("show", "resnet18_1d", "--input-shape", "500x12", "--classes", "3").output
    assert "at 500x12" in output
    assert "16x512" in output
    assert "28x28x2048" in _invoke("show", "resnet50", "--output-stride", "8").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet51"], r"Unknown network. Received: 'resnet51'. Did you mean 'resnet50'"),
        (["resnet50", "--output-stride", "7"], "one of 4, 8, 16, 32. Received: 7"),
        (["resnet50", "--input-shape", "0x3x3"], "must be HEIGHTxWIDTHxCHANNELS or STEPSxCHANNELS"),
        (["resnet50", "--input-shape", "100x3"], "input_shape must be (height, width, channels)"),
        (["resnet50", "--classes", "0"], "0 is not in the range"),
        (["resnet50", "--input-shape", "²x²x3"], "must be HEIGHTxWIDTHxCHANNELS"),
        (["resnet50", "--plot", ""], "must be the name of a .png file. Received: ''"),
        (["resnet50", "--plot", "network.jpg"], "must be the name of a .png file"),
    ],
)
def test_show_refuses(monkeypatch, capsys, arguments, message):
    status, _, err = run_main(monkeypatch, capsys, "show", *arguments)
    assert status == 2
    assert message in err


def test_show_says_where_it_cannot_write(monkeypatch, capsys, tmp_path):
    target = tmp_path / "missing" / "network.png"
    status, _, err = run_main(monkeypatch, capsys, "show", "resnet18", "--plot", str(target))
    assert status == 1
    assert f"{target} could not be written: " in err


def test_unknown_options_fail(monkeypatch, capsys):
    status, _, err = run_main(monkeypatch, capsys, "train", "digits", "--epoch", "3")
    assert status == 2
    assert "No such option" in err
    assert "--epochs" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "digits", "--model", "resnet19"], "Unknown network. Received: 'resnet19'. Did you mean 'resnet18'"),
        (["train", "digits", "--epochs", "0"], "epochs must be an integer of at least 1. Received: 0"),
        (["train", "digits", "--optimizer", "sgdd"], "Did you mean 'sgd'"),
        (["train", "digits", "--image-size", "0"], "must be N or HEIGHTxWIDTH, in pixels of at least 1. Received: '0'"),
        (["train", "digits", "--image-size", "8xx"], "Received: '8xx'"),
        (
            ["train", "digits", "--train-size", "some"],
            "must be a number of images of at least 1, or 'all'. Received: 'some'",
        ),
        (["train", "digits", "--train-size", "9999", "--run-dir", "r"], "train-size must be from 1 to 1438"),
        (["train", "mnits"], "Unknown data set. Received: 'mnits'. Did you mean 'mnist'"),
        (["models", "resnot50"], "Did you mean 'resnet50'"),
        (["evaluate", "nowhere"], "Received: nowhere, which is none"),
        (["predict", "nowhere"], "Missing argument 'IMAGES...'"),
        (["train", "digits", "--from", "nowhere"], "wrote. Received: nowhere, without search.json"),
        (
            ["train", "digits", "--from", "nowhere", "--model", "resnet8_cifar"],
            "--from brings its own network, so --model must be left out. Received: 'resnet8_cifar'",
        ),
        (["search", "digits", "--tuner", "hyperbnd"], "Received: 'hyperbnd'. Did you mean 'hyperband'"),
        (["search", "digits", "--space", "stages="], "needs at least one value for stages. Received: ()"),
        (["search", "digits", "--space", "stage=2"], "must be FIELD=VALUE,VALUE,..., the field one of "),
        (["search", "digits", "--space", "stage=2"], "Received: 'stage=2'. Did you mean 'stages'"),
        (
            ["search", "digits", "--space", "widths=8,wide"],
            "The values of widths must be integers. Received: 'widths=8",
        ),
        (["search", "digits", "--max-params", "many"], "such as 300k, 2.3M or 4G. Received: 'many'"),
        (["search", "digits", "--max-param", "300k"], "--max-params"),
        (["search", "digits", "--learning-rate", "0.1"], "No such option '--learning-rate'"),
        (["search", "digits", "--steps", "5"], "No such option '--steps'"),
        (["search", "digits", "--workers", "0"], "workers must be an integer of at least 1. Received: 0"),
        (["search", "digits", "--trials", "0"], "trials must be an integer of at least 1. Received: 0"),
        (["search", "digits", "--epochs", "0"], "epochs must be an integer of at least 1. Received: 0"),
    ],
)
def test_bad_input_is_one_line_and_status_2(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, _, err = run_main(monkeypatch, capsys, *arguments)
    assert status == 2
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_train_evaluate_predict(monkeypatch, capsys, npz, tmp_path):
    run = str(tmp_path / "run")
    options = [
        "--model",
        "resnet8_cifar",
        "--run-dir",
        run,
        "--epochs",
        "2",
        "--batch-size",
        "16",
        "--train-size",
        "60",
    ]
    status, out, err = run_main(
        monkeypatch, capsys, "train", str(npz), *options, "--steps", "5", "--seed", "1", "--image-size", "8x10"
    )
    assert status == 0
    assert "resnet8_cifar on " in out
    assert "5 steps" in out
    assert "Traceback" not in err
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["preprocessing"]["image_size_pixels"] == [8, 10]
    assert record["recipe"]["max_steps"] == 5
    status, out, _ = run_main(monkeypatch, capsys, "evaluate", run, "--test-size", "4")
    assert status == 0
    assert "on 4 images" in out
    Image.fromarray(draw_images(1, 5, 5, 1, 1)[0][0, ..., 0]).save(tmp_path / "a.png")
    status, out, _ = run_main(monkeypatch, capsys, "predict", run, str(tmp_path / "a.png"), "--top-k", "2", "--json")
    assert status == 0
    assert len(json.loads(out)["probabilities"]) == 2


EVALUATION = Evaluation(accuracy=0.75, loss=0.5, num_examples=4, confusion=np.diag([2, 1]))


def test_an_evaluation_as_json(monkeypatch, capsys):
    asked = {}

    def evaluate(run, **options):
        asked.update(options, run=run)
        return EVALUATION

    monkeypatch.setattr("keras_resnet.jobs.evaluate", evaluate)
    status, out, _ = run_main(monkeypatch, capsys, "evaluate", "r", "--test-size", "all", "--batch-size", "7", "--json")
    assert status == 0
    assert json.loads(out) == {"accuracy": 0.75, "loss": 0.5, "num_examples": 4}
    assert asked == {"run": "r", "test_size": "all", "batch_size": 7, "data_dir": None, "verbose": 0}


def test_a_prediction_is_a_line(monkeypatch, capsys):
    predictions = [Prediction("a.png", ("dark", "light"), (0.875, 0.125)), Prediction("b.png", ("light",), (1.0,))]
    monkeypatch.setattr("keras_resnet.jobs.predict", lambda run, images, top_k: predictions)
    status, out, _ = run_main(monkeypatch, capsys, "predict", "r", "a.png", "b.png")
    assert (status, out) == (0, "a.png: dark 0.8750, light 0.1250\nb.png: light 1.0000\n")


STORED = Path(__file__).parents[1] / "fixtures" / "search_0_1"


def _make_trial(trial_id, status, accuracy=None, reason=""):
    spec = get_spec("resnet8_cifar")
    history = (Epoch(1, 0.1, {"val_accuracy": 0.1, "val_loss": 2.0}),)
    if accuracy:
        history += (Epoch(2, 0.1, {"val_accuracy": accuracy, "val_loss": 0.25}),)
    return TrialResult(trial_id, status, spec, Recipe(), 78_042, 12_500_000, 0, 3, history, 1.5, reason)


def test_search_hands_over_what_it_was_given_and_prints_each_trial_once(monkeypatch, capsys):
    asked = {}
    trials = (
        _make_trial("0", "COMPLETED", 0.75),
        _make_trial("1", "FAILED", reason="loss became nan in epoch 2"),
        _make_trial("2", "COMPLETED", 0.875),
    )

    def search(data, *, on_change, **options):
        asked.update(options, data=data)
        for count in (1, 2, 3):
            on_change((*trials[: count - 1], _make_trial(str(count - 1), "RUNNING")))
            on_change(trials[:count])
        return Search(Path("searches/x"), load_search(STORED).record, trials)

    monkeypatch.setattr("keras_resnet.jobs.search", search)
    status, out, err = run_main(
        monkeypatch,
        capsys,
        *("search", "digits", "--tuner", "random", "--trials", "3", "--max-params", "300k", "--max-macs", "2.3M"),
        *("--worker-memory", "4G", "--space", "stages=2,3", "--space", "blocks=basic", "--workers", "2"),
        *("--search-dir", "searches/x", "--epochs", "3", "--seed", "1", "--validation-split", "0.25"),
        *("--train-size", "90", "--image-size", "8x9", "--objective", "val_loss"),
    )
    assert (status, err) == (0, "")
    assert asked == {
        "data": "digits",
        "tuner": "random",
        "trials": 3,
        "max_params": 300_000,
        "max_macs": 2_300_000,
        "max_memory": None,
        "worker_memory": 4_000_000_000,
        "space": Space(stages=(2, 3), blocks=("basic",)),
        "workers": 2,
        "threads": None,
        "search_dir": "searches/x",
        "recipe": {"epochs": 3, "seed": 1, "validation_split": 0.25},
        "train_size": 90,
        "image_size_pixels": (8, 9),
        "objective": "val_loss",
        "data_dir": None,
    }
    assert out.splitlines() == [
        "0  78,042  12,500,000  2/3  0.7500  0.2500  resnet8_cifar",
        "1  78,042  12,500,000  1/3  0.1000  2.0000  resnet8_cifar failed: loss became nan in epoch 2",
        "2  78,042  12,500,000  2/3  0.8750  0.2500  resnet8_cifar",
        "2 trials completed, 1 failed; in searches/x",
        "winner: trial 2, resnet8_cifar, 78,042 parameters, 12,500,000 multiply-adds, validation accuracy 0.8750, "
        "loss 0.2500",
        "train it: keras-resnet train digits --from searches/x",
    ]


def test_search_without_a_winner(monkeypatch, capsys):
    found = Search(Path("x"), load_search(STORED).record, (_make_trial("0", "FAILED", reason="r"),))
    monkeypatch.setattr("keras_resnet.jobs.search", lambda *_, **__: found)
    status, out, err = run_main(monkeypatch, capsys, "search", "digits")
    assert status == 2
    assert out == "0 trials completed, 1 failed; in x\n"
    assert err == "Error: A search must have at least one completed trial. Received: x, where 1 have begun.\n"


def test_a_search_that_failed_is_status_1(monkeypatch, capsys):
    def fail(*_, **__):
        raise SearchFailed("worker0: ValueError: a bug")

    monkeypatch.setattr("keras_resnet.jobs.search", fail)
    assert run_main(monkeypatch, capsys, "search", "digits") == (1, "", "Error: worker0: ValueError: a bug\n")


def test_the_live_table_shows_the_latest_trials():
    table = searches._TrialTable()._render(tuple(_make_trial(str(index), "RUNNING") for index in range(25)))
    assert list(table.columns[0].cells) == [str(index) for index in range(5, 25)]
    assert next(table.columns[3].cells) == "1/3"


@pytest.mark.parametrize(
    ("text", "amount"),
    [("7", 7), ("300k", 300_000), ("1.5K", 1500), ("2.3M", 2_300_000), ("4G", 4 * 10**9), ("0.0005k", None)]
    + [(text, None) for text in ("", "k", "0", "0.4", "-3", "+3", "1e6", "3T", "3 k", "²k", "nan", "2.", ".5M")],
)
def test_amounts(text, amount):
    if amount is not None:
        assert options.Amount().convert(text, None, None) == amount
        return
    with pytest.raises(click.BadParameter, match=r"at least 1, such as 300k, 2.3M or 4G. Received: "):
        options.Amount().convert(text, None, None)


def test_a_stop_is_status_130(monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_resnet.jobs.train", stop)
    status, _, err = run_main(monkeypatch, capsys, "train", "digits")
    assert (status, err.strip()) == (130, "Stopped.")


def test_a_bug_keeps_its_traceback(monkeypatch, capsys):
    def broken(*_, **__):
        raise ValueError("a bug, not bad input")

    monkeypatch.setattr("keras_resnet.jobs.train", broken)
    with pytest.raises(ValueError, match="a bug"):
        run_main(monkeypatch, capsys, "train", "digits")


def test_the_image_size_is_height_then_width():
    assert options.ImageSize().convert("96x128", None, None) == (96, 128)
    assert options.ImageSize().convert("96", None, None) == (96, 96)
    assert np.array(options.CountOrAll().convert("7", None, None)) == 7
