"""What the Keras model makes of real images: the side that every exported file is compared with."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_resnet.data.preprocess import decode, normalize, resize_with_pad
from keras_resnet.errors import ExportFailed
from keras_resnet.export.request import BATCH_SIZES, Request

TOLERANCE = 1e-4  # of the largest logit, and of a probability
HALF_TOLERANCE = 5e-2  # where the network computes in 16 bits, whose rounding depends on the order of operations


@dataclass(frozen=True)
class Reference:
    """The Keras model with the preprocessing of training."""

    request: Request

    @property
    def _fixed_size(self) -> tuple[int, int] | None:
        """(height, width) that images get; None where they, or sequences, stay as they are."""
        if self.request.preprocessing is not None:
            return self.request.preprocessing.image_size_pixels
        height, *others, _ = self.request.input_shape
        return (height, others[0]) if others and height is not None and others[0] is not None else None

    def compute(self, images: Any) -> dict[str, np.ndarray]:
        """Outputs by name, and `features`, of a batch or of images of several sizes."""
        request = self.request
        inputs = np.concatenate([np.asarray(self._normalize(self.resize(image[None]))) for image in images])
        logits, features = (np.asarray(y, np.float64) for y in request.network(inputs, training=False))
        outputs = request.head.compute(logits)
        own = np.asarray(request.model(inputs, training=False), np.float64)
        tolerance = choose_tolerance(request.model)
        if not any(np.allclose(own, y, rtol=0, atol=tolerance * np.abs(y).max()) for y in outputs.values()):
            raise ExportFailed(f"{request.model.name}: its output is neither its logits nor their softmax.")
        return {**outputs, "features": features}

    def resize(self, images: Any) -> np.ndarray:
        """A batch at the network's size, float32 in the units of the input."""
        size = self._fixed_size
        return np.asarray(images, np.float32) if size is None else np.asarray(resize_with_pad(images, *size))

    def _normalize(self, images: np.ndarray) -> Any:
        return images if self.request.preprocessing is None else normalize(images, self.request.preprocessing)

    def make_batches(self) -> list[np.ndarray]:
        """One batch for each of `BATCH_SIZES`: of the request's images, else of photographs; for sequences their lines."""
        shape, images = self.request.input_shape, self.request.images
        if images is not None:
            return [images[:count] for count in BATCH_SIZES]
        channels = shape[-1]
        assert channels is not None, "a convolution knows its channels"
        if len(shape) == 2:
            lines = [draw_photographs(count, 1, shape[0] or 1024, channels)[:, 0] for count in BATCH_SIZES]
            return [batch.astype(np.float32) / 127.5 - 1 for batch in lines]
        # The first batch is neither square nor of the network's size, so that it is resized and padded where images
        # are; the second is of the network's size.
        own = (shape[0] or 90, shape[1] or 120)
        first = own if self._fixed_size is None else (90, 120)
        return [draw_photographs(count, *size, channels) for count, size in zip(BATCH_SIZES, (first, own), strict=True)]

    def make_cases(self, signatures: Iterable[str]) -> list[Case]:
        """What to feed to each of a SavedModel's signatures, and what must come out."""
        cases = []
        for batch in self.make_batches():
            outputs = self.compute(batch)
            for signature in signatures:
                if signature == "serve_bytes":
                    cases.append(self._make_bytes_case(batch))
                    continue
                name = "images" if batch.ndim == 4 else "sequences"
                fed = batch.astype(np.float32) if signature == "serve_float" else batch
                cases.append(Case(signature, name, fed, self._select(outputs, signature)))
        return cases

    def _select(self, outputs: dict[str, np.ndarray], signature: str) -> dict[str, np.ndarray]:
        """Of all outputs those that a signature has."""
        names = ("features",) if signature == "features" else self.request.head.compared
        return {name: outputs[name] for name in names}

    def _make_bytes_case(self, batch: np.ndarray) -> Case:
        """PNG and JPEG files of a batch cut to `max_pixels`, and what comes of them as they are decoded."""
        limit, (rows, columns) = self.request.max_pixels, batch.shape[1:3]
        one_size = self._fixed_size is None
        if not one_size:
            rows = columns = math.isqrt(limit)
        elif self.request.input_shape[0] is None:
            rows = max(1, limit // columns)
        else:
            columns = max(1, limit // rows)
        files = _encode_batch(batch[:, :rows, :columns], one_size=one_size)
        outputs = self.compute([np.asarray(decode(file, batch.shape[-1])) for file in files])
        return Case("serve_bytes", "image_bytes", np.array(files, np.bytes_), self._select(outputs, "serve_bytes"))


@dataclass(frozen=True, eq=False)
class Case:
    """One call of a signature: its input and what must come out."""

    signature: str
    name: str  # of the input
    value: np.ndarray  # (batch, ...)
    outputs: dict[str, np.ndarray]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """As `check.run_cases` reads it: by "signature/batch/input/name" and "signature/batch/output/name"."""
        case = f"{self.signature}/{len(self.value)}"
        outputs = {f"{case}/output/{name}": value for name, value in self.outputs.items()}
        return {f"{case}/input/{self.name}": self.value, **outputs}


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


def _encode_batch(batch: np.ndarray, *, one_size: bool) -> list[bytes]:
    """PNG and JPEG in turns, each of another size unless the network takes images as large as they come."""
    encoded = []
    for index, image in enumerate(batch):
        height, width = (size - (0 if one_size else min(index, size // 2)) for size in image.shape[:2])
        encoded.append(encode(image[:height, :width], "JPEG" if index % 2 else "PNG"))
    return encoded
