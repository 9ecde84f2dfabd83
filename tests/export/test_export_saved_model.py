"""SavedModels as TensorFlow Serving sees them: what they answer, what they refuse, what is left when an export fails."""

import ast
import errno
import functools
import importlib.util
import io
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import perturb_logits
from keras import layers
from PIL import Image
from tensorflow.core.protobuf import config_pb2, saved_model_pb2

from keras_resnet import InputError, Preprocessing, ResNetSpec, SaveError, build
from keras_resnet.data import decode, preprocess
from keras_resnet.errors import ExportFailed
from keras_resnet.export import check, export_saved_model, saved_model, verify
from keras_resnet.export.folders import new_version

SPEC = ResNetSpec("tiny", "basic", depths=(1, 1), filters=(4, 6), strides=(1, 2), stem="cifar", stem_filters=4)
LINE = ResNetSpec("line", "basic", depths=(1,), filters=(4,), strides=(1,), stem="cifar", stem_filters=4, rank=1)
COLOUR = Preprocessing((8, 10), 3, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
GRAY = Preprocessing((8, 8), 1, (0.13,), (0.31,))
NAMES = ["Ärger", "猫", "two words", "🐈", "e", "f", "g"]
OUTPUTS = ("probabilities", "logits", "class_ids", "class_names")


def _network(input_shape=(8, 10, 3), classes=7, activation="softmax", spec=SPEC, seed=0):
    """A network with BN as after a training, so that nothing it leaves out goes unseen."""
    keras.utils.set_random_seed(seed)
    model = build(spec, input_shape, classes, classifier_activation=activation)
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.set_weights([rng.uniform(0.5, 1.5, shape), *rng.normal(size=(2, *shape)), rng.uniform(0.5, 2, shape)])
    return model


@pytest.fixture(scope="module")
def export():
    """`export_saved_model` without the fresh processes of its proof, for tests of something else."""

    def run(*arguments, **options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(verify, "verify_saved_model", lambda *_: {})
            return export_saved_model(*arguments, **options)

    return run


class Server:
    """A SavedModel as TensorFlow Serving runs it: the graph of the file, tensors by their names.

    Neither Keras nor the Python side of a session looks at what is fed: only the graph does.
    """

    def __init__(self, path):
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        loaded = tf.compat.v1.saved_model.load(self.session, ["serve"], str(path))
        self.signatures = {k: v for k, v in loaded.signature_def.items() if not k.startswith("__")}
        self._callables = {}

    def __call__(self, signature, value, outputs=None):
        definition = self.signatures[signature]
        outputs = tuple(outputs or sorted(definition.outputs))
        if (signature, outputs) not in self._callables:
            (tensor,) = definition.inputs.values()
            options = config_pb2.CallableOptions(
                feed=[tensor.name], fetch=[definition.outputs[name].name for name in outputs]
            )
            self._callables[signature, outputs] = self.session._make_callable_from_options(options)
        return dict(zip(outputs, self._callables[signature, outputs](value), strict=True))


def _describe(tensors):
    return {
        name: (tf.as_dtype(tensor.dtype).name, [axis.size for axis in tensor.tensor_shape.dim])
        for name, tensor in tensors.items()
    }


def _images(count, height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, channels)).astype(np.uint8)


def _encode(image, kind="PNG", **options):
    stream = io.BytesIO()
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    image.save(stream, kind, **options)
    return stream.getvalue()


def _bytes(*encoded):
    return np.array(encoded, object)


def _softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def colour(tmp_path_factory):
    """The export that every part of the proof is run for; the rest goes without it."""
    model = _network()
    path = export_saved_model(model, tmp_path_factory.mktemp("colour"), COLOUR, NAMES)
    return SimpleNamespace(model=model, preprocessing=COLOUR, names=NAMES, path=path, server=Server(path))


@pytest.fixture(scope="module")
def gray(tmp_path_factory, export):
    model = _network((8, 8, 1), 3, activation=None)
    path = export(model, tmp_path_factory.mktemp("gray"), GRAY)
    return SimpleNamespace(model=model, preprocessing=GRAY, names=["0", "1", "2"], path=path, server=Server(path))


@pytest.fixture(scope="module")
def plain(tmp_path_factory, export):
    """Without preprocessing, and of any size."""
    model = _network((None, None, 3), 4)
    path = export(model, tmp_path_factory.mktemp("plain"), warm_up=False)
    return SimpleNamespace(model=model, path=path, server=Server(path))


@pytest.fixture(scope="module")
def line(tmp_path_factory, export):
    """Of sequences."""
    model = _network((16, 2), 6, spec=LINE)
    path = export(model, tmp_path_factory.mktemp("line"))
    return SimpleNamespace(model=model, path=path, server=Server(path))


# What is served


def test_signatures_of_images(colour):
    images = [-1, -1, -1, 3]
    classified = {
        "probabilities": ("float32", [-1, 7]),
        "logits": ("float32", [-1, 7]),
        "class_ids": ("int64", [-1, 5]),
        "class_names": ("string", [-1, 5]),
    }
    found = {
        name: (_describe(signature.inputs), _describe(signature.outputs), signature.method_name)
        for name, signature in colour.server.signatures.items()
    }
    method = "tensorflow/serving/predict"
    assert found == {
        "serving_default": ({"images": ("uint8", images)}, classified, method),
        "serve_float": ({"images": ("float32", images)}, classified, method),
        "serve_bytes": ({"image_bytes": ("string", [-1])}, classified, method),
        "features": ({"images": ("uint8", images)}, {"features": ("float32", [-1, 6])}, method),
    }


def test_signatures_of_sequences(line):
    assert set(line.server.signatures) == {"serving_default", "features"}
    assert _describe(line.server.signatures["serving_default"].inputs) == {"sequences": ("float32", [-1, 16, 2])}
    assert _describe(line.server.signatures["features"].outputs) == {"features": ("float32", [-1, 4])}


def test_more_channels_than_an_encoded_image_has(tmp_path, export):
    server = Server(export(_network((8, 8, 4), 3), tmp_path))
    assert set(server.signatures) == {"serving_default", "serve_float", "features"}
    assert server("serving_default", _images(1, 5, 5, 4))["logits"].shape == (1, 3)


def _check_answer(answer, model, inputs, names):
    """All outputs against the Keras model; `inputs` is what the network takes."""
    outputs = np.asarray(model(inputs, training=False), np.float64)
    wanted = outputs if np.allclose(outputs.sum(-1), 1, atol=1e-5) else _softmax(outputs)
    probabilities, logits = answer["probabilities"], answer["logits"]
    np.testing.assert_allclose(probabilities, wanted, atol=1e-5)
    np.testing.assert_allclose(_softmax(logits.astype(np.float64)), wanted, atol=1e-5)
    assert not np.allclose(logits.sum(-1), 1, atol=1e-3)
    count = min(5, len(names))
    ids = np.argsort(-logits, axis=-1, kind="stable")[:, :count]  # the order that probabilities of 0 hide
    np.testing.assert_array_equal(answer["class_ids"], ids)
    assert [[name.decode() for name in row] for row in answer["class_names"]] == [
        [names[index] for index in row] for row in ids
    ]


@pytest.mark.parametrize("size", [(8, 10), (8, 8), (5, 7), (31, 17), (1, 40), (1, 1), (64, 80)])
@pytest.mark.parametrize("which", ["colour", "gray"])
def test_images_of_any_size_are_classified_as_keras_does(request, which, size):
    served = request.getfixturevalue(which)
    channels = served.preprocessing.channels
    for count in (1, 3):
        images = _images(count, *size, channels, seed=count)
        inputs = preprocess(images, served.preprocessing)
        for signature, fed in (("serving_default", images), ("serve_float", images.astype(np.float32))):
            _check_answer(served.server(signature, fed), served.model, inputs, served.names)
        features = served.server("features", images)["features"]
        dense = served.model.get_layer("head_logits")
        wanted = keras.Model(served.model.input, dense.input)(inputs)
        np.testing.assert_allclose(features, wanted, rtol=1e-4, atol=1e-5)


def test_fractions_of_a_pixel_value_count(colour):
    images = _images(2, 9, 9).astype(np.float32) * 0.37
    answer = colour.server("serve_float", images)
    _check_answer(answer, colour.model, preprocess(images, COLOUR), NAMES)


@pytest.mark.parametrize("which", ["colour", "gray"])
def test_files_of_several_sizes_are_classified_in_one_batch(request, which):
    served = request.getfixturevalue(which)
    channels = served.preprocessing.channels
    images = [_images(1, *size, channels, seed=size[0])[0] for size in ((8, 10), (20, 13), (1, 9), (40, 40))]
    files = [_encode(image, "JPEG" if index % 2 else "PNG") for index, image in enumerate(images)]
    pixels = [
        np.array(Image.open(io.BytesIO(file))).reshape(image.shape) for file, image in zip(files, images, strict=True)
    ]
    inputs = np.concatenate([preprocess(image[None], served.preprocessing) for image in pixels])
    answer = served.server("serve_bytes", _bytes(*files))
    exact = {name: value[::2] for name, value in answer.items()}  # a JPEG's pixels are the decoder's
    _check_answer(exact, served.model, inputs[::2], served.names)
    decoded = np.concatenate([preprocess(decode(file, channels)[None], served.preprocessing) for file in files])
    _check_answer(answer, served.model, decoded, served.names)
    np.testing.assert_allclose(decoded, inputs, atol=6 / 255 / 0.2)


def test_gray_files_in_a_network_of_colours_and_the_reverse(colour, gray):
    picture = _images(1, 9, 11, 1)[0]
    answer = colour.server("serve_bytes", _bytes(_encode(picture)))
    _check_answer(answer, colour.model, preprocess(np.repeat(picture[None], 3, -1), COLOUR), NAMES)
    painted = _images(1, 9, 11)[0]
    luma = painted @ np.array([0.299, 0.587, 0.114])
    logits = gray.server("serve_bytes", _bytes(_encode(painted)))["logits"]
    wanted = gray.model(preprocess(np.round(luma)[None, ..., None], GRAY))
    np.testing.assert_allclose(logits, wanted, atol=0.1 * float(np.abs(wanted).max()))


def test_without_preprocessing_pixels_stay_as_they_are(tmp_path, export, plain):
    images = _images(2, 13, 9)
    _check_answer(plain.server("serving_default", images), plain.model, images.astype(np.float32), list("0123"))
    below = images.astype(np.float32) - 200  # of unknown units
    _check_answer(plain.server("serve_float", below), plain.model, below, list("0123"))
    files = _bytes(*(_encode(image) for image in images))
    _check_answer(plain.server("serve_bytes", files), plain.model, images.astype(np.float32), list("0123"))
    fixed = _network((8, 10, 3), 4)
    server = Server(export(fixed, tmp_path, warm_up=False))
    padded = tf.image.resize_with_pad(images, 8, 10)
    _check_answer(server("serving_default", images), fixed, padded, list("0123"))


def test_sequences(line):
    for count in (1, 4):
        x = np.random.default_rng(count).normal(size=(count, 16, 2)).astype(np.float32)
        _check_answer(line.server("serving_default", x), line.model, x, list("012345"))
        assert line.server("features", x)["features"].shape == (count, 4)


def test_a_softmax_head_and_logits_give_the_same_export(tmp_path, colour, export):
    model = _network(activation=None)
    model.set_weights(colour.model.get_weights())
    server = Server(export(model, tmp_path, COLOUR, NAMES))
    images = _images(3, 12, 12)
    for signature in colour.server.signatures:
        fed = {"serve_float": images.astype(np.float32), "serve_bytes": _bytes(*map(_encode, images))}
        value = fed.get(signature, images)
        a, b = server(signature, value), colour.server(signature, value)
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_nested_classifier_is_exported(tmp_path, export):
    """Augmentation or rescaling before a whole network, as Keras' guides build it."""
    images = keras.Input((8, 10, 3))
    model = keras.Model(images, _network()(layers.Rescaling(1 / 255)(images)), name="whole")
    server = Server(export(model, tmp_path))
    fed = _images(2, 8, 10)
    _check_answer(server("serving_default", fed), model, fed.astype(np.float32), list("0123456"))


# Class names


def test_class_names_are_stored_beside_the_graph(colour, gray):
    assert (colour.path / "assets" / "labels.txt").read_text("utf-8") == "".join(f"{name}\n" for name in NAMES)
    assert (gray.path / "assets" / "labels.txt").read_text("utf-8") == "0\n1\n2\n"


@pytest.mark.parametrize(
    ("names", "received"),
    [
        (["a", "b"], r"2 names"),
        (["a"] * 8, r"8 names"),
        ("abcdefg", r"7 names"),
        ([*"abcdef", "g\nh"], r"'g\\nh'"),
        ([*"abcdef", "g\n"], r"'g\\n'"),
        ([*"abcdef", "g\u2028h"], r"'g\\u2028h'"),
        ([*"abcdef", "\r"], r"'\\r'"),
        ([*"abcdef", ""], r"''"),
        ([*"abcdef", 7], r"7"),
        ([*"abcdef", b"g"], r"b'g'"),
    ],
)
def test_class_names_that_do_not_fit(tmp_path, export, names, received):
    with pytest.raises(InputError, match=rf"class_names must be 7 strings of one line each. Received: {received}\."):
        export(_network(), tmp_path / "x", COLOUR, names)
    assert not list(tmp_path.iterdir())


def test_class_names_that_are_no_text(tmp_path, export):
    """A lone surrogate cannot be written as UTF-8."""
    with pytest.raises(InputError, match=r"class_names must be "):
        export(_network(), tmp_path / "x", COLOUR, [*"abcdef", "\ud800"])
    with pytest.raises(InputError, match=r"class_names must be "):
        export(_network(), tmp_path / "x", COLOUR, 7)
    assert not list(tmp_path.iterdir())


# The record


def test_the_record_says_what_was_proved(colour):
    record = json.loads((colour.path / "export.json").read_text("utf-8"))
    assert (record["format"], record["name"], record["version"]) == ("saved_model", "tiny", 1)
    assert record["input_shape"] == [8, 10, 3]
    assert record["class_names"] == NAMES
    assert Preprocessing.from_dict(record["preprocessing"]) == COLOUR
    assert record["signatures"] == ["features", "serve_bytes", "serve_float", "serving_default"]
    assert record["max_pixels"] == 64_000_000
    assert record["versions"]["keras"] == keras.__version__
    assert record["versions"]["tensorflow"] == tf.__version__
    assert record["verified"]["batch_sizes"] == [1, 7]
    assert record["verified"]["tolerance"] == 1e-4
    differences = record["verified"]["differences"]
    assert set(differences) == {"onednn", "no_onednn"}
    for found in differences.values():
        assert set(found) == {f"{signature}/{count}" for signature in record["signatures"] for count in (1, 7)}
        for case, parts in found.items():
            features = case.startswith("features")
            assert set(parts) == ({"features"} if features else {"logits", "probabilities", "top"})
            assert all(0 <= value < 1e-5 for value in parts.values())
        assert any(value > 0 for parts in found.values() for value in parts.values())  # two programs, no copy
    assert check.find_odd_nodes(str(colour.path)) == []


def test_the_folder_is_as_tensorflow_serving_expects(colour):
    assert colour.path.name == "1"
    assert colour.path.parent.name == "tiny"
    assert (colour.path / "saved_model.pb").is_file()
    assert [child.name for child in colour.path.parent.iterdir()] == ["1"]


# Warm-up requests


def test_warm_up_requests_are_tensorflow_servings(colour):
    reason = "the protos are those of tensorflow-serving-api"
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2", reason=reason)
    file = colour.path / "assets.extra" / "tf_serving_warmup_requests"
    logs = [prediction_log_pb2.PredictionLog.FromString(bytes(r.numpy())) for r in tf.data.TFRecordDataset(str(file))]
    requests = [log.predict_log.request for log in logs]
    assert len(requests) == json.loads((colour.path / "export.json").read_text())["warm_up_requests"] == 8
    assert {request.model_spec.name for request in requests} == {"tiny"}
    seen = set()
    for request in requests:
        ((name, tensor),) = request.inputs.items()
        value = tf.make_ndarray(tensor)
        signature = request.model_spec.signature_name
        (wanted,) = colour.server.signatures[signature].inputs
        assert name == wanted
        seen.add((signature, len(value)))
        answer = colour.server(signature, value)
        assert all(len(output) == len(value) for output in answer.values())
    assert seen == {(signature, count) for signature in colour.server.signatures for count in (1, 7)}


def _hide(monkeypatch, *packages):
    """Makes packages look uninstalled."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in packages else real(name, *rest)
    )


def test_without_the_protos_there_are_no_warm_up_requests(tmp_path, monkeypatch, export):
    _hide(monkeypatch, "tensorflow_serving")
    with pytest.raises(InputError, match=r"pip install 'keras-native-resnet\[serving\]'. Received: an environment"):
        export(_network(), tmp_path / "x", COLOUR, warm_up=True)
    assert not list(tmp_path.iterdir())
    path = export(_network(), tmp_path, COLOUR)
    assert not (path / "assets.extra").exists()
    assert json.loads((path / "export.json").read_text())["warm_up_requests"] == 0


def test_warm_up_requests_can_be_left_out(plain):
    assert not (plain.path / "assets.extra").exists()


def test_warm_up_requests_that_are_not_answered_fail_the_export(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_serving", reason="the protos are those of tensorflow-serving-api")
    result = {"onednn": {"warmup": 8, "differences": {}}, "no_onednn": {"warmup": 7, "differences": {}}}
    monkeypatch.setattr(verify, "verify_saved_model", lambda *_: result)
    with pytest.raises(ExportFailed, match=r"All 8 warm-up requests must be answered. Received: \[8, 7\] answers"):
        export_saved_model(_network(), tmp_path / "x", COLOUR)
    assert not list(tmp_path.iterdir())


# Versions


def _read(root):
    return {path.relative_to(root): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


@pytest.fixture
def instant(monkeypatch):
    """`export_saved_model` that writes next to nothing, for tests of folders."""
    monkeypatch.setattr(verify, "verify_saved_model", lambda *_: {})
    monkeypatch.setattr(verify, "make_cases", lambda *_: {})
    monkeypatch.setattr(saved_model, "rewrite", lambda model, **_: model)
    network = _network((8, 8, 1), 2)

    def save(_, path, **__):
        Path(path).joinpath("saved_model.pb").write_bytes(b"graph")

    monkeypatch.setattr(tf.saved_model, "save", save)
    return lambda path, **options: export_saved_model(network, path, GRAY, warm_up=False, **options)


def test_versions_are_numbered(tmp_path, instant):
    assert instant(tmp_path) == tmp_path / "tiny" / "1"
    assert instant(tmp_path) == tmp_path / "tiny" / "2"
    assert instant(tmp_path, version=9) == tmp_path / "tiny" / "9"
    assert instant(tmp_path) == tmp_path / "tiny" / "10"
    assert instant(tmp_path, version=5) == tmp_path / "tiny" / "5"
    assert instant(tmp_path, name="other") == tmp_path / "other" / "1"
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == {"1", "2", "5", "9", "10"}
    for path in (tmp_path / "tiny").iterdir():
        assert json.loads((path / "export.json").read_text())["version"] == int(path.name)
    (tmp_path / "tiny" / "notes").mkdir()  # no version
    assert instant(tmp_path).name == "11"


def test_an_existing_version_is_never_touched(tmp_path, instant):
    instant(tmp_path, version=3)
    before = _read(tmp_path)
    with pytest.raises(
        InputError, match=r"never changed. Received: version 3, which .*tiny already has; the next is 4"
    ):
        instant(tmp_path, version=3)
    assert _read(tmp_path) == before
    (tmp_path / "tiny" / "4").mkdir()  # somebody's, and empty
    with pytest.raises(InputError, match=r"Received: version 4"):
        instant(tmp_path, version=4)
    assert instant(tmp_path).name == "5"


def test_versions_of_one_model_have_one_format(tmp_path, instant):
    (tmp_path / "tiny" / "1").mkdir(parents=True)
    (tmp_path / "tiny" / "1" / "model.onnx").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    for version in (None, 7):
        with pytest.raises(InputError, match=r"one format.* Received: saved_model for .*tiny, where 1 is onnx. Choose"):
            instant(tmp_path, version=version)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("version", [0, -1, 1.0, "1", True])
def test_a_version_is_a_number(tmp_path, instant, version):
    with pytest.raises(InputError, match=r"version must be a whole number of at least 1. Received: "):
        instant(tmp_path / "x", version=version)
    assert not list(tmp_path.iterdir())


def test_numpys_integers_are_integers(tmp_path, instant):
    path = instant(tmp_path, version=np.int64(3), max_pixels=np.int64(10**6))
    record = json.loads((path / "export.json").read_text())
    assert (path.name, record["version"], record["max_pixels"]) == ("3", 3, 10**6)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a b", "a\n", 3])
def test_a_name_is_one_folder(tmp_path, instant, name):
    with pytest.raises(InputError, match=r"made of letters, digits and _ - . Received: "):
        instant(tmp_path / "x", name=name)
    assert not list(tmp_path.iterdir())


def _finish(new):
    (new.partial / "saved_model.pb").write_bytes(b"mine")
    new.write_record({})


def test_a_version_that_another_process_took_meanwhile(tmp_path):
    """The next free one is taken, and the record says so; the other one stays as it is."""
    with new_version(tmp_path, "m") as new:
        _finish(new)
        (tmp_path / "m" / "1").mkdir()
        (tmp_path / "m" / "1" / "saved_model.pb").write_bytes(b"theirs")
    assert new.path == tmp_path / "m" / "2"
    assert (tmp_path / "m" / "1" / "saved_model.pb").read_bytes() == b"theirs"
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"1", "2"}
    assert json.loads((new.path / "export.json").read_text())["version"] == 2


def test_a_version_asked_for_that_another_process_took_meanwhile(tmp_path):
    def write():
        with new_version(tmp_path, "m", 4) as new:
            _finish(new)
            (tmp_path / "m" / "4").mkdir()

    with pytest.raises(InputError, match=r"Received: version 4, which"):
        write()
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["4"]
    assert not list((tmp_path / "m" / "4").iterdir())


def test_two_exports_of_one_process_do_not_meet(tmp_path):
    """As in two threads."""
    with new_version(tmp_path, "m") as first:
        with new_version(tmp_path, "m") as second:
            _finish(second)
        _finish(first)
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"1", "2"}


# What is left when something goes wrong


def _leaves_nothing(tmp_path, error, message, call):
    """`call` fails for a destination two folders deep, none of which is there afterwards; nor is anything else."""
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(error, match=message):
        call(tmp_path / "a" / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert (tmp_path / "mine.txt").read_text() == "kept"


def _once(monkeypatch):
    """One fresh process instead of two."""
    monkeypatch.setattr(verify, "ONEDNN", {"onednn": "1"})


def test_an_export_that_differs_is_refused(tmp_path, monkeypatch):
    """One weight of 600, off by 1 %: less than shows in most classes."""
    _once(monkeypatch)
    perturb_logits(monkeypatch, saved_model)
    message = (
        r"must give what the Keras model gives, to 0.0001 of the scale. Received: logits of .*/1 \(onednn\) with a"
    )
    _leaves_nothing(tmp_path, ExportFailed, message, lambda path: export_saved_model(_network(), path, COLOUR))


def test_an_export_with_operations_of_xla_is_refused(tmp_path, monkeypatch):
    real = saved_model.rewrite
    _once(monkeypatch)
    monkeypatch.setattr(saved_model, "rewrite", lambda model, **_: real(model))  # Keras' groups stay
    _leaves_nothing(
        tmp_path,
        ExportFailed,
        r"no operation that takes XLA, Python or a library of its own. Received: _XlaMustCompile \(",
        lambda path: export_saved_model(_stock_grouped(), path),
    )


def test_an_export_that_cannot_be_run_is_refused(tmp_path, monkeypatch):
    real = verify.make_cases

    def spoil(*arguments):
        cases = real(*arguments)
        cases["serve_bytes/1/input/image_bytes"] = np.array([b"text"])
        return cases

    _once(monkeypatch)
    monkeypatch.setattr(verify, "make_cases", spoil)
    _leaves_nothing(
        tmp_path,
        ExportFailed,
        r"could not be run in a fresh process \(onednn, exit code 1\):\n(.*\n)*.*An image must be a PNG or JPEG",
        lambda path: export_saved_model(_network(), path, COLOUR),
    )


def _half_a_save(error):
    def save(_, path, **__):
        Path(path).joinpath("saved_model.pb").write_bytes(b"half")
        Path(path).joinpath("variables").mkdir()
        raise error

    return save


@pytest.mark.parametrize(
    ("raised", "error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), SaveError, r"tiny/1 could not be written: .*No space left"),
        (PermissionError(errno.EACCES, "Permission denied"), SaveError, r"could not be written: .*Permission denied"),
        (tf.errors.ResourceExhaustedError(None, None, "disk full"), SaveError, r"could not be written: disk full"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (MemoryError(), MemoryError, None),
        (ValueError("a bug"), ValueError, "a bug"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_save_that_breaks_off_leaves_nothing(tmp_path, monkeypatch, raised, error, message):
    monkeypatch.setattr(tf.saved_model, "save", _half_a_save(raised))
    _leaves_nothing(tmp_path, error, message, lambda path: export_saved_model(_network(), path, COLOUR))


@pytest.mark.parametrize("step", ["verify_saved_model", "make_cases"])
def test_ctrl_c_later_leaves_nothing(tmp_path, monkeypatch, step):
    def stop(*_):
        assert list(tmp_path.rglob("saved_model.pb"))
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, step, stop)
    _leaves_nothing(tmp_path, KeyboardInterrupt, None, lambda path: export_saved_model(_network(), path, COLOUR))


def test_a_failure_leaves_other_versions_alone(tmp_path, instant, monkeypatch):
    instant(tmp_path)
    before = _read(tmp_path)
    monkeypatch.setattr(tf.saved_model, "save", _half_a_save(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(SaveError, match=r"tiny/2 could not be written: .*Nothing of it is left"):
        instant(tmp_path)
    assert _read(tmp_path) == before
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["1"]


@pytest.mark.parametrize("place", ["file", "file/below", "model"])
def test_a_destination_that_is_no_folder(tmp_path, instant, place):
    """What a folder without permission gives, too; below a file not even root may write."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tiny").write_text("mine")
    before = _read(tmp_path)
    with pytest.raises(SaveError, match=r"(could not be written|cannot be looked at): .*Not a directory"):
        instant(tmp_path / place)
    assert _read(tmp_path) == before


def test_a_folder_without_permission(tmp_path, instant):
    if os.geteuid() == 0:
        pytest.skip("permissions do not bind root")
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    with pytest.raises(SaveError, match=r"could not be written: .*Permission denied"):
        instant(locked)
    assert not list(locked.iterdir())


# What is refused before anything is written


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_pixels": 0}, r"max_pixels must be a whole number of at least 1. Received: 0\."),
        ({"max_pixels": 1.5}, r"max_pixels must be a whole number of at least 1. Received: 1.5\."),
        ({"preprocessing": GRAY}, r"must give the network's input, \(8, 10, 3\). Received: one that gives \(8, 8, 1\)"),
        ({"preprocessing": {"mean": 0}}, r"must be a keras_resnet.Preprocessing or None. Received: {'mean': 0}"),
        (
            {"images": _images(6, 9, 9)},
            r"images must be uint8, \(at least 7, .*, 3\). Received: uint8, shape \(6, 9, 9",
        ),
        ({"images": _images(7, 9, 9, 1)}, r"images must be uint8, .* Received: uint8, shape \(7, 9, 9, 1\)"),
        ({"images": np.zeros((7, 9, 9, 3))}, r"images must be uint8, .* Received: float64, shape \(7, 9, 9, 3\)"),
        ({"images": "photographs"}, r"images must be uint8, .* Received: str, shape \(\)"),
    ],
)
def test_bad_arguments(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        export_saved_model(_network(), tmp_path / "x", **{"preprocessing": COLOUR, **options})
    assert not list(tmp_path.iterdir())


def test_what_is_no_classifier(tmp_path):
    model = build(SPEC, (8, 8, 3), include_top=False)
    with pytest.raises(InputError, match=r"tiny: an exported network must end in a Dense layer on pooled features"):
        export_saved_model(model, tmp_path / "x")
    with pytest.raises(InputError, match=r"A functional Keras model is needed"):
        export_saved_model("model.keras", tmp_path / "x")
    with pytest.raises(InputError, match=r"line: preprocessing must give the network's input, \(16, 2\)"):
        export_saved_model(_network((16, 2), 3, spec=LINE), tmp_path / "x", COLOUR)
    assert not list(tmp_path.iterdir())


def test_a_network_of_any_size_with_preprocessing_resizes_as_training_did(tmp_path, export):
    model = _network((None, None, 3), 4)
    server = Server(export(model, tmp_path, COLOUR, warm_up=False))
    for size in ((20, 31), (8, 10), (3, 3)):
        images = _images(2, *size)
        _check_answer(server("serving_default", images), model, preprocess(images, COLOUR), list("0123"))


def test_a_low_limit_of_pixels_does_not_fail_the_proof(tmp_path, monkeypatch):
    """The photographs of the proof are larger than 100 pixels."""
    cases = {}
    monkeypatch.setattr(verify, "verify_saved_model", lambda _, found, *__: cases.update(found) or {})
    server = Server(export_saved_model(_network(), tmp_path, COLOUR, max_pixels=100, warm_up=False))
    for batch in (cases[f"serve_bytes/{count}/input/image_bytes"] for count in (1, 7)):
        assert server("serve_bytes", batch.astype(object))["logits"].shape == (len(batch), 7)


# The proof itself


FAKE_CHECK = """
import json, os, sys
path, cases, result = sys.argv[1:]
settings = {name: os.environ.get(name) for name in ("TF_ENABLE_ONEDNN_OPTS", "TF_XLA_FLAGS", "CUDA_VISIBLE_DEVICES")}
print("one line\\nlast words")
%s
"""


@pytest.fixture
def fake_check(tmp_path, monkeypatch):
    """Has the fresh processes run a few lines instead of `check.py`, without TensorFlow."""

    def put(lines):
        script = tmp_path / "fake_check.py"
        script.write_text(FAKE_CHECK % lines)
        monkeypatch.setattr(verify, "check", SimpleNamespace(__file__=str(script)))
        return verify.verify_saved_model(tmp_path, {"a/1/input/x": np.zeros(1)}, ["a"], 1e-4)

    return put


def test_the_proof_is_run_with_and_without_onednn_and_without_xla(fake_check):
    write = "json.dump({'odd': [], 'differences': {}, 'warmup': 0, 'settings': settings}, open(result, 'w'))"
    results = fake_check(write)
    settings = {name: result["settings"] for name, result in results.items()}
    common = {"TF_XLA_FLAGS": "--tf_xla_auto_jit=-1", "CUDA_VISIBLE_DEVICES": ""}
    assert settings == {
        "onednn": {"TF_ENABLE_ONEDNN_OPTS": "1", **common},
        "no_onednn": {"TF_ENABLE_ONEDNN_OPTS": "0", **common},
    }


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("sys.exit(3)", r"fresh process \(onednn, exit code 3\):\none line\nlast words"),
        ("os.abort()", r"fresh process \(onednn, exit code -6\):\none line\nlast words"),
        ("sys.exit(0)", r"fresh process \(onednn, exit code 0\)"),  # and no result
        ("json.dump({'odd': ['XlaLaunch (x)']}, open(result, 'w'))", r"Received: XlaLaunch \(x\)"),
        (
            "json.dump({'odd': [], 'differences': {'features/1': {'features': 2e-4}}}, open(result, 'w'))",
            r"Received: features of features/1 \(onednn\) with a difference of 0.0002",
        ),
        (
            "d = float('nan') if settings['TF_ENABLE_ONEDNN_OPTS'] == '0' else 0\n"
            "json.dump({'odd': [], 'differences': {'features/7': {'features': d}}}, open(result, 'w'))",
            r"features of features/7 \(no_onednn\) with a difference of nan",
        ),
    ],
)
def test_what_the_proof_finds_is_an_error(fake_check, lines, message):
    lines = lines.replace("sys.exit", "sys.stdout.flush(); sys.exit").replace(
        "os.abort", "sys.stdout.flush(); os.abort"
    )
    with pytest.raises(ExportFailed, match=message):
        fake_check(lines)


def test_the_proof_imports_tensorflow_alone():
    tree = ast.parse(Path(check.__file__).read_text("utf-8"))
    imports = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imports |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imports == {"json", "os", "sys", "numpy", "tensorflow", "tensorflow_serving"}


def test_differences_are_shares_of_the_scale():
    want = np.array([[1.0, -50.0]])
    assert check.compare(np.array([[1.0, -50.5]], np.float32), "logits", want) == pytest.approx(0.01)
    assert check.compare(np.array([[1.0, -50.5]], np.float32), "probabilities", want) == pytest.approx(0.5)
    for bad in (np.nan, np.inf):
        assert check.compare(np.array([[bad, -50]], np.float32), "logits", want) == np.inf
    with pytest.raises(ValueError, match=r"logits has the shape \(2, 1\), not \(1, 2\)"):
        check.compare(want.T, "logits", want)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"class_ids": [[0, 1]]},  # not by falling probability
        {"class_ids": [[1, 2]]},  # not the highest
        {"class_ids": [[1]], "class_names": [[b"b"]]},  # too few
        {"class_names": [[b"a", b"b"]]},  # of other classes
    ],
)
def test_the_top_belongs_together(change):
    answer = {"probabilities": [[0.3, 0.6, 0.1]], "class_ids": [[1, 0, 2]], "class_names": [[b"b", b"a", b"\xc3\xa4"]]}
    found = {name: np.array(value) for name, value in {**answer, **change}.items()}
    assert check._check_top(found, np.array(["a", "b", "ä"])) == (1.0 if change else 0.0)


def _stock_grouped():
    """With Keras' own grouped convolution, which needs XLA."""
    images = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, groups=2, name="grouped")(images)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(images, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), name="stock")


def test_keras_own_groups_need_xla_and_ours_do_not(tmp_path, export):
    model = _stock_grouped()
    model.export(tmp_path / "stock", format="tf_saved_model", verbose=False)
    assert any(name.startswith("_XlaMustCompile (") for name in check.find_odd_nodes(str(tmp_path / "stock")))
    path = export(model, tmp_path / "ours")
    assert check.find_odd_nodes(str(path)) == []
    images = _images(2, 8, 8, 4)
    _check_answer(Server(path)("serving_default", images), model, images.astype(np.float32), list("012"))


@pytest.mark.parametrize("fixed", [0, 1])
def test_a_network_with_one_fixed_side(tmp_path, fixed):
    """Proved as every export; images of another side are an error in words of ours."""
    sides = (12, None) if fixed == 0 else (None, 12)
    model = _network((*sides, 3), 4)
    server = Server(export_saved_model(model, tmp_path, warm_up=False))
    images = _images(2, *(side or 9 for side in sides))
    _check_answer(server("serving_default", images), model, images.astype(np.float32), list("0123"))
    answer = server("serve_bytes", _bytes(*map(_encode, images)))
    _check_answer(answer, model, images.astype(np.float32), list("0123"))
    words = ", ".join(str(side or name) for side, name in zip(sides, ("height", "width"), strict=True))
    for signature, kind in (("serving_default", np.uint8), ("serve_float", np.float32), ("features", np.uint8)):
        message = rf"images must be \(batch, {words}, 3\), no side 0. Received the shape:\W+1\W+9\W+9\W+3\W"
        _refused(server, signature, np.ones((1, 9, 9, 3), kind), message)
    _refused(
        server,
        "serve_bytes",
        _bytes(_encode(Image.new("RGB", (9, 9)))),
        r"has a fixed side this one, .*:\W+\d+\W+\d+\W+Received:\W+9\W+9\W",
    )


@pytest.mark.parametrize("kinds", [("PNG", "JPEG"), ("JPEG", "PNG")])
def test_files_of_several_sizes_in_a_network_of_any_size_are_an_error(plain, kinds):
    files = [_encode(Image.new("RGB", size), kind) for size, kind in zip(((9, 8), (7, 8)), kinds, strict=True)]
    message = r"All images of a batch must have one size, .* height and width:\W+8\W+9\W+Received:\W+8\W+7\W"
    _refused(plain.server, "serve_bytes", _bytes(*files), message)
    assert plain.server("serve_bytes", _bytes(files[0], files[0]))["logits"].shape == (2, 4)


def test_narrow_groups_are_computed_in_pairs(tmp_path, export):
    """What the graph holds, and that it gives the same; of 32 groups of 4 channels 16 of 8."""
    x = inputs = keras.Input((8, 8, 64))
    x = layers.Conv2D(64, 3, groups=32)(x)
    x = layers.Conv2D(32, 3, groups=4)(x)  # of 16 channels: left as they are
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    server = Server(export(model, tmp_path, warm_up=False))
    kernels = [
        tuple(tf.make_ndarray(node.attr["value"].tensor).shape)
        for function in server.session.graph.as_graph_def().library.function
        for node in function.node_def
        if node.op == "Const" and len(node.attr["value"].tensor.tensor_shape.dim) == 4
    ]
    assert (3, 3, 4, 64) in kernels
    assert (3, 3, 2, 64) not in kernels
    assert (3, 3, 16, 32) in kernels
    images = _images(2, 8, 8, 64)
    _check_answer(server("serving_default", images), model, images.astype(np.float32), list("012"))


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda x: tf.py_function(lambda y: y, [x], tf.float32), "EagerPyFunc ("),
        (lambda x: tf.numpy_function(lambda y: y, [x], tf.float32), "PyFunc ("),
        (lambda x: tf.numpy_function(lambda y: y, [x], tf.float32, stateful=False), "PyFuncStateless ("),
        (tf.function(lambda x: x * 2, jit_compile=True), "_XlaMustCompile ("),
    ],
)
def test_python_and_xla_in_a_graph_are_found(tmp_path, function, names):
    module = tf.Module()
    module.f = tf.function(lambda x: function(x) + 1, input_signature=[tf.TensorSpec([None], tf.float32)])
    tf.saved_model.save(module, str(tmp_path), signatures=module.f)
    assert any(name.startswith(names) for name in check.find_odd_nodes(str(tmp_path)))


def test_custom_operations_in_a_graph_are_found(tmp_path, gray):
    saved = saved_model_pb2.SavedModel.FromString((gray.path / "saved_model.pb").read_bytes())
    functions = saved.meta_graphs[0].graph_def.library.function
    node = next(node for function in functions for node in function.node_def if node.op == "Relu")
    node.op = "MyRelu"
    (tmp_path / "saved_model.pb").write_bytes(saved.SerializeToString())
    assert check.find_odd_nodes(str(tmp_path)) == [f"custom operation MyRelu ({node.name})"]


# Bad input, as TensorFlow Serving would feed it


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width, height, data=b""):
    """A PNG file whose header says what it will."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


PICTURE = _images(1, 20, 30)[0]
NEITHER = r"An image must be a PNG or JPEG. Received bytes of neither"
TOO_LARGE = r"An image must have at most 64,000,000 pixels. Received, height and width:\W+10000\W+10000"
BROKEN = r"Invalid (PNG|JPEG)"  # TensorFlow's words
BAD_FILES = {
    "text": (b"not an image", NEITHER),
    "nothing": (b"", NEITHER),
    "gif": (_encode(PICTURE, "GIF"), NEITHER),
    "animated gif": (
        _encode(Image.fromarray(PICTURE), "GIF", save_all=True, append_images=[Image.fromarray(255 - PICTURE)]),
        NEITHER,
    ),
    "bmp": (_encode(PICTURE, "BMP"), NEITHER),
    "cmyk": (_encode(Image.fromarray(PICTURE).convert("CMYK"), "JPEG"), r"gray or RGB colours. Received: CMYK"),
    "100 megapixels png": (lambda: _encode(Image.new("L", (10_000, 10_000))), TOO_LARGE),
    "100 megapixels jpeg": (lambda: _encode(Image.new("L", (10_000, 10_000)), "JPEG"), TOO_LARGE),
    "100 megapixels claimed": (_png(10_000, 10_000), TOO_LARGE),
    "2**62 pixels claimed": (_png(2**31 - 1, 2**31 - 1), r"at most 64,000,000 pixels"),
    "2**64 pixels claimed": (_png(2**32 - 1, 2**32 - 1), rf"at most 64,000,000 pixels|{BROKEN}"),
    "no pixels": (_png(0, 10, zlib.compress(b"")), BROKEN),
    "png start": (_encode(PICTURE)[:8], BROKEN),
    "png in the header": (_encode(PICTURE)[:20], BROKEN),
    "png after the header": (_encode(PICTURE)[:33], BROKEN),
    "half a png": (_encode(PICTURE)[: len(_encode(PICTURE)) // 2], BROKEN),
    "png without its end": (_encode(PICTURE)[:-12], BROKEN),
    "png of another checksum": (_encode(PICTURE)[:60] + b"!!" + _encode(PICTURE)[62:], BROKEN),
    "jpeg start": (_encode(PICTURE, "JPEG")[:3], BROKEN),
    "jpeg in the header": (_encode(PICTURE, "JPEG")[:20], BROKEN),
    "half a jpeg": (_encode(PICTURE, "JPEG")[: len(_encode(PICTURE, "JPEG")) * 9 // 10], BROKEN),
    "jpeg without its end": (_encode(PICTURE, "JPEG")[:-2], BROKEN),
}


@functools.cache
def _make_bad(name):
    """The bytes of a bad file, and what is said of it."""
    file, message = BAD_FILES[name]
    return file() if callable(file) else file, message


def _refused(server, signature, value, message):
    """Whichever outputs are asked for, and again: two branches of a graph may race for who says it first."""
    outputs = sorted(server.signatures[signature].outputs)
    for asked in [outputs, outputs, outputs, *([name] for name in outputs)]:
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            server(signature, value, asked)


@pytest.mark.parametrize("bad", BAD_FILES)
def test_a_bad_file_is_an_error(colour, gray, plain, bad):
    file, message = _make_bad(bad)
    good = _encode(PICTURE)
    assert colour.server("serve_bytes", _bytes(good))["logits"].shape == (1, 7)
    _refused(colour.server, "serve_bytes", _bytes(file), message)
    _refused(colour.server, "serve_bytes", _bytes(good, file, good), message)
    for served in (gray, plain):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            served.server("serve_bytes", _bytes(good, file))


def test_the_limit_of_pixels_is_that_of_the_export(tmp_path, export):
    server = Server(export(_network(), tmp_path, COLOUR, max_pixels=20_000, warm_up=False))
    assert server("serve_bytes", _bytes(_encode(Image.new("RGB", (100, 200)))))["logits"].shape == (1, 7)
    for kind in ("PNG", "JPEG"):
        large = _encode(Image.new("RGB", (100, 201)), kind)
        _refused(server, "serve_bytes", _bytes(large), r"at most 20,000 pixels. Received, .*:\W+201\W+100\W")


@pytest.mark.parametrize("which", ["colour", "gray", "plain"])
def test_an_empty_batch_is_an_error(request, which):
    served = request.getfixturevalue(which)
    channels = served.model.input_shape[-1]
    _refused(served.server, "serve_bytes", _bytes(), r"image_bytes must hold at least one image. Received: none")
    for signature, kind in (("serving_default", np.uint8), ("serve_float", np.float32), ("features", np.uint8)):
        message = rf"images must be \(batch, height, width, {channels}\), no side 0. Received the shape:"
        for size in ((8, 10), (8, 8), (5, 5)):
            _refused(served.server, signature, np.zeros((0, *size, channels), kind), message)


@pytest.mark.parametrize("signature", ["serving_default", "serve_float", "features"])
@pytest.mark.parametrize("which", ["colour", "gray", "plain"])
def test_a_shape_that_does_not_fit_is_an_error(request, which, signature):
    served = request.getfixturevalue(which)
    channels = served.model.input_shape[-1]
    kind = np.float32 if signature == "serve_float" else np.uint8
    shapes = [(1, 0, 8, channels), (1, 8, 0, channels), (2, 0, 0, channels)]
    # The network's own size and others, and channels that only differ in how the same bytes are cut up.
    shapes += [(2, *size, c) for size in ((8, 10), (8, 8), (5, 7)) for c in (0, 1, 2, 3, 4, 6) if c != channels]
    for shape in shapes:
        told = r"\W+".join(map(str, shape))  # all of it: the last number is the one that is wrong
        message = rf"images must be \(batch, height, width, {channels}\), no side 0. Received the shape:\W+{told}\W"
        _refused(served.server, signature, np.ones(shape, kind), message)


@pytest.mark.parametrize("signature", ["serving_default", "serve_float", "features"])
@pytest.mark.parametrize("which", ["colour", "gray"])
def test_a_batch_of_another_rank_is_an_error(request, which, signature):
    served = request.getfixturevalue(which)
    height, width, channels = served.model.input_shape[1:]
    kind = np.float32 if signature == "serve_float" else np.uint8
    for shape in (
        (height, width, channels),  # one image, and no batch
        (height * width * channels,),
        (),
        (1, 1, height, width, channels),
        (1, height, width, channels, 1),
        (1, height, width, channels, channels),
    ):
        message = rf"images must be \(batch, height, width, {channels}\)"
        _refused(served.server, signature, np.ones(shape, kind), message)


RANKS = """
import sys
import numpy as np
from test_export_saved_model import Server, _refused
server = Server(sys.argv[1])
for signature, kind in (("serving_default", np.uint8), ("serve_float", np.float32), ("features", np.uint8)):
    for shape in ((8, 8, 3), (192,), (), (1, 1, 8, 8, 3), (1, 8, 8, 3, 3), (1, 8, 8, 3, 1)):
        _refused(server, signature, np.ones(shape, kind), r"images must be \\(batch, height, width, 3\\)")
        print(signature, shape, flush=True)
print("all", flush=True)
"""


def test_another_rank_does_not_end_the_server(plain):
    """In a process of its own: oneDNN's convolution ends the process on an input of another rank."""
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", RANKS, str(plain.path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("all\n"), (done.returncode, done.stdout, done.stderr[-2000:])


def test_files_in_another_rank_are_an_error(colour):
    file = _encode(PICTURE)
    for value in (np.array(file, object), np.array([[file, file]], object), np.array([[file], [file]], object)):
        _refused(colour.server, "serve_bytes", value, None)


@pytest.mark.parametrize("size", [(8, 10), (9, 11)])
@pytest.mark.parametrize("which", ["colour", "gray", "plain"])
def test_pixels_that_are_no_numbers_are_an_error(request, which, size):
    served = request.getfixturevalue(which)
    images = _images(3, *size, served.model.input_shape[-1]).astype(np.float32)
    for value, told in ((np.nan, "NaN"), (np.inf, "Inf"), (-np.inf, "Inf")):
        images[1, 4, 5, 0] = value  # in one image of three
        _refused(served.server, "serve_float", images, rf"images must hold numbers. Received.*{told}")


@pytest.mark.parametrize("size", [(8, 10), (9, 11)])
@pytest.mark.parametrize("which", ["colour", "gray"])
def test_pixels_outside_of_what_pixels_are_in_are_an_error(request, which, size):
    served = request.getfixturevalue(which)
    for value in (-0.01, -300, 255.5, 1e30):
        images = np.full((3, *size, served.model.input_shape[-1]), 100, np.float32)
        images[1, 4, 5, 0] = value
        low, high = (_pattern(x) for x in (min(value, 100), max(value, 100)))
        message = rf"images must hold pixel values from 0 to 255. Received, lowest and highest:\W+{low}\W+{high}\W"
        _refused(served.server, "serve_float", images, message)
    for value in (0, 255):
        images = np.full((1, *size, served.model.input_shape[-1]), value, np.float32)
        assert np.isfinite(served.server("serve_float", images)["logits"]).all()


def _pattern(value):
    """As TensorFlow prints it, for a pattern; a minus sign is no word and is passed over."""
    return f"{abs(value):g}".replace(".", r"\.").replace("+", r"\+")


def test_sequences_that_do_not_fit_are_an_error(line):
    for signature in ("serving_default", "features"):
        for shape in ((0, 16, 2), (2, 0, 2), (2, 15, 2), (2, 16, 1), (2, 16, 3), (2, 32, 1), (16, 2), (1, 1, 16, 2)):
            message = r"sequences must be \(batch, 16, 2\), no side 0. Received the shape:"
            _refused(line.server, signature, np.ones(shape, np.float32), message)
        x = np.zeros((2, 16, 2), np.float32)
        x[1, 3, 1] = np.nan
        _refused(line.server, signature, x, r"sequences must hold numbers. Received.*NaN")


def test_good_input_is_answered_after_bad(colour):
    images = _images(2, 9, 9)
    before = colour.server("serving_default", images)
    with pytest.raises(tf.errors.InvalidArgumentError):
        colour.server("serving_default", images[:0])
    after = colour.server("serving_default", images)
    assert all(np.array_equal(before[name], after[name]) for name in OUTPUTS)


# Decoding, in training and in serving


def _decode_in_dataset(file, channels):
    return next(iter(tf.data.Dataset.from_tensors(file).map(lambda x: decode(x, channels))))


@pytest.mark.parametrize("where", ["eagerly", "function", "dataset"])
@pytest.mark.parametrize("bad", BAD_FILES)
def test_decoding_a_bad_file_is_an_error(where, bad):
    file, message = _make_bad(bad)
    in_graph = tf.function(lambda x: decode(x, 3))
    call = {
        "eagerly": lambda: decode(file, 3),
        "function": lambda: in_graph(tf.constant(file)),
        "dataset": lambda: _decode_in_dataset(file, 3),
    }[where]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        call()


def test_the_limit_of_pixels_is_an_argument():
    file = _encode(PICTURE)
    assert decode(file, 3, max_pixels=600).shape == (20, 30, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"at most 599 pixels. Received, .*:\W+20\W+30$"):
        decode(file, 3, max_pixels=599)


def _deep_png():
    """RGB in 16 bits, which Pillow reads and does not write."""
    values = np.random.default_rng(0).integers(0, 2**16, (20, 30, 3)).astype(">u2")
    header = struct.pack(">IIBBBBB", 30, 20, 16, 2, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b""), values >> 8


def _kinds():
    """Name: (file, its pixels as Pillow reads them, without alpha, 8 bits)."""
    rng = np.random.default_rng(1)
    picture, alpha = Image.fromarray(PICTURE), Image.fromarray(_images(1, 20, 30, 1)[0, ..., 0])
    palette = picture.quantize(16)
    bilevel = picture.convert("1")
    deep = rng.integers(0, 2**16, (20, 30)).astype(np.uint16)
    smooth = np.add.outer(np.arange(20) * 5, np.arange(30) * 4).astype(np.uint8)
    see_through = picture.copy()
    see_through.putalpha(alpha)
    kinds = {
        "rgb": (_encode(picture), PICTURE),
        "gray": (_encode(alpha), np.array(alpha)),
        "palette": (_encode(palette), np.array(palette.convert("RGB"))),
        "palette with a transparent colour": (_encode(palette, transparency=3), np.array(palette.convert("RGB"))),
        "1 bit": (_encode(bilevel), np.array(bilevel.convert("L"))),
        "16 bits gray": (_encode(Image.fromarray(deep)), (deep >> 8).astype(np.uint8)),
        "16 bits": _deep_png(),
        "rgb with alpha": (_encode(see_through), PICTURE),
        "gray with alpha": (_encode(Image.merge("LA", [alpha, alpha.rotate(180)])), np.array(alpha)),
        "interlaced": (_interlace(PICTURE), PICTURE),
    }
    for name, pixels in (("gray jpeg", smooth), ("jpeg", np.stack([smooth, 255 - smooth, smooth // 2], -1))):
        for suffix, options in (("", {}), (", progressive", {"progressive": True})):
            file = _encode(pixels, "JPEG", quality=95, **options)
            kinds[name + suffix] = file, np.array(Image.open(io.BytesIO(file)))
    return kinds


def _interlace(pixels):
    """Adam7, which Pillow reads and does not write."""
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [row for top, left, down, right in passes for row in pixels[top::down, left::right] if row.size]
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    file = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")
    np.testing.assert_array_equal(Image.open(io.BytesIO(file)), pixels)
    return file


KINDS = _kinds()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_decoded_as_pillow_does(kind, channels):
    file, wanted = KINDS[kind]
    wanted = wanted.astype(np.float64)
    if channels == 1 and wanted.ndim == 3:
        wanted = wanted @ [0.299, 0.587, 0.114]
    wanted = wanted.reshape(20, 30, -1)
    found = np.asarray(decode(file, channels), np.float64)
    assert found.shape == (20, 30, channels)
    # A JPEG's pixels differ between decoders, whose transforms round otherwise; so does a gray made of three colours.
    limit = 4 if "jpeg" in kind else 1.5 * (channels == 1)
    assert np.abs(found - wanted).max() <= limit
    assert np.abs(found - wanted).mean() < 1


@pytest.mark.parametrize("signature", ["serving_default", "serve_float", "features"])
def test_tensorflow_fuses_what_is_served(tmp_path, export, signature):
    """Every convolution with its bias, and the first of each block with its ReLU: nothing keeps the optimizer away."""
    served = Server(export(_network(), tmp_path, COLOUR))
    definition = served.signatures[signature]
    (images,) = definition.inputs.values()
    image = _images(2, 8, 10).astype(tf.as_dtype(images.dtype).as_numpy_dtype)
    found = config_pb2.RunMetadata()
    served.session.run(
        [tensor.name for tensor in definition.outputs.values()],
        {images.name: image},
        options=config_pb2.RunOptions(output_partition_graphs=True),
        run_metadata=found,
    )
    nodes = [node for graph in found.partition_graphs for node in graph.node]
    fused = [[op.decode() for op in node.attr["fused_ops"].list.s] for node in nodes if "Conv2D" in node.op]
    assert len(fused) == 6  # the stem, two in each block, a shortcut
    assert all(ops[0] == "BiasAdd" for ops in fused), fused
    assert sum("Relu" in ops for ops in fused) >= 3, fused
