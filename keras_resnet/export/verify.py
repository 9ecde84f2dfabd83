"""Proof of an exported model: real images through the Keras model and through the files, in fresh processes."""

from __future__ import annotations

import functools
import io
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet.data.preprocess import MAX_PIXELS, decode, normalize, resize_with_pad
from keras_resnet.errors import ExportFailed
from keras_resnet.export import check
from keras_resnet.export.heads import cut_head
from keras_resnet.inputs import Preprocessing

BATCH_SIZES = (1, 7)
TOLERANCE = 1e-4  # of the largest logit, and of a probability
HALF_TOLERANCE = 5e-2  # where the network computes in 16 bits, whose rounding depends on the order of operations
ONEDNN = {"onednn": "1", "no_onednn": "0"}  # settings of TF_ENABLE_ONEDNN_OPTS by their names in export.json


@dataclass(frozen=True)
class Reference:
    """What the Keras model, with the preprocessing of training, makes of images; the other side of every comparison."""

    model: keras.Model
    preprocessing: Preprocessing | None

    @functools.cached_property
    def _cut(self) -> keras.Model:
        return cut_head(self.model)

    def compute(self, images: Any) -> dict[str, np.ndarray]:
        """Logits, probabilities and features of a batch, or of images of several sizes."""
        inputs = np.concatenate([np.asarray(self._normalize(self.resize(image[None]))) for image in images])
        logits, features = (np.asarray(y, np.float64) for y in self._cut(inputs, training=False))
        exponentials = np.exp(logits - logits.max(-1, keepdims=True))
        probabilities = exponentials / exponentials.sum(-1, keepdims=True)
        own = np.asarray(self.model(inputs, training=False), np.float64)
        tolerance = choose_tolerance(self.model)
        if not any(np.allclose(own, y, rtol=0, atol=tolerance * np.abs(y).max()) for y in (logits, probabilities)):
            raise ExportFailed(f"{self.model.name}: its output is neither its logits nor their softmax.")
        return {"logits": logits, "probabilities": probabilities, "features": features}

    def resize(self, images: Any) -> np.ndarray:
        """A batch at the network's size, float32 in the units of the input."""
        size = self.model.input_shape[1:-1] if self.preprocessing is None else self.preprocessing.image_size_pixels
        if len(size) == 1 or None in size:
            return np.asarray(images, np.float32)
        return np.asarray(resize_with_pad(images, *size))

    def _normalize(self, images: np.ndarray) -> Any:
        return images if self.preprocessing is None else normalize(images, self.preprocessing)


def choose_tolerance(model: keras.Model) -> float:
    """The difference allowed, as a share of the scale; wider where layers compute in 16 bits."""
    return TOLERANCE if all(layer.compute_dtype in ("float32", None) for layer in model.layers) else HALF_TOLERANCE


def draw_photographs(count: int, height: int, width: int, channels: int) -> np.ndarray:
    """`count` different crops of two photographs, (count, height, width, channels) uint8; scikit-learn ships them."""
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images  # two, 427x640, with colours
    crops = []
    for index in range(count):
        picture = np.asarray(photographs[index % 2])
        # The larger the index, the larger the part of the picture.
        rows = np.linspace(30 * index, 30 * index + 100 + 20 * index, height).astype(int) % picture.shape[0]
        columns = np.linspace(50 * index, 50 * index + 120 + 20 * index, width).astype(int) % picture.shape[1]
        crops.append(picture[np.ix_(rows, columns)])
    colours = np.stack(crops)
    if channels == 3:
        return colours
    gray = colours.mean(-1, keepdims=True).astype(np.uint8)
    return np.concatenate([gray, *[colours[..., c % 3, None] for c in range(1, channels)]], -1)


def encode(image: np.ndarray, kind: str) -> bytes:
    """The bytes of a PNG or JPEG file of a (height, width, 1 or 3) image."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(stream, kind)
    return stream.getvalue()


def make_cases(
    reference: Reference, signatures: Iterable[str], images: np.ndarray | None = None, max_pixels: int = MAX_PIXELS
) -> dict[str, np.ndarray]:
    """Inputs and what must come out, as `check.run_cases` takes them.

    Args:
        reference: the Keras model.
        signatures: which to call.
        images: uint8 images of one size to use; by default photographs.
        max_pixels: most that an encoded one may have.
    """
    channels = reference.model.input_shape[-1]
    cases: dict[str, np.ndarray] = {}

    def add(signature: str, name: str, inputs: np.ndarray, outputs: dict[str, np.ndarray]) -> None:
        case = f"{signature}/{len(inputs)}"
        cases[f"{case}/input/{name}"] = inputs
        kept = ("features",) if signature == "features" else ("logits", "probabilities")
        cases.update({f"{case}/output/{key}": outputs[key] for key in kept})

    for batch in make_batches(reference, images):
        outputs = reference.compute(batch)
        for signature in signatures:
            if signature == "serve_bytes":
                one_size = reference.preprocessing is None and None in reference.model.input_shape[1:3]
                rows, columns = batch.shape[1:3]
                if not one_size:
                    rows = columns = math.isqrt(max_pixels)
                elif reference.model.input_shape[1] is None:
                    rows = max(1, max_pixels // columns)
                else:
                    columns = max(1, max_pixels // rows)
                encoded = _encode_batch(batch[:, :rows, :columns], one_size=one_size)
                decoded = [np.asarray(decode(data, channels)) for data in encoded]
                add(signature, "image_bytes", np.array(encoded, np.bytes_), reference.compute(decoded))
            elif signature == "serve_float":
                add(signature, "images", batch.astype(np.float32), outputs)
            else:
                add(signature, "images" if batch.ndim == 4 else "sequences", batch, outputs)
    return cases


def make_batches(reference: Reference, images: np.ndarray | None = None) -> list[np.ndarray]:
    """One batch for each of `BATCH_SIZES`: of `images`, else of photographs; for sequences lines of these."""
    shape = reference.model.input_shape[1:]
    if images is not None:
        return [images[:count] for count in BATCH_SIZES]
    if len(shape) == 2:
        lines = [draw_photographs(count, 1, shape[0] or 1024, shape[1])[:, 0] for count in BATCH_SIZES]
        return [batch.astype(np.float32) / 127.5 - 1 for batch in lines]
    # One batch that is neither square nor of the network's size, so that it is resized and padded, and one that is not.
    own = (shape[0] or 90, shape[1] or 120)
    odd = own if reference.preprocessing is None and None in shape else (90, 120)
    return [draw_photographs(count, *size, shape[2]) for count, size in zip(BATCH_SIZES, (odd, own), strict=True)]


def _encode_batch(batch: np.ndarray, *, one_size: bool) -> list[bytes]:
    """PNG and JPEG in turns, each of another size unless the network takes images as large as they come."""
    encoded = []
    for index, image in enumerate(batch):
        height, width = (size - (0 if one_size else min(index, size // 2)) for size in image.shape[:2])
        encoded.append(encode(image[:height, :width], "JPEG" if index % 2 else "PNG"))
    return encoded


def verify_saved_model(
    path: Path, cases: dict[str, np.ndarray], class_names: Sequence[str], tolerance: float
) -> dict[str, Any]:
    """Has fresh processes, with oneDNN and without, load and run a SavedModel; returns what they found.

    Raises:
        ExportFailed: an operation that a server does not have, an error, or outputs that differ.
    """
    with tempfile.TemporaryDirectory() as scratch:
        cases_path = Path(scratch) / "cases.npz"
        np.savez(cases_path, class_names=np.array(class_names, np.str_), **cases)  # type: ignore[arg-type]
        runs = {}
        for name, setting in ONEDNN.items():
            result_path = Path(scratch) / f"{name}.json"
            environment = {
                **os.environ,
                "TF_ENABLE_ONEDNN_OPTS": setting,
                "TF_CPP_MIN_LOG_LEVEL": "2",
                "TF_XLA_FLAGS": "--tf_xla_auto_jit=-1",  # XLA off
                "CUDA_VISIBLE_DEVICES": "",
            }
            command = [sys.executable, "-P", check.__file__, str(path), str(cases_path), str(result_path)]
            runs[name] = (
                result_path,
                subprocess.Popen(
                    command,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                ),
            )
        results: dict[str, Any] = {}
        try:
            for name, (result_path, process) in runs.items():
                output, _ = process.communicate()
                if process.returncode or not result_path.exists():
                    lines = output.strip().splitlines()[-6:]
                    raise ExportFailed(
                        f"The exported model could not be run in a fresh process ({name}, exit code {process.returncode}):\n"
                        + "\n".join(lines)
                    )
                results[name] = json.loads(result_path.read_text("utf-8"))
        finally:
            for _, process in runs.values():
                process.kill()
                process.wait()
                if process.stdout:
                    process.stdout.close()
    for name, result in results.items():
        if result["odd"]:
            raise ExportFailed(
                "The exported graph must hold no operation that takes XLA, Python or a library of its own. Received: "
                f"{', '.join(result['odd'][:5])}."
            )
        check_differences(result["differences"], tolerance, name)
    return results


def check_differences(differences: dict[str, dict[str, float]], tolerance: float, where: str) -> None:
    """Raises ExportFailed where one of the differences is above `tolerance`, or no number."""
    for case, parts in differences.items():
        for output, difference in parts.items():
            if not difference <= tolerance:
                raise ExportFailed(
                    f"The exported model must give what the Keras model gives, to {tolerance:g} of the scale. Received: "
                    f"{output} of {case} ({where}) with a difference of {difference:.3g}."
                )
