"""Which versions of what made a result."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_ALWAYS = ("keras-native-resnet", "keras", "tensorflow")


def describe_versions(*packages: str) -> dict[str, str]:
    """Versions of Python, of this package, Keras and TensorFlow, and of `packages`, by their name."""
    versions = {"python": platform.python_version()}
    for package in (*_ALWAYS, *packages):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
