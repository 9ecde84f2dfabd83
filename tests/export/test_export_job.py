"""A finished run as files for a server: from Python, from the command line, and without a skew from training."""

import io
import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import run_main
from PIL import Image

from keras_resnet import InputError, Preprocessing, SaveError, build, count_params, data, jobs
from keras_resnet.errors import ExportFailed
from keras_resnet.export import export_saved_model, verify
from keras_resnet.export.check import find_odd_nodes
from keras_resnet.jobs.inference import load_run_data
from keras_resnet.models import load_model
from keras_resnet.specs import TABLE, iter_layers


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The run as a SavedModel, by the command line in a process of its own, proved, as a user makes it."""
    dest = tmp_path_factory.mktemp("exported")
    code = "from keras_resnet.cli import main; main()"
    command = [sys.executable, "-c", code, "export", str(run.path), str(dest), "--name", "shades"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"saved_model of shades, version 1, verified; in {dest / 'shades' / '1'}\n"
    assert "Traceback" not in done.stderr
    assert "AutoGraph" not in done.stderr  # which says so where it cannot read a function
    return dest / "shades" / "1"


def _png(image):
    stream = io.BytesIO()
    Image.fromarray(image[..., 0]).save(stream, "PNG")
    return stream.getvalue()


def test_an_exported_run_knows_its_data(run, exported):
    assert (exported.name, exported.parent.name) == ("1", "shades")
    record = json.loads((exported / "export.json").read_text("utf-8"))
    assert record["class_names"] == list(run.class_names) == ["dark", "gray", "light"]
    assert Preprocessing.from_dict(record["preprocessing"]) == run.preprocessing
    assert (record["name"], record["input_shape"]) == ("shades", [8, 8, 1])
    assert (exported / "assets" / "labels.txt").read_text("utf-8") == "dark\ngray\nlight\n"
    assert record["verified"]["batch_sizes"] == [1, 7]
    assert set(record["verified"]["differences"]) == {"onednn", "no_onednn"}


def test_serving_sees_what_training_saw(run, exported):
    """The test images as PNG files: the classes that `evaluate` counts, and probabilities to 1e-4."""
    test = load_run_data(run).test
    dataset = data.make_eval_dataset(test, run.preprocessing, batch_size=16)
    model = load_model(run.model_path)
    logits = model.predict(dataset, verbose=0).astype(np.float64)
    wanted = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    files = [_png(np.asarray(image)) for image in test.images]
    served = tf.saved_model.load(str(exported)).signatures
    answer = {name: value.numpy() for name, value in served["serve_bytes"](tf.constant(files)).items()}
    assert len(files) == 24
    np.testing.assert_array_equal(answer["class_ids"][:, 0], logits.argmax(-1))
    np.testing.assert_allclose(answer["probabilities"], wanted, atol=1e-4)
    evaluation = jobs.evaluate(run.path, verbose=0)
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (test.labels, answer["class_ids"][:, 0]), 1)
    np.testing.assert_array_equal(confusion, evaluation.confusion)
    assert [[name.decode() for name in row] for row in answer["class_names"]] == [
        [run.class_names[index] for index in row] for row in answer["class_ids"]
    ]
    arrays = served["serving_default"](tf.constant(np.stack(test.images)))
    np.testing.assert_allclose(arrays["probabilities"], answer["probabilities"], atol=1e-6)


def test_prediction_and_serving_agree_on_files(run, exported, tmp_path):
    """Files of other sizes, resized and padded: `predict` and `serve_bytes` give one answer."""
    paths = []
    for index, size in enumerate(((8, 8), (30, 17), (5, 40))):
        paths.append(tmp_path / f"{index}.{'jpg' if index else 'png'}")
        Image.fromarray(np.random.default_rng(index).integers(0, 256, size).astype(np.uint8)).save(paths[-1])
    served = tf.saved_model.load(str(exported)).signatures["serve_bytes"]
    answer = served(tf.constant([path.read_bytes() for path in paths]))
    for prediction, names, probabilities in zip(
        jobs.predict(run.path, paths, top_k=3), answer["class_names"], answer["probabilities"], strict=True
    ):
        assert list(prediction.class_names) == [name.decode() for name in names.numpy()]
        np.testing.assert_allclose(prediction.probabilities, np.sort(probabilities.numpy())[::-1], atol=1e-4)


def test_export_at_the_command_line(monkeypatch, capsys, run, tmp_path, no_graph):
    status, out, err = run_main(monkeypatch, capsys, "export", run.path, tmp_path)
    assert status == 0, err
    path = tmp_path / "resnet8_cifar" / "1"
    assert out == f"saved_model of resnet8_cifar, version 1, verified; in {path}\n"
    assert (path / "saved_model.pb").is_file()
    status, out, _ = run_main(monkeypatch, capsys, "export", run.path, tmp_path, "--no-warm-up")
    assert (status, out.split("; in ")[0]) == (0, "saved_model of resnet8_cifar, version 2, verified")
    assert not (tmp_path / "resnet8_cifar" / "2" / "assets.extra").exists()
    status, out, _ = run_main(monkeypatch, capsys, "export", run.path, tmp_path, "--version", "7", "--name", "shades")
    assert (status, out) == (0, f"saved_model of shades, version 7, verified; in {tmp_path / 'shades' / '7'}\n")


def test_int8_at_the_command_line(monkeypatch, capsys, run, tmp_path):
    pytest.importorskip("ai_edge_litert", reason="the format 'litert' needs it")
    options = ["--format", "litert", "--int8", "--calibration-size", "9"]
    status, out, err = run_main(monkeypatch, capsys, "export", run.path, tmp_path, *options)
    assert status == 0, err
    path = tmp_path / "resnet8_cifar" / "1"
    measured = json.loads((path / "export.json").read_text("utf-8"))["measured"]
    assert measured["calibration_images"] == 9
    assert out.splitlines() == [
        f"litert of resnet8_cifar, version 1, verified; in {path}",
        f"test accuracy {measured['int8_accuracy']:.4f} as int8, {run.record.test.accuracy:.4f} as float, on 24 images",
    ]


def test_help_lists_export_without_tensorflow():
    code = (
        "import sys\n"
        "from keras_resnet.cli import main\n"
        "try:\n    main()\nfinally:\n    print([name for name in ('tensorflow', 'keras') if name in sys.modules])"
    )
    for arguments, words in ((["--help"], ["export", "Write the model of RUN"]), (["export", "--help"], ["--int8"])):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert all(word in done.stdout for word in words)
        assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--format", "tflite"],
            "format must be one of 'saved_model', 'onnx', 'litert', 'openvino'. Received: 'tflite'",
        ),
        (["--int8"], "int8, with images to calibrate with, is of the format 'litert'. Received: 'saved_model'"),
        (
            ["--int8", "--format", "onnx"],
            "int8, with images to calibrate with, is of the format 'litert'. Received: 'onnx'",
        ),
        (["--warm-up", "--format", "onnx"], "Warm-up requests are of the format 'saved_model'. Received: 'onnx'"),
        (
            ["--no-warm-up", "--format", "litert"],
            "Warm-up requests are of the format 'saved_model'. Received: 'litert'",
        ),
        (["--version", "0"], "0 is not in the range"),
        (["--calibration-size", "0"], "0 is not in the range"),
        (["--name", "a/b"], "made of letters, digits and _ - . Received: 'a/b'"),
        (["--int-8"], "No such option"),
    ],
)
def test_bad_options_are_one_line_and_status_2(monkeypatch, capsys, run, tmp_path, options, message):
    status, out, err = run_main(monkeypatch, capsys, "export", run.path, tmp_path / "x", *options)
    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_calibration_size_is_a_number(run, tmp_path):
    with pytest.raises(InputError, match=r"calibration_size must be a number of images of at least 1. Received: 0"):
        jobs.export_run(run.path, tmp_path, format="litert", int8=True, calibration_size=0)


def test_what_is_no_run(monkeypatch, capsys, tmp_path):
    status, _, err = run_main(monkeypatch, capsys, "export", tmp_path / "nowhere", tmp_path / "x")
    assert (status, err.splitlines()[-1].endswith("nowhere, which is none.")) == (2, True)
    status, _, err = run_main(monkeypatch, capsys, "export", tmp_path, tmp_path / "x")
    assert status == 2
    assert "without run.json and model.keras" in err
    assert run_main(monkeypatch, capsys, "export", tmp_path)[0] == 2  # no destination
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [None, {}, "missing"])
def test_a_run_without_preprocessing_is_refused(run, tmp_path, value):
    copy = shutil.copytree(run.path, tmp_path / "run")
    record = json.loads((copy / "run.json").read_text("utf-8"))
    del record["preprocessing"]
    if value != "missing":
        record["preprocessing"] = value
    (copy / "run.json").write_text(json.dumps(record))
    with pytest.raises(
        InputError, match=r"run.json is not the record of a run of this version: a run must store its preprocessing, or"
    ):
        jobs.export_run(copy, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_run_whose_names_do_not_fit_its_model_is_refused(run, tmp_path):
    copy = shutil.copytree(run.path, tmp_path / "run")
    record = json.loads((copy / "run.json").read_text("utf-8"))
    record["data"]["class_names"].append("blinding")
    (copy / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"class_names must be 3 strings of one line each. Received: 4 names"):
        jobs.export_run(copy, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_code_in_a_model_file_is_never_run(monkeypatch, capsys, run, tmp_path):
    """A Lambda layer's function is Python's bytecode in the file: loading it would be running it."""
    copy = shutil.copytree(run.path, tmp_path / "run")
    mark = tmp_path / "was run"
    source = f"lambda x: (open({str(mark)!r}, 'w'), x)[1]"
    inputs = keras.Input((8, 8, 1))
    lambda_layer = keras.layers.Lambda(eval(source), output_shape=(8, 8, 1))
    outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(lambda_layer(inputs)))
    keras.Model(inputs, outputs).save(copy / "model.keras")
    mark.unlink(missing_ok=True)  # building the model may have called it
    status, out, err = run_main(monkeypatch, capsys, "export", copy, tmp_path / "x")
    assert (status, out) == (2, "")
    assert "Lambda" in err
    assert "Traceback" not in err
    with pytest.raises(InputError, match="Lambda"):
        load_model(copy / "model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_failing_export_is_status_1(monkeypatch, capsys, run, tmp_path, no_graph):
    def fail(*_):
        raise ExportFailed("logits differ")

    monkeypatch.setattr(verify, "verify_saved_model", fail)
    status, out, err = run_main(monkeypatch, capsys, "export", run.path, tmp_path / "x")
    assert (status, out) == (1, "")
    assert err.endswith("Error: logits differ\n")
    (tmp_path / "file").write_text("")
    status, _, err = run_main(monkeypatch, capsys, "export", run.path, tmp_path / "file")
    assert status == 1
    assert "could not be written" in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_is_left_as_it_is(run, tmp_path, no_graph):
    before = {path: path.read_bytes() for path in run.path.iterdir()}
    jobs.export_run(run.path, tmp_path)
    with pytest.raises(SaveError, match="Not a directory"):
        jobs.export_run(run.path, run.path / "run.json")
    assert {path: path.read_bytes() for path in run.path.iterdir()} == before


def _is_exported_here(name):
    depth = sum(1 for layer in iter_layers(TABLE[name].spec, classes=10) if "bn" not in layer.name)
    return count_params(name, classes=10) < 30_000_000 and depth <= 300


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TABLE if _is_exported_here(name)])
def test_every_row_is_exported(tmp_path, name):
    """Up to 30 M parameters and 300 layers, at the input of its source."""
    model = build(name, classes=10)
    path = export_saved_model(model, tmp_path)
    record = json.loads((path / "export.json").read_text("utf-8"))
    cases = 4 if TABLE[name].spec.rank == 1 else 8
    for differences in record["verified"]["differences"].values():
        assert len(differences) == cases
        assert all(value <= 1e-4 for parts in differences.values() for value in parts.values())
    assert find_odd_nodes(str(path)) == []
    keras.utils.clear_session()
