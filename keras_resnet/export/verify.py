"""The proof of an exported model: fresh processes run a SavedModel, its own runtime another file, and both are compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.errors import ExportFailed
from keras_resnet.export import check
from keras_resnet.export.reference import Case, Reference
from keras_resnet.export.request import Runner
from keras_resnet.records import Record

ONEDNN = {"onednn": "1", "no_onednn": "0"}  # settings of TF_ENABLE_ONEDNN_OPTS by their names in export.json


@dataclass(frozen=True)
class Checked(Record):
    """What one process found in a SavedModel."""

    odd: tuple[str, ...]  # operations that a server does not have; nothing was run where there are some
    differences: dict[str, dict[str, float]] = field(default_factory=dict)  # by "signature/batch" and output
    warmup: int = 0  # warm-up requests that were answered


def verify_saved_model(
    folder: Path, cases: Sequence[Case], class_names: Sequence[str], tolerance: float
) -> dict[str, Checked]:
    """Has fresh processes, with oneDNN and without, load and run a SavedModel; returns what each found.

    Raises:
        ExportFailed: an operation that a server does not have, an error, or outputs that differ.
    """
    arrays = {key: array for case in cases for key, array in case.to_arrays().items()}
    results = run_processes(folder, {"class_names": np.array(class_names, np.str_), **arrays})
    for name, result in results.items():
        if result.odd:
            raise ExportFailed(
                "The exported graph must hold no operation that takes XLA, Python or a library of its own. Received: "
                f"{', '.join(result.odd[:5])}."
            )
        check_differences(result.differences, tolerance, name)
    return results


def run_processes(folder: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Checked]:
    """Runs `check.py` on a SavedModel in a fresh process for each setting of oneDNN, all at once.

    Args:
        folder: of the SavedModel.
        arrays: `class_names`, and what `Case.to_arrays` gives.

    Raises:
        ExportFailed: a process that ended with an error, with its last words.
    """
    processes: dict[str, subprocess.Popen[str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        cases = Path(scratch) / "cases.npz"
        np.savez(cases, **arrays)  # type: ignore[arg-type]
        paths = {name: Path(scratch) / f"{name}.json" for name in ONEDNN}
        try:
            for name, setting in ONEDNN.items():
                processes[name] = _start([folder, cases, paths[name]], setting)
            return {name: _finish(name, process, paths[name]) for name, process in processes.items()}
        finally:
            for process in processes.values():
                with process:  # which waits, and closes its pipe
                    process.kill()


def _start(arguments: Sequence[Path], onednn: str) -> subprocess.Popen[str]:
    """`check.py` in a process that has neither a GPU nor XLA."""
    environment = {
        **os.environ,
        "TF_ENABLE_ONEDNN_OPTS": onednn,
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_XLA_FLAGS": "--tf_xla_auto_jit=-1",  # XLA off
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.Popen(
        [sys.executable, "-P", check.__file__, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def _finish(name: str, process: subprocess.Popen[str], result_path: Path) -> Checked:
    """Waits for a process; returns what it found."""
    output, _ = process.communicate()
    if process.returncode or not result_path.exists():
        raise ExportFailed(
            f"The exported model could not be run in a fresh process ({name}, exit code {process.returncode}):\n"
            + "\n".join(output.strip().splitlines()[-6:])
        )
    return Checked.from_dict(json.loads(result_path.read_text("utf-8")))


def verify_runner(run: Runner, reference: Reference, tolerance: float | None) -> dict[str, dict[str, float]]:
    """Runs an exported file on the reference's batches; returns the largest differences by batch and output.

    Args:
        run: the file, loaded by its runtime.
        reference: what must come out.
        tolerance: None allows any difference.

    Raises:
        ExportFailed: the file cannot be run, or its outputs differ.
    """
    format = reference.request.format
    differences: dict[str, dict[str, float]] = {}
    for batch in reference.make_batches():
        wanted = reference.compute(batch)
        try:
            found: Any = run(reference.resize(batch))
            differences[f"batch {len(batch)}"] = {
                name: check.compare(found[name], name, wanted[name]) for name in reference.request.head.compared
            }
        except (RuntimeError, ValueError, KeyError) as error:
            raise ExportFailed(f"The exported {format} file could not be run: {error}") from error
    if tolerance is not None:
        check_differences(differences, tolerance, format)
    return differences


def check_differences(differences: dict[str, dict[str, float]], tolerance: float, where: str) -> None:
    """Raises ExportFailed where one of the differences is above `tolerance`, or no number."""
    for case, parts in differences.items():
        for output, difference in parts.items():
            if not difference <= tolerance:
                raise ExportFailed(
                    f"The exported model must give what the Keras model gives, to {tolerance:g} of the scale. Received: "
                    f"{output} of {case} ({where}) with a difference of {difference:.3g}."
                )
