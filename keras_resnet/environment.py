"""What a result was made with: versions, machine, cores."""

from __future__ import annotations

import contextlib
import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from keras_resnet.records import Record, check_types

_ALWAYS = ("keras-native-resnet", "keras", "tensorflow")
# What decides a result beyond Keras and TensorFlow.
RESULT_PACKAGES = ("tensorflow-datasets", "numpy", "scikit-learn")


def describe_versions(*packages: str) -> dict[str, str]:
    """Versions of Python, of this package, Keras and TensorFlow, and of `packages`, by their name."""
    versions = {"python": platform.python_version()}
    for package in (*_ALWAYS, *packages):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Machine(Record):
    """A computer, as far as its system tells."""

    system: str  # "Linux", "Darwin", "Windows"
    processor: str
    cores: int  # that the process may use
    memory_gib: float
    accelerators: tuple[str, ...]  # names of what TensorFlow sees beside the processor
    onednn: str  # TF_ENABLE_ONEDNN_OPTS, or that TensorFlow decides

    def __post_init__(self) -> None:
        check_types(self)


def describe_machine() -> Machine:
    """The machine that this process runs on; loads TensorFlow."""
    import psutil
    import tensorflow as tf

    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        processor = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), processor)
    return Machine(
        system=platform.system(),
        processor=processor,
        cores=count_cores(),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        accelerators=tuple(
            tf.config.experimental.get_device_details(device).get("device_name", device.name)
            for device in tf.config.list_physical_devices()
            if device.device_type != "CPU"
        ),
        onednn=os.environ.get("TF_ENABLE_ONEDNN_OPTS", "TensorFlow's default"),
    )
