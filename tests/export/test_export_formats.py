"""ONNX, LiteRT and OpenVINO: each file against the Keras model, by the format's own runtime."""

import errno
import functools
import importlib
import importlib.util
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from keras_resnet import InputError, Preprocessing, ResNetSpec, SaveError, build, jobs
from keras_resnet.data import preprocess
from keras_resnet.errors import ExportFailed
from keras_resnet.export import converters, export_format, export_saved_model, runtimes
from keras_resnet.export.formats import CONVERTED, FORMATS
from keras_resnet.export.reference import choose_tolerance

PLAIN = ResNetSpec("plain", "basic", depths=(1, 1), filters=(4, 6), strides=(1, 2), stem="cifar", stem_filters=4)
GROUPED = ResNetSpec(
    "grouped", "bottleneck", depths=(1, 1), filters=(4, 6), strides=(1, 2), stem="cifar", stem_filters=4, groups=2
)
LINE = ResNetSpec("line", "bottleneck", (1,), (4,), (1,), stem="cifar", stem_filters=4, groups=2, rank=1)
PREPROCESSING = Preprocessing((8, 10), 3, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
NAMES = ["Ärger", "猫", "two words", "d"]


def _need(format):
    """Skips where what the format takes is not installed."""
    for package in FORMATS[format].packages:
        pytest.importorskip(package, reason=f"the format {format!r} needs it")


@pytest.fixture(params=CONVERTED)
def format(request):
    _need(request.param)
    return request.param


def _network(spec=PLAIN, input_shape=(8, 10, 3), classes=4, activation="softmax"):
    """A network with BN as after a training, so that nothing it leaves out goes unseen."""
    keras.utils.set_random_seed(1)
    model = build(spec, input_shape, classes, classifier_activation=activation)
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.set_weights([rng.uniform(0.5, 1.5, shape), *rng.normal(size=(2, *shape)), rng.uniform(0.5, 2, shape)])
    return model


@pytest.fixture(scope="module")
def convert(tmp_path_factory):
    """The version's folder of a network in a format, converted once."""

    real = converters.ConvertedWriter.write

    @functools.cache
    def convert(format):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(converters.ConvertedWriter, "write", real)  # whatever a test writes by
            return export_format(_network(), tmp_path_factory.mktemp(format), format, PREPROCESSING)

    return convert


@pytest.fixture
def copy_converted(convert, monkeypatch):  # in this order, so that the real way of writing is known first
    """Has exports write what was converted before, whatever the network."""

    def write(self, folder):
        shutil.copytree(convert(self.request.format), folder, dirs_exist_ok=True)

    monkeypatch.setattr(converters.ConvertedWriter, "write", write)


def _pixels(count, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.float32)


def _softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def _check(run, batch, logits):
    """A file's answer to 1e-4 of the scale; `logits` are those of Keras."""
    found, wanted = run(batch), np.asarray(logits, np.float64)
    assert found["logits"].shape == found["probabilities"].shape == wanted.shape
    assert np.abs(found["logits"] - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert np.abs(found["probabilities"] - _softmax(wanted)).max() < 1e-4
    assert np.ptp(wanted) > 0


@pytest.mark.parametrize("spec", [PLAIN, GROUPED], ids=lambda spec: spec.name)
def test_a_file_gives_what_keras_gives(tmp_path, format, spec):
    activation = {"plain": "softmax", "grouped": None}[spec.name]
    model = _network(spec, activation=activation)
    weights = model.get_weights()
    path = export_format(model, tmp_path / "models", format, PREPROCESSING, NAMES)
    assert path == tmp_path / "models" / spec.name / "1"
    files = {"export.json", "labels.txt", FORMATS[format].file} | ({"model.bin"} if format == "openvino" else set())
    assert {file.name for file in path.iterdir()} == files
    assert (path / "labels.txt").read_text("utf-8") == "".join(f"{name}\n" for name in NAMES)
    run = runtimes.load(path, format, threads=1)
    reference = _network(spec, activation=None)
    reference.set_weights(weights)
    for count in (1, 2, 5):  # other batches than those of the proof
        batch = _pixels(count, (8, 10, 3), seed=count)
        _check(run, batch, reference(preprocess(batch, PREPROCESSING)))
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))
    record = json.loads((path / "export.json").read_text("utf-8"))
    assert (record["format"], record["name"], record["version"], record["int8"]) == (format, spec.name, 1, False)
    assert record["class_names"] == NAMES
    assert Preprocessing.from_dict(record["preprocessing"]) == PREPROCESSING
    assert record["measured"] is None
    assert record["verified"]["tolerance"] == 1e-4
    assert set(record["verified"]["differences"]) == {"batch 1", "batch 7"}
    for found in record["verified"]["differences"].values():
        assert set(found) == {"logits", "probabilities"}
        assert all(0 <= value < 1e-5 for value in found.values())
    assert set(FORMATS[format].distributions) <= set(record["versions"])


def test_inputs_and_outputs_have_names(tmp_path):
    _need("onnx")
    import onnxruntime

    path = export_format(_network(), tmp_path, "onnx")
    session = onnxruntime.InferenceSession(str(path / "model.onnx"), providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    assert (images.name, images.shape[1:], images.type) == ("images", [8, 10, 3], "tensor(float)")
    assert {output.name for output in session.get_outputs()} == {"probabilities", "logits"}


@pytest.mark.parametrize(("spec", "shape"), [(PLAIN, (None, None, 3)), (LINE, (None, 2))])
def test_images_of_any_size_and_sequences(tmp_path, format, spec, shape):
    """Without preprocessing: inputs go in as they are."""
    model = _network(spec, shape, activation=None)
    run = runtimes.load(export_format(model, tmp_path, format), format, threads=1)
    batch = _pixels(3, tuple(side or 13 for side in shape)) / 99
    _check(run, batch, model(batch))


def test_keras_own_groups(tmp_path, format):
    """Which Keras wraps in a function for XLA."""
    images = keras.Input((8, 10, 4))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, groups=2)(images)))
    model = keras.Model(images, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), name="stock")
    run = runtimes.load(export_format(model, tmp_path, format), format, threads=1)
    batch = _pixels(3, (8, 10, 4))
    _check(run, batch, model(batch, training=False))


def test_versions_of_one_model_have_one_format(tmp_path, copy_converted):
    _need("litert")
    path = export_format(_network(), tmp_path, "litert", PREPROCESSING)
    before = {file: file.read_bytes() for file in path.iterdir()}
    assert export_format(_network(), tmp_path, "litert", PREPROCESSING, version=4).name == "4"
    with pytest.raises(InputError, match=r"never changed. Received: version 1, which"):
        export_format(_network(), tmp_path, "litert", PREPROCESSING, version=1)
    with pytest.raises(InputError, match=r"one format.* Received: saved_model for .*plain, where [14] is litert"):
        export_saved_model(_network(), tmp_path, PREPROCESSING)
    assert {child.name for child in (tmp_path / "plain").iterdir()} == {"1", "4"}
    assert {file: file.read_bytes() for file in path.iterdir()} == before


# 8-bit integers


def _calibrate(count=16):
    return _pixels(count, (8, 10, 3), seed=5)


@pytest.mark.parametrize("spec", [PLAIN, GROUPED], ids=lambda spec: spec.name)
def test_int8_is_near_and_smaller(tmp_path, convert, spec):
    _need("litert")
    model = _network(spec, activation=None)
    path = export_format(model, tmp_path, "litert", PREPROCESSING, calibration=_calibrate())
    record = json.loads((path / "export.json").read_text("utf-8"))
    assert record["int8"] is True
    assert record["verified"]["tolerance"] is None  # it is another network: how near is measured on its task
    batch = _pixels(4, (8, 10, 3), seed=6)
    found, wanted = runtimes.load(path, "litert")(batch)["logits"], np.asarray(model(preprocess(batch, PREPROCESSING)))
    assert found.dtype == np.float32
    assert 1e-4 < np.abs(found - wanted).max() / np.abs(wanted).max() < 0.2
    assert _count_int8(path) > _count_int8(convert("litert")) == 0


def _count_int8(path):
    """Tensors of 8-bit integers in a LiteRT file."""
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(str(path / "model.tflite")).get_tensor_details()
    return sum(detail["dtype"] == np.int8 for detail in details)


def test_int8_of_a_run_with_its_accuracies(tmp_path, run):
    _need("litert")
    path = jobs.export_run(run.path, tmp_path, format="litert", int8=True, calibration_size=20)
    record = json.loads((path / "export.json").read_text("utf-8"))
    assert record["int8"] is True
    assert record["class_names"] == ["dark", "gray", "light"]
    measured = record["measured"]
    assert measured["float_accuracy"] == run.record.test.accuracy
    assert (measured["test_images"], measured["calibration_images"]) == (24, 20)
    data = np.load(run.record.source.name)
    logits = runtimes.load(path, "litert")(data["x_test"].astype(np.float32))["logits"]
    assert measured["int8_accuracy"] == (logits.argmax(-1) == data["y_test"]).mean()
    assert measured["int8_accuracy"] > 0.6  # three shades


def test_more_calibration_than_there_are_images_is_all_of_them(tmp_path, run):
    _need("litert")
    path = jobs.export_run(run.path, tmp_path, format="litert", int8=True, calibration_size=10_000)
    assert json.loads((path / "export.json").read_text("utf-8"))["measured"]["calibration_images"] == 96


# What is refused, and what is left


def _leaves_nothing(tmp_path, error, message, call):
    """`call` fails for a destination two folders deep, none of which is there afterwards."""
    with pytest.raises(error, match=message):
        call(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", [(f, p) for f in CONVERTED for p in FORMATS[f].packages])
def test_what_is_not_installed_is_named(tmp_path, monkeypatch, missing):
    format, package = missing
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == package else object())
    message = rf"'{format}' needs {package}: pip install 'keras-native-resnet\[{format}\]'. Received: an environment"
    _leaves_nothing(tmp_path, InputError, message, lambda path: export_format(_network(), path, format))


def test_all_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(InputError, match=r"needs tf2onnx and onnx and onnxruntime: pip install"):
        export_format(_network(), tmp_path, "onnx")


@pytest.mark.parametrize("other", ["onnx", "openvino"])
def test_calibration_is_of_litert(tmp_path, other):
    _need(other)
    message = rf"int8, with images to calibrate with, is of the format 'litert'. Received: '{other}'"
    _leaves_nothing(
        tmp_path,
        InputError,
        message,
        lambda path: export_format(_network(), path, other, PREPROCESSING, calibration=_calibrate()),
    )


@pytest.mark.parametrize(
    ("calibration", "received"),
    [
        (_calibrate()[:, :7], r"shape \(16, 7, 10, 3\)"),
        (_calibrate()[..., :1], r"shape \(16, 8, 10, 1\)"),
        (_calibrate()[:0], r"shape \(0, 8, 10, 3\)"),
        (_calibrate()[0], r"shape \(8, 10, 3\)"),
        (_calibrate() * np.nan, r"shape"),
        ([_calibrate()[0], _calibrate()[0, :4]], r""),  # of two sizes
        ("photographs", r""),
    ],
)
def test_calibration_that_does_not_fit(tmp_path, calibration, received):
    _need("litert")
    message = (
        rf"calibration must be finite images as the file takes them, \(at least 1, 8, 10, 3\). Received: {received}"
    )
    _leaves_nothing(
        tmp_path,
        InputError,
        message,
        lambda path: export_format(_network(), path, "litert", PREPROCESSING, calibration=calibration),
    )


@pytest.mark.parametrize(
    "images", [_pixels(3, (9, 9, 3)).astype(np.uint8), _pixels(7, (9, 9, 3)), _pixels(7, (9, 9, 1)), "photographs"]
)
def test_images_to_verify_with_that_do_not_fit(tmp_path, images):
    """As `export_saved_model` refuses them: with three images no batch of seven is verified."""
    _need("litert")
    _leaves_nothing(
        tmp_path,
        InputError,
        r"images must be uint8, \(at least 7, height, width, 3\). Received: ",
        lambda path: export_format(_network(), path, "litert", PREPROCESSING, images=images),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflite"}, r"format must be one of 'onnx', 'litert', 'openvino'. Received: 'tflite'"),
        ({"format": "saved_model"}, r"format must be one of 'onnx', 'litert', 'openvino'. Received: 'saved_model'"),
        ({"class_names": ["a"]}, r"class_names must be 4 strings of one line each. Received: 1 names"),
        ({"version": 0}, r"version must be a whole number of at least 1. Received: 0"),
        ({"name": "a/b"}, r"made of letters, digits and _ - . Received: 'a/b'"),
        (
            {"preprocessing": Preprocessing((8, 8), 3, (0,) * 3, (1,) * 3)},
            r"the network's input, \(8, 10, 3\). Received",
        ),
    ],
)
def test_bad_arguments(tmp_path, options, message):
    _need("litert")
    options = {"format": "litert", **options}
    _leaves_nothing(tmp_path, InputError, message, lambda path: export_format(_network(), path, **options))


def test_what_is_no_classifier(tmp_path):
    _need("litert")
    model = build(PLAIN, (8, 8, 3), include_top=False)
    message = r"plain: an exported network must end in a Dense layer on pooled features"
    _leaves_nothing(tmp_path, InputError, message, lambda path: export_format(model, path, "litert"))


def test_a_file_that_differs_is_refused(tmp_path, copy_converted, format):
    """One weight of some 600, off by 1 %."""
    model = _network()
    kernel, bias = model.get_layer("head_logits").get_weights()
    kernel[0, 0] *= 1.01
    model.get_layer("head_logits").set_weights([kernel, bias])
    message = rf"to 0.0001 of the scale. Received: logits of batch 1 \({format}\) with a difference of "
    _leaves_nothing(tmp_path, ExportFailed, message, lambda path: export_format(model, path, format, PREPROCESSING))


def test_a_file_that_cannot_be_run_is_refused(tmp_path, monkeypatch, copy_converted, format):
    """The runtime's own error is told, whatever its class."""
    real = runtimes.load

    def load(folder, *arguments, **options):
        file = Path(folder) / FORMATS[format].file
        file.write_bytes(file.read_bytes()[:99])
        return real(folder, *arguments, **options)

    monkeypatch.setattr(runtimes, "load", load)
    message = rf"The exported {format} file could not be run: "
    _leaves_nothing(
        tmp_path, ExportFailed, message, lambda path: export_format(_network(), path, format, PREPROCESSING)
    )


@pytest.mark.parametrize(
    ("raised", "error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), SaveError, r"plain/1 could not be written: .*No space left"),
        (RuntimeError("no such operation"), ExportFailed, r"plain could not be converted to litert: no such operation"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_conversion_that_breaks_off_leaves_nothing(tmp_path, monkeypatch, raised, error, message):
    _need("litert")

    def half(self, path, **_):
        Path(path).write_bytes(b"half")
        raise raised

    monkeypatch.setattr(keras.Model, "export", half)
    _leaves_nothing(tmp_path, error, message, lambda path: export_format(_network(), path, "litert"))


def test_a_measurement_that_fails_leaves_nothing(tmp_path, copy_converted):
    _need("litert")

    def fail(run):
        assert run(_pixels(1, (8, 10, 3)))["logits"].shape == (1, 4)
        raise ValueError("no test images")

    _leaves_nothing(
        tmp_path,
        ValueError,
        "no test images",
        lambda path: export_format(_network(), path, "litert", PREPROCESSING, measure=fail),
    )


def test_a_destination_that_is_no_folder(tmp_path, monkeypatch):
    _need("litert")
    (tmp_path / "file").write_text("mine")
    for place in ("file", "file/below"):
        with pytest.raises(SaveError, match=r"could not be written: .*Not a directory"):
            export_format(_network(), tmp_path / place, "litert")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_network_in_16_bits_has_a_wider_tolerance():
    assert choose_tolerance(_network()) == 1e-4
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert choose_tolerance(_network()) == 5e-2
    finally:
        keras.config.set_dtype_policy("float32")
