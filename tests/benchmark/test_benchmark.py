"""The benchmark: what it refuses, how its sides take turns and end, what it computes, one whole run of each task."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import psutil
import pytest
from helpers import run_main

import keras_resnet
from keras_resnet import InputError, count_macs, get_spec
from keras_resnet.benchmark import make_plan, measure, runner
from keras_resnet.benchmark import plan as plan_module
from keras_resnet.benchmark.keras_sides import build, draw_batch, make_training
from keras_resnet.benchmark.plan import PRODUCT_SIZE, Case, find_counterpart
from keras_resnet.benchmark.processes import SideFailed, SideProcess, SideUnavailable, make_environment
from keras_resnet.benchmark.side_process import measure_peak_bytes
from keras_resnet.fused import fuse_model
from keras_resnet.specs import TABLE


def test_planning_loads_no_framework():
    code = (
        "import sys; from keras_resnet.benchmark import make_plan, measure; make_plan(('resnet50', 'resnet18_1d'));"
        "print([m for m in ('tensorflow', 'keras', 'torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    code = (
        "import sys; from keras_resnet.cli import cli; cli(['benchmark', '--help'], standalone_mode=False);"
        "print('heavy:', [m for m in ('tensorflow', 'keras', 'torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("heavy: []\n")
    assert "--against SIDE[,SIDE...]" in done.stdout


def test_what_is_left_open_is_decided(monkeypatch):
    monkeypatch.setattr(plan_module, "has_torch", lambda: False)
    plan = make_plan(("resnet50", "resnet20_cifar", "resnext50_32x4d", "resnet18_1d"), threads=3)
    assert [(case.network, case.batch_size, case.input_text) for case in plan.cases] == [
        ("resnet50", 16, "224x224x3"),
        ("resnet20_cifar", 128, "32x32x3"),
        ("resnext50_32x4d", 16, "224x224x3"),
        ("resnet18_1d", 16, "1024x1"),
    ]
    assert (plan.threads, plan.dtype) == (3, "float32")
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
    assert [case.batch_size for case in infer.cases] == [1, 16]
    assert infer.cases[0].input_shape == (31, 64, 3)
    assert infer.cases[0].left_out == (("keras.applications", "keras.applications takes images of at least 32 pixels"),)
    named = make_plan(("resnext50_32x4d",) * 2, against=("stock", "stock"), batch_sizes=(4, 4))
    assert [case.sides for case in named.cases] == [("ours", "stock")]
    assert make_plan().threads == plan_module.count_cores()


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
        ({"round_seconds": float("nan")}, "round_seconds must be from 0 to 3600. Received: nan"),
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
    case = Case("resnet50", "train", 16, (224, 224, 3), 1000, ("ours",), ())
    assert case.count_flops("ours") == case.count_flops("torch") == 2 * 4_089_185_256 * 16 * 3
    # keras.applications has the stride elsewhere, and biases.
    assert case.count_flops("keras.applications") == 2 * count_macs("resnet50_keras") * 16 * 3
    infer = Case("resnet50", "infer", 1, (224, 224, 3), 1000, ("ours",), ())
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


# Processes


def start(tmp_path, job):
    return SideProcess("The process of 'x'", job, tmp_path / "x.log", make_environment(1, tmp_path))


PRODUCT = {"side": "matrix product", "threads": 1, "dtype": "float32"}


def test_a_child_that_fails_is_an_error_with_the_end_of_its_log(tmp_path):
    with start(tmp_path, {}) as process, pytest.raises(SideFailed) as error:
        process.receive()
    first, *log = str(error.value).splitlines()
    assert first == "The process of 'x' ended with exit code 1. The end of its log:"
    assert log[-1] == "KeyError: 'side'"


def test_a_child_that_is_killed_is_an_error(tmp_path):
    with start(tmp_path, PRODUCT) as process:
        os.kill(process.process_id, signal.SIGKILL)
        with pytest.raises(SideFailed, match=r"was killed by signal 9, as the system does where memory runs out\. The"):
            process.receive()


def test_a_child_does_what_it_is_asked_and_ends_with_its_block(tmp_path):
    with start(tmp_path, PRODUCT) as process:
        ready = process.receive()
        assert ready["ready_seconds"] > 0
        assert ready["device"] in ("cpu", "gpu")
        assert process.ask("first")["seconds"] > 0
        assert process.ask("round", steps=2)["seconds"] > 0
        assert process.ask("report")["peak_bytes"] > 3 * 4 * PRODUCT_SIZE**2  # its three matrices
        child = psutil.Process(process.process_id)
    assert not child.is_running()


def test_children_end_with_a_parent_that_is_killed(tmp_path):
    log = tmp_path / "x.log"
    os.mkfifo(log)
    code = (
        "import os, signal, sys; from pathlib import Path;"
        "from keras_resnet.benchmark.processes import SideProcess, make_environment;"
        f"scratch = Path({str(tmp_path)!r});"
        f"process = SideProcess('x', {PRODUCT!r}, scratch / 'x.log', make_environment(1, scratch));"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        with open(log, "rb") as end:
            end.read()  # until the child, who alone has it open, has ended
        assert parent.wait() == -signal.SIGKILL


def test_peak_memory_is_of_this_process():
    assert measure_peak_bytes() >= psutil.Process().memory_info().rss * 0.9


def test_ctrl_c_leaves_no_child(tmp_path):
    command = [sys.executable, "-m", "keras_resnet.cli", "benchmark", "resnet8_cifar", "--against", "none"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stderr:
            if "ours: first step" in line:
                break
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait() == 130
    assert rest.endswith("Stopped.\n")
    assert len(children) == 2  # ours and the matrix product
    assert not any(child.is_running() for child in children)
    assert not list(tmp_path.glob("keras_resnet_benchmark_*"))


# Turns, with sides that only say how long they took


class FakeProcess:
    """Answers as a child would; `SCRIPT[side]` are the seconds of its steps, or an error to raise at a request."""

    script: dict = {}  # noqa: RUF012
    log: list = []  # noqa: RUF012
    running = 0

    def __init__(self, name, job, log_path, environment):
        self.side, self.job, self.asked = job["side"], job, 0
        self.log.append(("start", job.get("for", self.side)))

    def __enter__(self):
        FakeProcess.running += 1
        return self

    def __exit__(self, *_):
        FakeProcess.running -= 1

    def receive(self):
        if self.side == "export":
            return {"folder": f"folder of {self.job['for']}"}
        return {"ready_seconds": 2.0, "device": "cpu"}

    def ask(self, request, steps=1):
        if request == "report":
            return {"peak_bytes": 3 * 2**20}
        if request == "first":
            if isinstance(self.script[self.side], Exception):
                raise self.script[self.side]
            return {"seconds": 9.0}
        self.log.append((self.side, steps))
        seconds = self.script[self.side]
        self.asked += 1
        step = seconds(self.asked) if callable(seconds) else seconds
        if isinstance(step, Exception):
            raise step
        return {"seconds": step * steps}


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(runner, "SideProcess", FakeProcess)
    monkeypatch.setattr(plan_module, "has_torch", lambda: True)
    monkeypatch.setattr(FakeProcess, "script", {"matrix product": 0.125})
    monkeypatch.setattr(FakeProcess, "log", [])
    yield FakeProcess
    assert FakeProcess.running == 0


def test_sides_take_turns_and_figures_are_medians(fake):
    # Ours takes 2, 4 and 3 seconds in the rounds, behind two steps of warm-up; PyTorch is twice as slow in each.
    fake.script["ours"] = lambda asked: {3: 2.0, 4: 4.0, 5: 3.0}.get(asked, 5.0)
    fake.script["torch"] = lambda asked: {3: 4.0, 4: 8.0, 5: 6.0}.get(asked, 5.0)
    fake.script["matrix product"] = lambda asked: 0.125 if asked == 5 else 0.25  # its fastest turn is the peak
    said, handed = [], []
    plan = make_plan(("resnet8_cifar",), against=("torch",), batch_sizes=(6,), rounds=3)
    rows = measure(plan, on_progress=said.append, on_rows=lambda rows: handed.append(len(rows)))
    turns = [side for side, _ in fake.log if side != "start"][-12:]
    assert turns == [
        *("ours", "torch", "matrix product", "matrix product"),  # short: one that is not counted comes first
        *("torch", "ours", "matrix product", "matrix product"),
        *("ours", "torch", "matrix product", "matrix product"),
    ]
    ours, theirs = rows
    assert (ours.milliseconds, ours.milliseconds_min, ours.milliseconds_max) == (3000, 2000, 4000)
    assert (ours.images_per_second, ours.rounds, ours.steps) == (2, 3, 1)
    assert ours.gflops == pytest.approx(2 * 3 * 6 * count_macs("resnet8_cifar") / 3 / 1e9)
    assert ours.peak_gflops == pytest.approx(2 * PRODUCT_SIZE**3 / 0.125 / 1e9)
    assert ours.peak_share == pytest.approx(ours.gflops / ours.peak_gflops)
    assert (ours.memory_mib, ours.first_step_seconds, ours.ready_seconds, ours.ours_ratio) == (3, 9, 2, 1)
    assert (theirs.side, theirs.milliseconds, theirs.ours_ratio) == ("torch", 6000, 0.5)
    assert handed == [2]
    assert said[-1] == "resnet8_cifar train, batch 6, 32x32x3: round 3 of 3"


def test_the_ratio_is_by_round(fake):
    # The machine is ten times slower in the second round: it is in both, and leaves the ratio as it is.
    fake.script["ours"] = lambda asked: {4: 30.0}.get(asked, 3.0)
    fake.script["stock"] = lambda asked: {4: 40.0}.get(asked, 4.0)
    _, stock = measure(make_plan(("resnet8_cifar",), against=("stock",), rounds=2))
    assert stock.ours_ratio == 0.75


def test_a_turn_has_as_many_steps_as_fill_it(fake):
    fake.script["ours"] = lambda asked: 0.5 if asked <= 2 else 0.1  # faster once it is warm
    (row,) = measure(make_plan(("resnet8_cifar",), against=(), rounds=2, round_seconds=2.0))
    assert [steps for side, steps in fake.log if side == "ours"] == [1, 1, 4, 1, 20, 1, 20]
    assert (row.steps, row.rounds) == (20, 2)
    assert row.milliseconds == pytest.approx(100)


def test_one_side_that_cannot_leaves_the_others(fake, caplog):
    fake.script |= {
        "ours": 3.0,
        "stock": lambda asked: SideFailed("It died. The end of its log:\nOOM") if asked == 4 else 3.0,
        "torch": SideFailed("It never ran. The end of its log:\nImportError"),
        "torch-compile": SideUnavailable("torch.compile failed"),
    }
    plan = make_plan(("resnet8_cifar",), rounds=3)
    ours, stock, eager, compiled, applications = measure(plan)
    assert (ours.milliseconds, ours.failed, ours.note) == (3000, False, "")
    assert (stock.milliseconds, stock.failed, stock.note) == (None, True, "It died. The end of its log:")
    assert (eager.failed, eager.note) == (True, "It never ran. The end of its log:")
    assert (compiled.failed, compiled.note) == (False, "torch.compile failed")
    assert (applications.side, applications.failed) == ("keras.applications", False)
    assert "OOM" in caplog.text
    assert "ImportError" in caplog.text


def test_without_ours_there_is_no_ratio(fake):
    fake.script |= {"ours": SideFailed("no"), "stock": 1.0}
    ours, stock = measure(make_plan(("resnet8_cifar",), against=("stock",), rounds=2))
    assert (ours.failed, stock.milliseconds, stock.ours_ratio) == (True, 1000, None)


def test_a_network_is_exported_once(fake):
    fake.script |= {"ours": 1.0, "torch": 1.0}
    plan = make_plan(("resnet8_cifar",), task="infer", batch_sizes=(1, 2), against=("torch",), rounds=2)
    assert len(measure(plan)) == 4
    started = [name for what, name in fake.log if what == "start"]
    assert started == [
        *("matrix product", "ours", "ours", "torch"),  # the export, then the session
        *("matrix product", "ours", "torch"),
    ]


# The sides on TensorFlow


def make_job(**changes):
    job = {"side": "ours", "network": "resnet8_cifar", "batch_size": 4, "input_shape": [8, 8, 3], "classes": 10}
    return {**job, **changes}


def test_a_training_step_is_a_step_of_fit():
    model = build(make_job(), None)
    model.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    fuse_model(twin)  # a clone computes BN as Keras does, which rounds otherwise
    twin.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images, labels = draw_batch(make_job())
    traced, train_step = [], model.train_step
    model.train_step = lambda *arguments: traced.append(1) or train_step(*arguments)
    side = make_training(model, images, labels)
    side.first()
    side.run(2)
    twin.fit(np.tile(images, (3, 1, 1, 1)), np.tile(labels, 3), batch_size=4, shuffle=False, verbose=0)
    for mine, theirs in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert traced == [1]  # what the first step has traced serves the others


def test_stock_has_keras_layers_only_and_computes_the_same():
    job = make_job(network="resnext11_2x16d_cifar")
    ours, stock = build(job, None), build({**job, "side": "stock"}, None)
    assert {layer.__class__.__module__.split(".")[0] for layer in ours.layers} == {"keras", "keras_resnet"}
    assert {layer.__class__.__module__.split(".")[0] for layer in stock.layers} == {"keras"}
    stock.set_weights(ours.get_weights())
    images, _ = draw_batch(job)
    np.testing.assert_allclose(ours(images), stock(images), atol=1e-5)


def test_the_counterpart_is_that_of_keras_applications():
    job = make_job(network="resnet50", side="keras.applications", input_shape=[32, 32, 3], classes=7)
    assert build(job, None).count_params() == keras_resnet.count_params("resnet50_keras", (32, 32, 3), 7)


# Whole runs


def test_the_command_measures_a_training_step(monkeypatch, capsys, tmp_path):
    path = tmp_path / "figures.csv"
    status, out, err = run_main(
        monkeypatch,
        capsys,
        *("benchmark", "resnet8_cifar", "--batch-size", "4", "--image-size", "8", "--rounds", "2"),
        *("--round-seconds", "0", "--threads", "1", "--against", "stock,keras.applications", "--csv", path),
    )
    assert status == 0, err
    ours, stock, applications = csv.DictReader(path.read_text("utf-8").splitlines())
    for row in (ours, stock):
        assert float(row["milliseconds_min"]) <= float(row["milliseconds"]) <= float(row["milliseconds_max"])
        assert float(row["first_step_seconds"]) > float(row["milliseconds"]) / 1000
        assert 0 < float(row["peak_share"]) < 1
        assert float(row["memory_mib"]) > 100
        assert (row["input"], row["threads"], row["rounds"], row["steps"]) == ("8x8x3", "1", "2", "1")
        assert row["tensorflow"].startswith("2.")
        assert row["processor"]
    assert (ours["side"], float(ours["ours_ratio"]), stock["side"]) == ("ours", 1.0, "stock")
    assert applications["milliseconds"] == ""
    assert "resnet8_cifar train      4  8x8x3   ours" in out
    assert "matrix product (the peak): " in out
    assert (
        "resnet8_cifar train, 4, 8x8x3: keras.applications left out: keras.applications has ResNet-50, -101 and -152 and "
        "their v2."
    ) in out.replace("\n", " ").replace("  ", " ")
    assert "round 2 of 2" in err
    assert [child.name for child in tmp_path.iterdir()] == ["figures.csv"]


def test_the_command_measures_inference_of_exported_models(monkeypatch, capsys):
    status, out, err = run_main(
        monkeypatch,
        capsys,
        *("benchmark", "resnet8_cifar", "--infer", "--batch-size", "2", "--image-size", "8", "--rounds", "2"),
        *("--round-seconds", "0", "--against", "stock"),
    )
    assert status == 0, err
    assert "resnet8_cifar infer      2  8x8x3   ours" in out
    assert "resnet8_cifar infer      2  8x8x3  stock" in out
    assert "failed" not in out


def test_the_command_measures_a_pipeline(monkeypatch, capsys, npz, tmp_path):
    path = tmp_path / "figures.csv"
    status, out, err = run_main(
        monkeypatch,
        capsys,
        *("benchmark", "--data", npz, "--image-size", "12", "--batch-size", "16,32", "--rounds", "2"),
        *("--round-seconds", "0", "--csv", path),
    )
    assert status == 0, err
    rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    assert [(row["pipeline"], row["batch_size"]) for row in rows] == [
        (name, size) for size in ("16", "32") for name in ("keras_resnet", "map(resize_with_pad)")
    ]
    for row in rows:
        assert 0 < float(row["least"]) <= float(row["images_per_second"]) <= float(row["greatest"])
        assert row["processor"]
    assert "ours, times as fast" in out


def test_a_failed_side_is_status_1_and_the_rest_is_printed(monkeypatch, capsys, fake, tmp_path):
    fake.script |= {"ours": 3.0, "torch": SideFailed("It died.\nImportError")}
    path = tmp_path / "figures.csv"
    status, out, err = run_main(
        monkeypatch, capsys, "benchmark", "resnet8_cifar", "--against", " torch", "--rounds", "2", "--csv", path
    )
    assert status == 1
    assert err.endswith("Error: resnet8_cifar train, batch 128: It died.\n")
    assert "3000.0-3000.0" in out
    assert [row["failed"] for row in csv.DictReader(path.read_text("utf-8").splitlines())] == ["False", "True"]


def test_without_the_matrix_product_there_is_nothing(monkeypatch, capsys, fake):
    fake.script["matrix product"] = SideFailed("It died. The end of its log:\nImportError")
    status, out, err = run_main(monkeypatch, capsys, "benchmark", "resnet8_cifar", "--against", "none")
    assert (status, out) == (1, "")
    assert err.endswith("Error: It died. The end of its log:\nImportError\n")


def test_what_was_measured_survives_a_stop(monkeypatch, capsys, fake, tmp_path):
    fake.script["ours"] = 3.0
    path = tmp_path / "figures.csv"
    monkeypatch.setattr(FakeProcess, "receive", lambda self: _stop_at(self.job, 8))
    status, out, err = run_main(
        monkeypatch,
        capsys,
        *("benchmark", "resnet8_cifar", "--against", "none", "--batch-size", "4,8", "--rounds", "2", "--csv", path),
    )
    assert (status, err.splitlines()[-1]) == (130, "Stopped.")
    assert "3000.0-3000.0" in out
    assert [row["batch_size"] for row in csv.DictReader(path.read_text("utf-8").splitlines())] == ["4"]


def _stop_at(job, batch_size):
    if job["batch_size"] == batch_size:
        raise KeyboardInterrupt
    return {"ready_seconds": 1.0, "device": "gpu"}


def test_devices_are_named_where_they_are_not_the_cpu(monkeypatch, capsys, fake):
    fake.script["ours"] = 3.0
    monkeypatch.setattr(FakeProcess, "receive", lambda self: _stop_at(self.job, 0))
    _, out, _ = run_main(monkeypatch, capsys, "benchmark", "resnet8_cifar", "--against", "none", "--rounds", "2")
    assert "devices: ours gpu" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet19"], "Unknown network. Received: 'resnet19'. Did you mean 'resnet18'"),
        (["resnet50", "--against", "pytorch"], "must be one of 'stock', 'keras.applications', 'torch', 'torch-comp"),
        (["resnet50", "--against", "torhc"], "Received: 'torhc'. Did you mean 'torch'"),
        (["resnet50", "--against", "torch"], "'torch' needs PyTorch, which is not installed: pip install torch"),
        (["resnet50", "--image-size", "0"], "must be N or HEIGHTxWIDTH, in pixels of at least 1. Received: '0'"),
        (["resnet50", "--batch-size", "16,"], "must be numbers of at least 1, such as 16 or 1,16. Received: '16,'"),
        (["resnet50", "--batch-size", "0"], "must be numbers of at least 1, such as 16 or 1,16. Received: '0'"),
        (["resnet50", "--dtype", "bfloat16"], "Received: 'bfloat16'. Did you mean 'mixed_bfloat16'"),
        (["resnet50", "--rounds", "1"], "rounds must be an integer of at least 2. Received: 1"),
        (["resnet50", "--round-seconds", "-1"], "round_seconds must be from 0 to 3600. Received: -1.0"),
        (
            ["resnet50", "--data", "digits"],
            "a pipeline is timed alone, without MODEL, --against, --threads. Received: M",
        ),
        (["--data", "digitz"], "Unknown data set. Received: 'digitz'. Did you mean 'digits'"),
        (["resnet50", "--threads", "0"], "threads must be an integer of at least 1. Received: 0"),
    ],
)
def test_the_command_refuses(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan_module, "has_torch", lambda: False)
    status, _, err = run_main(monkeypatch, capsys, "benchmark", *arguments, "--csv", "figures.csv")
    assert status == 2
    assert message in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["missing/figures.csv", "."])
def test_a_file_that_cannot_be_written_is_an_error_at_once(monkeypatch, capsys, tmp_path, name):
    monkeypatch.setattr("keras_resnet.benchmark.measure", lambda *_, **__: pytest.fail("measured"))
    target = tmp_path / name
    status, _, err = run_main(monkeypatch, capsys, "benchmark", "resnet50", "--against", "none", "--csv", target)
    assert status == 1
    assert f"{target} could not be written: " in err
    assert not list(tmp_path.iterdir())


def test_answers_are_lines_of_json_whatever_a_library_prints(tmp_path):
    """What a child writes to its standard output goes to the log: the answers stay readable."""
    code = (
        "import sys; from keras_resnet.benchmark import side_process;"
        "side_process.make_side = lambda job: print('noise') or sys.exit(3);"
        "side_process.main()"
    )
    command = [sys.executable, "-c", code]
    with (tmp_path / "log").open("w+") as log:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as child:
            child.stdin.write(json.dumps({"side": "x"}) + "\n")
            child.stdin.flush()
            assert child.stdout.read() == ""
            assert child.wait() == 3
        log.seek(0)
        assert log.read() == "noise\n"
