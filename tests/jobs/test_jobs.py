"""Whole jobs: what a run folder holds, what it is used for, and what is left when something goes wrong."""

import csv
import dataclasses
import errno
import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import TINY, draw_images, write_folder
from PIL import Image

import keras_resnet
from keras_resnet import InputError, Recipe, SaveError, get_spec, jobs, load_data
from keras_resnet.data import Split, encoded
from keras_resnet.jobs.run_folder import CHECKPOINT_FILE, RunFolder, load_run
from keras_resnet.training.callbacks import KeepEpochs

FILES = {"run.json", "model.keras", "history.csv", "curves.png", "confusion.png"}
QUICK = {"epochs": 1, "batch_size": 16, "max_steps": 2}


def _train(npz, run_dir, **changes):
    return jobs.train(npz, model=TINY, run_dir=run_dir, recipe={**QUICK, **changes}, verbose=0)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_a_run_in_mixed_precision_is_used_as_any_other(npz, tmp_path, dtype):
    run = _train(npz, tmp_path / "run", dtype=dtype)
    assert run.recipe.dtype == dtype
    model = keras.saving.load_model(run.model_path)
    assert model.get_layer("stage1_block1_conv1").compute_dtype == dtype.removeprefix("mixed_")
    assert model.get_layer("head_logits").compute_dtype == "float32"
    assert jobs.evaluate(run.path, verbose=0).accuracy == run.record.test.accuracy


def test_a_run_folder_holds_the_run(run, npz):
    assert {path.name for path in run.path.iterdir()} == FILES
    record = run.record
    assert record.model.spec.name == "resnet8_cifar"
    assert record.model.parameters == keras.saving.load_model(run.model_path).count_params()
    assert record.source.name == str(npz)
    assert run.class_names == ("dark", "gray", "light")
    assert (record.data.train_images, record.data.validation_images, record.data.test_images) == (86, 10, 24)
    assert record.recipe.seed == 3
    assert record.recipe.learning_rate == Recipe(batch_size=16).peak_learning_rate
    assert record.steps == 3 * 6
    assert record.bn_reestimated_on_images == 86
    assert record.test.num_examples == 24
    assert record.test.accuracy > 0.8  # three shades: a trained network tells them apart
    assert set(record.seconds) >= {"load_data", "build", "train", "reestimate_bn", "save", "evaluate", "total"}
    assert record.versions["keras"] == keras.__version__
    assert record.machine.cores >= 1
    with open(run.path / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    best = min(rows, key=lambda row: float(row["val_loss"]))
    assert int(best["epoch"]) == record.best_epoch
    assert record.validation.loss == pytest.approx(float(best["val_loss"]))
    for name in ("curves.png", "confusion.png"):
        with Image.open(run.path / name) as picture:
            assert picture.size[0] > 300
    assert load_run(run.path) == run


def test_the_saved_model_is_the_network_alone(run, npz):
    """It needs no part of this package, evaluates as it is, and ends in logits."""
    code = (
        "import sys; sys.modules['keras_resnet'] = None\n"
        "import keras, numpy as np\n"
        f"model = keras.saving.load_model({str(run.model_path)!r}); data = np.load({str(npz)!r})\n"
        f"p = {run.preprocessing.to_dict()!r}\n"
        "x = (data['x_test'] / 255 - p['mean']) / p['std']\n"
        "loss, accuracy = model.evaluate(x.astype('float32'), data['y_test'], verbose=0)\n"
        "print(loss, accuracy, model.layers[-1].name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loss, accuracy, last = done.stdout.split()
    assert float(loss) == pytest.approx(run.record.test.loss, abs=1e-4)
    assert float(accuracy) == pytest.approx(run.record.test.accuracy)
    assert last == "head_logits"


def test_two_runs_with_one_seed_are_the_same(npz, tmp_path):
    runs = [_train(npz, tmp_path / name, seed=1) for name in ("a", "b")]
    mine, theirs = (keras.saving.load_model(run.model_path).get_weights() for run in runs)
    assert all(np.array_equal(x, y) for x, y in zip(mine, theirs, strict=True))
    assert runs[0].record.test == runs[1].record.test


def test_another_seed_draws_other_weights(npz, tmp_path):
    network = keras.saving.load_model(_train(npz, tmp_path / "r", seed=2).model_path)
    keras.utils.set_random_seed(1)
    other = keras_resnet.build(TINY, (8, 8, 1), 3, classifier_activation=None)
    # Two steps move no kernel as far as another draw.
    kernel, drawn = (np.asarray(model.get_layer("stem_conv").kernel) for model in (network, other))
    keras.utils.set_random_seed(2)
    same = keras_resnet.build(TINY, (8, 8, 1), 3, classifier_activation=None)
    own = np.asarray(same.get_layer("stem_conv").kernel)
    assert np.abs(kernel - own).max() < 0.2 * np.abs(kernel - drawn).max()


def test_evaluate_gives_the_figures_of_the_run(run):
    evaluation = jobs.evaluate(run.path, verbose=0)
    assert evaluation.to_dict() == pytest.approx(run.record.test.to_dict())
    assert jobs.evaluate(run.path, test_size=9, verbose=0).num_examples == 9
    assert jobs.evaluate(run.path, test_size="all", batch_size=7, verbose=0).num_examples == 24


def test_evaluate_all_after_a_run_on_a_part(npz, tmp_path):
    run = jobs.train(npz, model=TINY, run_dir=tmp_path / "r", train_size=40, test_size=6, recipe=QUICK, verbose=0)
    assert run.record.test.num_examples == 6
    assert run.record.data.train_images + run.record.data.validation_images == 40
    assert jobs.evaluate(run.path, verbose=0).to_dict() == pytest.approx(run.record.test.to_dict())
    assert jobs.evaluate(run.path, test_size="all", verbose=0).num_examples == 24


def test_predict_gives_the_classes_by_falling_probability(run, tmp_path):
    images, labels = draw_images(6, 8, 8, 1, 3, seed=9)
    paths = []
    for index, image in enumerate(images):
        paths.append(tmp_path / f"{index}.{'png' if index % 2 else 'jpg'}")
        Image.fromarray(image[..., 0]).resize((8 * (index + 1), 8 * (index + 1))).save(paths[-1], quality=95)
    Image.fromarray(np.repeat(images[0], 3, -1)).save(tmp_path / "colour.png")
    predictions = jobs.predict(run.path, [*paths, tmp_path / "colour.png"], top_k=2)
    assert [p.path for p in predictions] == [str(path) for path in [*paths, tmp_path / "colour.png"]]
    right = [
        p.class_names[0] == run.class_names[label] for p, label in zip(predictions, [*labels, labels[0]], strict=True)
    ]
    assert np.mean(right) > 0.8
    for prediction in predictions:
        assert len(prediction.class_names) == len(prediction.probabilities) == 2
        assert prediction.probabilities[0] >= prediction.probabilities[1] >= 0
    (whole,) = jobs.predict(run.path, paths[:1], top_k=99)
    assert sorted(whole.class_names) == sorted(run.class_names)
    assert sum(whole.probabilities) == pytest.approx(1)


def test_an_image_folder_trains(tmp_path):
    images, labels = draw_images(30, 9, 7, 3, 2)
    folder = write_folder(tmp_path / "shades", images, labels, ["dark", "light"])
    run = jobs.train(folder, model=TINY, run_dir=tmp_path / "run", recipe={**QUICK, "batch_size": 8}, verbose=0)
    assert run.preprocessing.input_shape == (9, 7, 3)
    assert run.class_names == ("dark", "light")
    assert run.record.source.name == str(folder)
    assert jobs.evaluate(run.path, verbose=0).num_examples == 6


def test_default_names_of_model_and_folder(npz, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = jobs.train(npz, recipe={**QUICK, "seed": 4}, verbose=0)
    assert run.path == Path("runs/resnet20_cifar_shades_npz_seed4")
    assert run.spec.name == "resnet20_cifar"


def test_without_validation_the_last_epoch_is_kept(npz, tmp_path):
    run = _train(npz, tmp_path / "r", validation_split=0.0, epochs=2, max_steps=None)
    assert (run.record.best_epoch, run.record.validation) == (2, None)
    assert run.record.data.train_images == 96


# Bad input


def _leaves_nothing(tmp_path, call, message, error=InputError):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=message):
        call()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_is_never_overwritten(run, npz, tmp_path):
    before = {path: path.read_bytes() for path in run.path.iterdir()}
    with pytest.raises(
        InputError, match=r"already holds a run \(resnet8_cifar on .*, test accuracy [\d.]+\). Choose another"
    ):
        _train(npz, run.path)
    assert {path: path.read_bytes() for path in run.path.iterdir()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("no copy")
    _leaves_nothing(
        tmp_path, lambda: _train(npz, tmp_path / "mine"), r"new or an empty folder. Received: .*holds thesis.txt"
    )
    (tmp_path / "file").write_text("")
    _leaves_nothing(tmp_path, lambda: _train(npz, tmp_path / "file"), r"which is a file")


def test_a_run_folder_in_use(npz, tmp_path):
    folder = RunFolder(tmp_path / "busy")
    folder.open()
    with pytest.raises(InputError, match=rf"is in use by process {os.getpid()} since "):
        _train(npz, tmp_path / "busy")
    with pytest.raises(InputError, match=r"is in use by process"):
        RunFolder(tmp_path / "busy").open()
    folder.close(finished=False)
    assert not (tmp_path / "busy").exists()


def test_a_run_folder_left_by_a_killed_process(npz, tmp_path):
    folder = tmp_path / "left"
    folder.mkdir()
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    lock = {"process": process.pid, "host": platform.node(), "started": "2026-01-01T00:00:00"}
    (folder / "running.json").write_text(json.dumps(lock))
    (folder / CHECKPOINT_FILE).write_bytes(b"")
    with pytest.raises(
        InputError, match=r"was left by process \d+, started .*, which was stopped. It left checkpoint.weights.h5"
    ):
        _train(npz, folder)
    lock["process_started"] = 1.0  # 0.1 did not write it down; the number of a process may be another's now
    (folder / "running.json").write_text(json.dumps({**lock, "process": os.getpid()}))
    with pytest.raises(InputError, match=r"was left by process \d+"):
        _train(npz, folder)
    for written in ("{", '{"process": "x"}', "[]"):
        (folder / "running.json").write_text(written)
        with pytest.raises(InputError, match=r"is in use, or was left by a run that was stopped"):
            _train(npz, folder)
    lock["host"] = "elsewhere"
    (folder / "running.json").write_text(json.dumps(lock))
    with pytest.raises(InputError, match=r"in use by process \d+ on elsewhere since"):
        _train(npz, folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "resnet19"}, r"Unknown network. Received: 'resnet19'. Did you mean 'resnet18'"),
        ({"recipe": {"epochs": 0}}, r"epochs must be an integer of at least 1. Received: 0"),
        ({"recipe": {"epoch": 3}}, r"A Recipe has the fields .* Received: 'epoch'. Did you mean 'epochs'"),
        ({"train_size": 1000}, r"train-size must be from 1 to 96, .*Received: 1000"),
        ({"train_size": 1}, r"validation split needs at least 2 training images. Received: 1"),
        ({"test_size": 0}, r"test_size must be None or an integer of at least 1. Received: 0"),
        ({"test_size": 25}, r"test-size must be from 1 to 24, .*Received: 25"),
        (
            {"image_size_pixels": (0, 8)},
            r"image_size_pixels must be \(height, width\), both at least 1. Received: \(0, 8\)",
        ),
    ],
)
def test_bad_arguments_leave_nothing(npz, tmp_path, arguments, message):
    arguments = {"run_dir": tmp_path / "r", "verbose": 0, **arguments}
    _leaves_nothing(tmp_path, lambda: jobs.train(npz, **arguments), message)


def test_bad_data_leaves_nothing(tmp_path):
    _leaves_nothing(tmp_path, lambda: jobs.train("mnits", run_dir=tmp_path / "r"), r"Did you mean 'mnist'")


@pytest.mark.parametrize(("suffix", "part"), [(".jpg", "train"), (".png", "train"), (".jpg", "test")])
def test_a_truncated_image_is_named_and_nothing_is_left(tmp_path, suffix, part):
    images, labels = draw_images(40, 32, 32, 3, 2)
    folder = write_folder(tmp_path / "shades", images, labels, ["dark", "light"], suffix=suffix)
    broken = Path(getattr(load_data(folder), part).images[-1])
    broken.write_bytes(broken.read_bytes()[:400])  # the header is whole
    recipe = {"epochs": 1, "batch_size": 8}
    _leaves_nothing(
        tmp_path,
        lambda: jobs.train(folder, model=TINY, run_dir=tmp_path / "run", recipe=recipe, verbose=0),
        rf"{broken.name} could not be decoded as a PNG or JPEG image: ",
    )


def test_a_diverging_training_is_an_error(npz, tmp_path):
    recipe = {"learning_rate": 1e30, "validation_split": 0.0, "warmup_fraction": 0.0, "max_steps": 6}
    _leaves_nothing(tmp_path, lambda: _train(npz, tmp_path / "a" / "b", **recipe), r"the training diverged. Lower the")


def test_the_image_that_cannot_be_decoded_is_looked_for_by_the_decoder(tmp_path):
    good = write_folder(tmp_path, *draw_images(2, 8, 8, 3, 1), ["a"])
    paths = sorted(str(path) for path in good.rglob("*.png"))
    split = Split(np.array(paths), np.zeros(2))
    assert encoded.find_undecodable(split) == []
    contents = np.array([Path(paths[0]).read_bytes(), b"nothing"], object)
    assert [found[:2] for found in encoded.find_undecodable(Split(contents, np.zeros(2)))] == [(1, "image 1")]
    Path(paths[1]).write_bytes(b"\x89PNG")
    assert [found[:2] for found in encoded.find_undecodable(split)] == [(1, paths[1])]
    with pytest.raises(ValueError, match="unrelated"), encoded.naming_undecodable(split):
        raise ValueError("unrelated")


def test_predict_and_evaluate_refuse(run, tmp_path):
    with pytest.raises(InputError, match=r"that 'keras-resnet train' wrote. Received: .*nowhere, which is none"):
        jobs.predict(tmp_path / "nowhere", ["x.png"])
    with pytest.raises(
        InputError, match=r"must hold run.json and model.keras. Received: .*, without run.json and model.keras"
    ):
        jobs.evaluate(tmp_path)
    with pytest.raises(InputError, match=r"There is no image at .*x.png"):
        jobs.predict(run.path, [tmp_path / "x.png"])
    (tmp_path / "x.png").write_bytes(b"text")
    with pytest.raises(InputError, match=r"x.png could not be decoded as a PNG or JPEG image"):
        jobs.predict(run.path, [tmp_path / "x.png"])
    with pytest.raises(InputError, match=r"at least one image. Received: none"):
        jobs.predict(run.path, [])
    with pytest.raises(InputError, match=r"top_k must be at least 1. Received: 0"):
        jobs.predict(run.path, ["x.png"], top_k=0)
    with pytest.raises(InputError, match=r"test-size must be a number of images or 'all'. Received: 'many'"):
        jobs.evaluate(run.path, test_size="many")
    with pytest.raises(InputError, match=r"test-size must be from 1 to 24, .* Received: 25"):
        jobs.evaluate(run.path, test_size=25)


def test_a_record_of_another_version_is_an_error(run, tmp_path):
    record = json.loads((run.path / "run.json").read_text())
    record["recipe"]["warmth"] = 3
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "model.keras").write_bytes(b"")
    with pytest.raises(InputError, match=r"run.json is not the record of a run of this version: .*'warmth'"):
        load_run(tmp_path)


def test_data_with_other_classes_is_an_error(run, tmp_path):
    record = json.loads((run.path / "run.json").read_text())
    record["source"]["name"] = "digits"
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "model.keras").write_bytes(b"")
    with pytest.raises(InputError, match=r"was trained on digits from npz. Received: scikit-learn load_digits"):
        jobs.evaluate(tmp_path)
    record["data"]["origin"] = "scikit-learn load_digits"
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"must have the classes .* dark, gray, light. Received: 0, 1, "):
        jobs.evaluate(tmp_path)


# Disks that fill, people who stop


def _fill_disk(monkeypatch, method):
    """From now on `keras.Model.save` or `save_weights` fails half-way, as on a full disk."""

    def save(self, path, *args, **kwargs):
        Path(path).write_bytes(b"half a model")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(keras.Model, method, save)


def test_a_disk_full_at_the_first_checkpoint_leaves_nothing(npz, tmp_path, monkeypatch):
    _fill_disk(monkeypatch, "save_weights")
    message = r"checkpoint.weights.h5 could not be written: .*No space left on device. Nothing was written before it"
    _leaves_nothing(tmp_path, lambda: _train(npz, tmp_path / "r"), message, error=SaveError)


def test_a_disk_full_later_leaves_the_checkpoint(npz, tmp_path, monkeypatch):
    _fill_disk(monkeypatch, "save")
    message = r"model.keras could not be written: .*No space left.*checkpoint.weights.h5, written before, is unchanged"
    with pytest.raises(SaveError, match=message):
        _train(npz, tmp_path / "r")
    assert {path.name for path in (tmp_path / "r").iterdir()} == {CHECKPOINT_FILE, "history.csv"}
    monkeypatch.undo()
    network = keras_resnet.build(TINY, (8, 8, 1), 3, classifier_activation=None)
    before = network.get_weights()[0]
    keras_resnet.models.load_weights(network, tmp_path / "r" / CHECKPOINT_FILE)
    assert not np.array_equal(network.get_weights()[0], before)


def test_a_file_survives_a_failing_successor(tmp_path):
    folder = RunFolder(tmp_path / "r")
    folder.open()
    folder.write("run.json", lambda path: path.write_text("whole"))

    def fail(path):
        path.write_text("half")
        raise RuntimeError("disk quota exceeded")

    with pytest.raises(
        SaveError, match=r"run.json could not be written: disk quota exceeded. .*run.json, written before"
    ):
        folder.write("run.json", fail)
    assert (tmp_path / "r" / "run.json").read_text() == "whole"
    assert {path.name for path in (tmp_path / "r").iterdir()} == {"run.json", "running.json"}


def test_a_folder_that_cannot_be_made(npz, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match=r"The run folder .* cannot be written: "):
        _train(npz, tmp_path / "file" / "r")


def _interrupt_at_epoch(monkeypatch, epoch, *, times=1):
    """Sends this process the signal of Ctrl-C when an epoch begins."""

    def on_epoch_begin(self, index, logs=None):
        if index == epoch:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(KeepEpochs, "on_epoch_begin", on_epoch_begin)


@pytest.mark.parametrize("epoch", [0, 2])
def test_ctrl_c_finishes_with_the_best_epoch_so_far(npz, tmp_path, monkeypatch, epoch):
    _interrupt_at_epoch(monkeypatch, epoch)
    run = _train(npz, tmp_path / "r", epochs=5, max_steps=None, steps_per_execution=1)
    assert run.record.interrupted is True
    assert 1 <= run.record.best_epoch <= epoch + 1
    assert run.record.steps == epoch * 6 + 1
    assert {path.name for path in run.path.iterdir()} == FILES
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_twice_stops_at_once(npz, tmp_path, monkeypatch):
    _interrupt_at_epoch(monkeypatch, 0, times=2)
    _leaves_nothing(tmp_path, lambda: _train(npz, tmp_path / "r"), None, error=KeyboardInterrupt)
    _interrupt_at_epoch(monkeypatch, 1, times=2)
    with pytest.raises(KeyboardInterrupt):
        _train(npz, tmp_path / "r", epochs=3, max_steps=None)
    assert {path.name for path in (tmp_path / "r").iterdir()} == {CHECKPOINT_FILE, "history.csv"}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


WAITING_TRAINING = """
import os
from keras_resnet.training.callbacks import KeepEpochs

started = open(os.environ["STARTED"], "w")


def wait(self, epoch, logs=None):
    if epoch == 1:
        print("second", file=started, flush=True)
        open(os.environ["SIGNALLED"]).read()  # until the signal was sent


KeepEpochs.on_epoch_begin = wait
from keras_resnet.cli import main
main()
"""


def test_ctrl_c_at_the_command_line(npz, tmp_path):
    """A real signal to a real process: it ends with a finished run and says that it stopped, never with a traceback."""
    pipes = {name: tmp_path / name.lower() for name in ("STARTED", "SIGNALLED")}
    for path in pipes.values():
        os.mkfifo(path)
    arguments = ["train", str(npz), "--model", "resnet8_cifar", "--run-dir", str(tmp_path / "r"), "--epochs", "3"]
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING_TRAINING, *arguments, "--batch-size", "16"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **{name: str(path) for name, path in pipes.items()}},
    )
    with open(pipes["STARTED"]) as started:  # ends with the process, if that ends too early
        assert started.readline() == "second\n", process.communicate()[1]
    process.send_signal(signal.SIGINT)
    open(pipes["SIGNALLED"], "w").close()
    errors = process.communicate()[1]
    assert "Traceback" not in errors
    assert "stopping after this step" in errors
    assert process.returncode == 0
    record = load_run(tmp_path / "r").record
    assert record.interrupted
    assert 6 < record.steps <= 12


@pytest.mark.parametrize("changes", [{"rank": 1}, {"block": "custom"}])
def test_a_run_takes_images_and_a_network_that_its_spec_describes(tmp_path, changes):
    spec = dataclasses.replace(get_spec("resnet8_cifar"), **changes)
    with pytest.raises(InputError, match=r"rank 2 and a built-in block. Received: resnet8_cifar with rank="):
        jobs.train("digits", model=spec, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_grouped_network_goes_through_a_run(tmp_path, npz):
    run = jobs.train(npz, model="resnext11_2x16d_cifar", run_dir=tmp_path / "run", recipe={"max_steps": 1}, verbose=0)
    assert run.spec.groups == 2
    assert jobs.evaluate(tmp_path / "run", verbose=0).to_dict() == run.record.test.to_dict()
