"""What importing the package does: nothing heavy, oneDNN on, and a word about its namesake."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _run(code, **environment):
    whole = {key: value for key, value in os.environ.items() if key != "TF_ENABLE_ONEDNN_OPTS"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**whole, **environment}, check=False
    )


@pytest.mark.parametrize("name", ["keras_resnet-0.2.0.dist-info", "keras_resnet-0.2.0-py3.11.egg-info"])
def test_the_old_package_of_this_name_is_named(tmp_path, name):
    (tmp_path / name).mkdir()
    done = _run("import keras_resnet", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert (
        "ImportError: The old Keras 2 package keras-resnet 0.2.0 is installed under the same import name" in done.stderr
    )
    assert "pip uninstall -y keras-resnet keras-native-resnet" in done.stderr


def test_onednn_is_turned_on_unless_the_user_has_set_it():
    code = "import keras_resnet, os; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    assert _run(code).stdout.strip() == "1"
    assert _run(code, TF_ENABLE_ONEDNN_OPTS="0").stdout.strip() == "0"
    late = (
        "import sys, os; sys.modules['tensorflow'] = object(); import keras_resnet;"
        "print('TF_ENABLE_ONEDNN_OPTS' in os.environ)"
    )
    assert _run(late).stdout.strip() == "False"


def test_the_version_is_that_of_the_distribution():
    stated = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert _run("import keras_resnet; print(keras_resnet.__version__)").stdout.strip() == stated


def test_an_unknown_name_is_an_attribute_error():
    done = _run("import keras_resnet; keras_resnet.ResNet50")
    assert "AttributeError: module 'keras_resnet' has no attribute 'ResNet50'" in done.stderr


def test_every_dependency_has_a_tested_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [
        *project["dependencies"],
        *(each for name in extras if name not in ("gpu", "dev") for each in extras[name]),
    ]
    pinned = re.findall(r"^([\w.-]+)==\d\S*$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    assert {re.match(r"[\w.-]+", each)[0] for each in asked} <= set(pinned)


def test_the_changelog_has_the_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text("utf-8")
