"""The command benchmark: whole runs with processes of their own, what it prints and writes, what it refuses."""

import csv

import pytest
from helpers import run_main

from keras_resnet.benchmark import plan as plan_module
from keras_resnet.benchmark.processes import SideFailed


def test_the_command_measures_a_training_step(monkeypatch, capsys, tmp_path):
    path = tmp_path / "figures.csv"
    status, out, err = run_main(
        monkeypatch,
        capsys,
        *("benchmark", "resnet8_cifar", "--batch-size", "4", "--image-size", "8", "--rounds", "2"),
        *("--round-seconds", "0", "--threads", "1", "--against", "keras.applications", "--csv", path),
    )
    assert status == 0, err
    ours, applications = csv.DictReader(path.read_text("utf-8").splitlines())
    for name in ("first_step_seconds", "ready_seconds", "peak_share", "images_per_second"):
        assert float(ours[name]) > 0
    assert float(ours["milliseconds_min"]) <= float(ours["milliseconds"]) <= float(ours["milliseconds_max"])
    assert float(ours["memory_mib"]) > 100
    assert (ours["input"], ours["threads"], ours["rounds"], ours["steps"]) == ("8x8x3", "1", "2", "1")
    assert ours["tensorflow"].startswith("2.")
    assert ours["processor"]
    assert (ours["side"], float(ours["ours_ratio"])) == ("ours", 1.0)
    assert applications["milliseconds"] == ""
    assert "resnet8_cifar train      4  8x8x3  ours" in out
    assert "matrix product (the peak): " in out
    assert (
        "resnet8_cifar train, 4, 8x8x3: keras.applications left out: keras.applications has ResNet-50, -101 and -152 and "
        "their v2."
    ) in out.replace("\n", " ").replace("  ", " ")
    assert "round 2 of 2" in err
    assert [child.name for child in tmp_path.iterdir()] == ["figures.csv"]


def test_the_command_measures_inference_of_exported_models(monkeypatch, capsys, fake):
    fake.seconds |= {"ours": 0.5, "stock": 1.0}
    status, out, err = run_main(
        monkeypatch,
        capsys,
        *("benchmark", "resnet8_cifar", "--infer", "--batch-size", "2", "--image-size", "8", "--rounds", "2"),
        *("--round-seconds", "0", "--against", "stock"),
    )
    assert status == 0, err
    assert ("ExportJob", "stock") in fake.started
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
    fake.seconds |= {"ours": 3.0, "torch": SideFailed("It died.\nImportError")}
    path = tmp_path / "figures.csv"
    status, out, err = run_main(
        monkeypatch, capsys, "benchmark", "resnet8_cifar", "--against", " torch", "--rounds", "2", "--csv", path
    )
    assert status == 1
    assert err.endswith("Error: resnet8_cifar train, batch 128: It died.\n")
    assert "3000.0-3000.0" in out
    assert [row["failed"] for row in csv.DictReader(path.read_text("utf-8").splitlines())] == ["False", "True"]


def test_without_the_matrix_product_there_is_nothing(monkeypatch, capsys, fake):
    fake.seconds["matrix product"] = SideFailed("It died. The end of its log:\nImportError")
    status, out, err = run_main(monkeypatch, capsys, "benchmark", "resnet8_cifar", "--against", "none")
    assert (status, out) == (1, "")
    assert err.endswith("Error: It died. The end of its log:\nImportError\n")


def test_what_was_measured_survives_a_stop(monkeypatch, capsys, fake, tmp_path):
    fake.seconds["ours"] = 3.0
    path = tmp_path / "figures.csv"
    fake.stop_at = 8
    status, out, err = run_main(
        monkeypatch,
        capsys,
        *("benchmark", "resnet8_cifar", "--against", "none", "--batch-size", "4,8", "--rounds", "2", "--csv", path),
    )
    assert (status, err.splitlines()[-1]) == (130, "Stopped.")
    assert "3000.0-3000.0" in out
    assert [row["batch_size"] for row in csv.DictReader(path.read_text("utf-8").splitlines())] == ["4"]


def test_devices_are_named_where_they_are_not_the_cpu(monkeypatch, capsys, fake):
    fake.seconds["ours"] = 3.0
    fake.device = "gpu"
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
        (["resnet50", "--round-seconds", "-1"], "round_seconds must be at least 0 and at most 3600. Received: -1.0"),
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
