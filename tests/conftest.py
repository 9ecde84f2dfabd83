"""Shared by all tests: the opt-in for slow ones, small data, one trained run."""

import os
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from helpers import draw_images
from hypothesis import HealthCheck, settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras_resnet  # noqa: F401 - before TensorFlow, so that oneDNN is on as for a user

# A shell that starts the tests in the background has SIGINT ignored, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No property depends on the machine's speed or on the day.
settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# Decoded sets of the tests stay out of the user's own cache.
_CACHE = tempfile.TemporaryDirectory(prefix="keras_resnet_test_cache_")
os.environ["KERAS_RESNET_CACHE"] = _CACHE.name


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes each")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="takes minutes; run with --slow"))


@pytest.fixture(scope="session")
def tfds_dir():
    """The folder of prepared TFDS sets, where there is one."""
    here = Path(os.environ.get("TFDS_DATA_DIR") or Path(__file__).parents[2] / "shared" / "tensorflow_datasets")
    if not (here / "mnist").is_dir():
        pytest.skip("no prepared TFDS sets: set TFDS_DATA_DIR to a folder that has mnist")
    return here


@pytest.fixture(scope="session")
def npz(tmp_path_factory):
    """An .npz of 96 training and 24 test images, 8x8, 3 classes."""
    path = tmp_path_factory.mktemp("npz") / "shades.npz"
    x_train, y_train = draw_images(96, 8, 8, 1, 3, seed=1)
    x_test, y_test = draw_images(24, 8, 8, 1, 3, seed=2)
    np.savez(
        path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, class_names=["dark", "gray", "light"]
    )
    return path


@pytest.fixture(scope="session")
def run(npz, tmp_path_factory):
    """A finished run of the smallest CIFAR form on `npz`."""
    from keras_resnet import jobs

    return jobs.train(
        npz,
        model="resnet8_cifar",
        run_dir=tmp_path_factory.mktemp("runs") / "run",
        recipe={"epochs": 3, "batch_size": 16, "seed": 3},
        verbose=0,
    )
