"""The clients of TensorFlow Serving against servers that answer with its messages.

TensorFlow Serving itself needs Docker. The stand-ins run an exported model's signature, and take and give what its REST API
(its json_tensor.cc) and its protos say.
"""

import base64
import contextlib
import csv
import importlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_resnet
from keras_resnet.data.preprocess import preprocess

CLIENTS = Path(__file__).parents[2] / "examples" / "serving"
NAMES = ["dark, gray", "clair", "größer", '"light"']  # what CSV and JSON must quote
PHOTOS = ["a.png", "b.JPG", "more/c.jpeg", "more/d.PNG", "more/deep/é.png"]
HTTP_STATUS = {  # TensorFlow Serving's ToHTTPStatusCode
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
TENSORFLOW_LOG = re.compile(r"WARNING: All log messages before absl|[IWE]\d{4} ")  # what its import prints
RESET, HANG = "reset", "hang"  # a connection closed without an answer; none until `release`


class ServerError(Exception):
    """An answer that is an error: a gRPC code's name and a message."""


class StandIn:
    """What both servers do with a request: note it, have the next of `faults`, or run the signature."""

    def __init__(self, signatures):
        self.sizes = []  # images in each request
        self.faults = []  # of the coming requests; None for none
        self.hangs, self.release = threading.Event(), threading.Event()
        self._signatures = signatures

    def predict(self, model, version, signature_name, images):
        self.sizes.append(len(images))
        fault = self.faults.pop(0) if self.faults else None
        if fault == HANG:
            self.hangs.set()
            self.release.wait()
            fault = "UNAVAILABLE"
        if fault is not None:
            raise ServerError(fault, "as told")
        if model != "shades" or version not in (None, 1):
            wanted = f"Latest({model})" if version is None else f"Specific({model}, {version})"
            raise ServerError("NOT_FOUND", f"Servable not found for request: {wanted}")
        try:
            outputs = self._signatures[signature_name](image_bytes=tf.constant(np.array(images, object)))
        except tf.errors.InvalidArgumentError as error:
            raise ServerError("INVALID_ARGUMENT", error.message) from error
        return {name: value.numpy() for name, value in outputs.items()}


class QuietServer(ThreadingHTTPServer):
    """Says nothing of a client that did not wait for its answer."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class RestServer:
    """`POST /v1/models/NAME[/versions/N]:predict` in row format."""

    script = CLIENTS / "rest_client.py"

    def __init__(self, stand_in):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                asked = re.fullmatch(r"/v1/models/([^/:]+)(?:/versions/(\d+))?:predict", self.path)
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                images = []
                for instance in body["instances"]:
                    assert list(instance) == ["image_bytes"]
                    assert list(instance["image_bytes"]) == ["b64"]
                    images.append(base64.b64decode(instance["image_bytes"]["b64"], validate=True))
                try:
                    version = asked[2] and int(asked[2])
                    outputs = stand_in.predict(asked[1], version, body["signature_name"], images)
                    rows = [{name: value[i].tolist() for name, value in outputs.items()} for i in range(len(images))]
                    self.reply(200, {"predictions": rows})
                except ServerError as error:
                    if error.args[0] == RESET:
                        self.close_connection = True
                    else:
                        self.reply(HTTP_STATUS[error.args[0]], {"error": error.args[1]})

            def reply(self, status, answer):
                # Strings are UTF-8 as they are: only outputs whose names end in _bytes are base64.
                text = json.dumps(answer, ensure_ascii=False, default=bytes.decode).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self._server = QuietServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class GrpcServer:
    """`PredictionService.Predict`."""

    script = CLIENTS / "grpc_client.py"

    def __init__(self, stand_in):
        import grpc
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

        class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
            def Predict(self, request, context):
                spec = request.model_spec
                version = spec.version.value if spec.HasField("version") else None
                assert list(request.inputs) == ["image_bytes"]
                images = tf.make_ndarray(request.inputs["image_bytes"])
                assert images.ndim == 1
                try:
                    outputs = stand_in.predict(spec.name, version, spec.signature_name, list(images))
                except ServerError as error:
                    context.abort(grpc.StatusCode[error.args[0]], error.args[1])
                response = predict_pb2.PredictResponse()
                for name in request.output_filter or outputs:
                    response.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name]))
                return response

        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def stop(self):
        self._server.stop(None).wait()


def draw_photo(index):
    rng = np.random.default_rng(index)
    pixels = rng.normal(rng.uniform(0, 255, 3), 20, (12 + 5 * index, 30 - 4 * index, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def signatures(tmp_path_factory, export):
    """Of an exported network, as TensorFlow loads them."""
    keras.utils.set_random_seed(0)
    model = keras_resnet.build("resnet8_cifar", (16, 16, 3), 4, classifier_activation=None)
    preprocessing = keras_resnet.Preprocessing((16, 16), 3, mean=(0.5, 0.5, 0.5), std=(0.3, 0.3, 0.3))
    # Logits of mean 0 over the photos, in each class: so not all of them are best in the same.
    head = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    head.kernel.assign(0.1 * head.kernel)  # no probability is 0
    logits = model(np.stack([preprocess(draw_photo(index), preprocessing) for index in range(len(PHOTOS))]))
    head.bias.assign(-np.mean(logits, axis=0))
    path = export(model, tmp_path_factory.mktemp("served"), preprocessing, NAMES, name="shades", warm_up=False)
    return tf.saved_model.load(str(path)).signatures


@pytest.fixture
def stand_in(signatures):
    return StandIn(signatures)


@contextlib.contextmanager
def serve(kind, stand_in):
    server = kind(stand_in)
    try:
        yield server
    finally:
        stand_in.release.set()  # or a thread would not end
        server.stop()


@pytest.fixture
def rest(stand_in):
    with serve(RestServer, stand_in) as server:
        yield server


@pytest.fixture(params=[RestServer, GrpcServer], ids=["rest", "grpc"])
def server(request, stand_in):
    if request.param is GrpcServer:
        pytest.importorskip("tensorflow_serving", reason="the gRPC client needs tensorflow-serving-api (extra serving)")
    with serve(request.param, stand_in) as server:
        yield server


@pytest.fixture
def photos(tmp_path):
    """Five images, PNG and JPEG, each of another size, some in folders, with a file that is no image beside them."""
    root = tmp_path / "photos"
    for index, name in enumerate(PHOTOS):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_photo(index)).save(path)
    (root / "notes.txt").write_text("no image")
    return root


def start(script, *arguments):
    """Starts a client in a process of its own."""
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process):
    out, err = process.communicate()
    assert "Traceback" not in err
    ours = [line for line in err.splitlines(keepends=True) if not TENSORFLOW_LOG.match(line)]
    return process.returncode, out, "".join(ours)


def run_here(script, *arguments):
    """Runs a client in this process, which has TensorFlow already: its exit status, stdout and stderr."""
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        patch.syspath_prepend(CLIENTS)
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("no_proxy", "127.0.0.1")
        patch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        try:
            status = importlib.import_module(script.stem).main()
        except SystemExit as stop:  # of argparse
            status = stop.code
    return status, out.getvalue(), err.getvalue()


def options(server, photos, *more):
    table = photos.parent / "predictions.csv"
    patient = "--timeout-seconds=3600"  # no request of a busy machine is given up, but where a test asks for it
    where = "--model=shades", "--host=127.0.0.1", f"--port={server.port}", f"--output={table}"
    return photos, *where, patient, "--backoff-seconds=0.01", *more


def classify(server, photos, *more):
    """Runs a client to its end: its exit status, stdout, stderr, and the rows of its table, where there is one."""
    return *run_here(server.script, *options(server, photos, *more)), read_table(photos)


def read_table(photos):
    path = photos.parent / "predictions.csv"
    assert not path.with_name("partial-predictions.csv").exists()
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def images_of(photos):
    return sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))


def check_row(row, path, signatures, top=4):
    """That `row` is what the signature gives for the file alone."""
    wanted = {k: v.numpy()[0] for k, v in signatures["serve_bytes"](tf.constant([path.read_bytes()])).items()}
    assert row["path"] == str(path)
    best = list(zip(wanted["class_ids"], wanted["class_names"], strict=True))[:top]
    for rank, (index, name) in enumerate(best, 1):
        suffix = "" if rank == 1 else f"_{rank}"
        assert row[f"class_name{suffix}"] == name.decode()
        np.testing.assert_allclose(float(row[f"probability{suffix}"]), wanted["probabilities"][index], rtol=1e-4)
    assert row["error"] == ""


def test_classifies_in_batches_and_outlasts_faults(server, stand_in, photos, signatures):
    stand_in.faults = ["UNAVAILABLE", "RESOURCE_EXHAUSTED", None, "DEADLINE_EXCEEDED"]
    (photos.parent / "predictions.csv").write_text("older")
    status, out, err, rows = classify(server, photos, "--batch-size=2", "--model-version=1")
    assert status == 0, err
    assert stand_in.sizes == [2, 2, 2, 2, 2, 1]
    assert out.endswith("predictions.csv: 5 images classified, 0 refused\n")
    assert [line.rsplit("; ", 1)[1] for line in err.splitlines()] == [
        "next try in 0.01 s",
        "next try in 0.02 s",
        "next try in 0.01 s",
    ]
    for row, path in zip(rows, images_of(photos), strict=True):
        check_row(row, path, signatures)
    assert list(rows[0])[-3:] == ["class_name_5", "probability_5", "error"]
    assert rows[0]["class_name_5"] == ""  # the network has four
    assert len({row["class_name"] for row in rows}) > 1


def test_names_the_bad_image_and_classifies_the_others(server, stand_in, photos, signatures):
    bad, gone = photos / "more" / "broken.png", photos / "gone.jpg"
    bad.write_bytes((photos / "a.png").read_bytes()[:60])
    gone.symlink_to("nowhere.jpg")
    status, out, err, rows = classify(server, photos, "--batch-size=4", "--top=2")
    assert status == 1
    assert stand_in.sizes == [3, 1, 1, 1, 3]  # the first batch once, then its images
    assert out.endswith("5 images classified, 2 refused\n")
    refused = {row["path"]: row for row in rows if row["error"]}
    assert list(refused) == [str(gone), str(bad)]
    assert refused[str(gone)]["error"] == "could not be read: No such file or directory"
    assert "INVALID" in refused[str(bad)]["error"] or "400" in refused[str(bad)]["error"]
    assert "Invalid PNG data" in refused[str(bad)]["error"]
    assert refused[str(bad)]["class_name"] == refused[str(bad)]["probability_2"] == ""
    assert err == "".join(f"{path}: {row['error']}\n" for path, row in refused.items())
    assert list(rows[0]) == ["path", "class_name", "probability", "class_name_2", "probability_2", "error"]
    for row in rows:
        if not row["error"]:
            check_row(row, Path(row["path"]), signatures, top=2)


def test_unknown_model(server, stand_in, photos):
    status, _, err, rows = classify(server, photos, "--model=shapes")
    assert (status, rows, stand_in.sizes) == (1, [], [5])
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Servable not found for request: Latest(shapes)" in err


def test_gives_up_on_a_server_that_does_not_answer_in_time(server, stand_in, photos):
    stand_in.faults = [HANG, HANG]
    status, _, err, rows = classify(server, photos, "--timeout-seconds=0.3", "--retries=1")
    assert (status, rows) == (1, [])
    assert stand_in.sizes in ([], [5], [5, 5])  # a busy server may not have got to a request that is given up
    assert "must answer. Received at the last of 2 tries: " in err.splitlines()[-1]
    assert "no answer within 0.3 s" in err or "DEADLINE_EXCEEDED" in err


def test_unreachable_server(server, photos):
    (photos.parent / "predictions.csv").write_text("path\nolder\n")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        port = closed.getsockname()[1]
        # In a process of its own: gRPC keeps in mind, for all of a process, which port did not answer.
        status, _, err = finish(start(server.script, *options(server, photos, f"--port={port}", "--retries=1")))
    rows = read_table(photos)
    assert status == 1
    assert err.splitlines()[-1].startswith(f"error: 127.0.0.1:{port} must answer. Received at the last of 2 tries: ")
    assert "onnection refused" in err
    assert rows == [{"path": "older"}]


def test_ctrl_c_keeps_the_rows(server, stand_in, photos, signatures):
    stand_in.faults = [None, HANG]
    # What this process ignores, as one in the background may, the client would ignore too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = start(server.script, *options(server, photos, "--batch-size=2"))
    finally:
        signal.signal(signal.SIGINT, before)
    while not stand_in.hangs.wait(1):
        assert process.poll() is None, finish(process)
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert status == 130
    assert err == f"interrupted; {photos.parent / 'predictions.csv'}: 2 images classified, 0 refused\n"
    for row, path in zip(read_table(photos), images_of(photos)[:2], strict=True):
        check_row(row, path, signatures)


def test_rest_tries_again_after_a_reset_but_not_after_an_internal_error(rest, stand_in, photos):
    stand_in.faults = [RESET, None, "INTERNAL"]
    status, _, err, rows = classify(rest, photos, "--batch-size=3")
    assert (status, len(rows), stand_in.sizes) == (1, 3, [3, 3, 2])
    assert "closed connection" in err.splitlines()[0]
    assert "Received: 500, as told. " in err
    assert err.endswith("predictions.csv: 3 images classified, 0 refused\n")


def test_rest_blames_no_image_where_the_signature_is_missing(rest, stand_in, photos):
    stand_in.predict = lambda *_: (_ for _ in ()).throw(
        ServerError("INVALID_ARGUMENT", 'Serving signature name: "serve_bytes" not found in signature def')
    )
    status, _, err, rows = classify(rest, photos)
    assert (status, rows) == (1, [])
    assert "not found in signature def" in err


def test_rest_is_told_that_another_server_answers(rest, stand_in, photos):
    stand_in.predict = lambda *_: {"logits": np.zeros((5, 4))}
    status, _, err, rows = classify(rest, photos)
    assert (status, rows) == (1, [])
    assert "must answer with probabilities, class_ids and class_names. Received: " in err


@pytest.mark.parametrize("script", ["rest_client.py", "grpc_client.py"])
def test_says_what_is_wrong_before_it_asks_a_server(script, tmp_path):
    """Without TensorFlow's import, which is slow."""
    helped = finish(start(CLIENTS / script, "--help"))
    assert helped[0] == 0
    assert "docker run" in helped[1]
    assert "--backoff-seconds" in helped[1]
    empty = run_here(CLIENTS / script, tmp_path, "--model=shades")
    assert empty[0] == 1
    assert empty[2].startswith(f"error: {tmp_path} must hold images")
    missing = run_here(CLIENTS / script, tmp_path / "nowhere", "--model=shades")
    assert missing[0] == 1
    assert "nowhere could not be listed: No such file or directory." in missing[2]
    (tmp_path / "a.png").touch()
    unwritable = run_here(CLIENTS / script, tmp_path, "--model=shades", f"--output={tmp_path / 'no' / 'p.csv'}")
    assert unwritable[0] == 1
    assert "p.csv could not be written: No such file or directory." in unwritable[2]
    refused = run_here(CLIENTS / script, tmp_path, "--model=shades", "--batch-size=0")
    assert refused[0] == 2
    assert "must be above 0. Received: 0" in refused[2]


def test_the_rest_client_needs_neither_tensorflow_nor_this_package():
    code = (
        "import sys, rest_client; sys.exit(bool({'tensorflow', 'keras', 'keras_resnet', 'numpy'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=CLIENTS, check=True)
