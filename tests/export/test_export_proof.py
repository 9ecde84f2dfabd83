"""The proof of a SavedModel: what it runs, what it finds, and what it writes down."""

import ast
import json
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import perturb_logits
from keras import layers
from server import Server
from serving import COLOUR, NAMES, check_answer, check_nothing_left, draw, network, stock_grouped
from tensorflow.core.protobuf import config_pb2, saved_model_pb2

from keras_resnet import InputError, Preprocessing
from keras_resnet.errors import ExportFailed
from keras_resnet.export import check, export_saved_model, saved_model, verify
from keras_resnet.export.record import SavedModelRecord, read_export
from keras_resnet.export.reference import Case, Reference

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


def test_the_record_is_read_as_it_was_written(colour):
    written = json.loads((colour.path / "export.json").read_text("utf-8"))
    record = read_export(colour.path)
    assert isinstance(record, SavedModelRecord)
    assert (record.class_names, record.preprocessing) == (tuple(NAMES), COLOUR)
    assert json.loads(json.dumps(record.to_dict())) == written
    assert set(written) == {
        *("format", "name", "version", "input_shape", "class_names", "preprocessing", "signatures", "max_pixels"),
        *("warm_up_requests", "verified", "versions"),
    }


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '{"signatures": []}'])
def test_what_is_no_record_is_an_error(tmp_path, text):
    (tmp_path / "export.json").write_text(text)
    with pytest.raises(InputError, match=r"export.json is not the record of an export of this version: "):
        read_export(tmp_path)


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
    assert len(requests) == read_export(colour.path).warm_up_requests == 8
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


def test_warm_up_requests_that_are_not_answered_fail_the_export(tmp_path, monkeypatch, instant):
    pytest.importorskip("tensorflow_serving", reason="the protos are those of tensorflow-serving-api")
    case = Case("serving_default", "images", draw(1, 8, 8, 1), {})
    monkeypatch.setattr(Reference, "make_cases", lambda *_: [case] * 8)
    results = {"onednn": verify.Checked((), warmup=8), "no_onednn": verify.Checked((), warmup=7)}
    monkeypatch.setattr(verify, "run_processes", lambda *_: results)
    with pytest.raises(ExportFailed, match=r"All 8 warm-up requests must be answered. Received: \[8, 7\] answers"):
        instant(tmp_path / "x", warm_up=True)
    assert not list(tmp_path.iterdir())


# What is refused


def test_an_export_that_differs_is_refused(tmp_path, monkeypatch, proved_here):
    """One weight of 600, off by 1 %: less than shows in most classes."""
    perturb_logits(monkeypatch, saved_model)
    message = (
        r"must give what the Keras model gives, to 0.0001 of the scale. Received: logits of .*/1 \(onednn\) with a"
    )
    check_nothing_left(tmp_path, ExportFailed, message, lambda path: export_saved_model(network(), path, COLOUR))


def test_an_export_with_operations_of_xla_is_refused(tmp_path, monkeypatch, proved_here):
    real = saved_model.rewrite
    monkeypatch.setattr(saved_model, "rewrite", lambda model, **_: real(model))  # Keras' groups stay
    check_nothing_left(
        tmp_path,
        ExportFailed,
        r"no operation that takes XLA, Python or a library of its own. Received: _XlaMustCompile \(",
        lambda path: export_saved_model(stock_grouped(), path),
    )


def test_an_export_that_cannot_be_run_is_refused(colour, monkeypatch):
    """In a fresh process, whose last words are told."""
    monkeypatch.setattr(verify, "ONEDNN", {"onednn": "1"})
    case = Case("serve_bytes", "image_bytes", np.array([b"text"]), {})
    message = r"could not be run in a fresh process \(onednn, exit code 1\):\n(.*\n)*.*An image must be a PNG or JPEG"
    with pytest.raises(ExportFailed, match=message):
        verify.verify_saved_model(colour.path, [case], NAMES, 1e-4)


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
        return verify.verify_saved_model(tmp_path, [Case("a", "x", np.zeros(1), {})], ["a"], 1e-4)

    return put


def test_the_proof_is_run_with_and_without_onednn_and_without_xla(fake_check, tmp_path):
    results = fake_check(
        "json.dump(settings, open(f'{path}/{os.path.basename(result)}', 'w'))\n"
        "json.dump({'odd': [], 'differences': {}, 'warmup': 0}, open(result, 'w'))"
    )
    settings = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in results}
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


# What the graph holds


def test_keras_own_groups_need_xla_and_ours_do_not(tmp_path, export):
    model = stock_grouped()
    model.export(tmp_path / "stock", format="tf_saved_model", verbose=False)
    assert any(name.startswith("_XlaMustCompile (") for name in check.find_odd_nodes(str(tmp_path / "stock")))
    path = export(model, tmp_path / "ours")
    assert check.find_odd_nodes(str(path)) == []
    images = draw(2, 8, 8, 4)
    check_answer(Server(path)("serving_default", images), model, images.astype(np.float32), list("012"))


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
    images = draw(2, 8, 8, 64)
    check_answer(server("serving_default", images), model, images.astype(np.float32), list("012"))


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


@pytest.mark.parametrize("signature", ["serving_default", "serve_float", "features"])
def test_tensorflow_fuses_what_is_served(colour, signature):
    """Every convolution with its bias, and the first of each block with its ReLU: nothing keeps the optimizer away."""
    served = colour.server
    definition = served.signatures[signature]
    (images,) = definition.inputs.values()
    image = draw(2, 8, 10).astype(tf.as_dtype(images.dtype).as_numpy_dtype)
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
