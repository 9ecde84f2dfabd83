"""SavedModels for TensorFlow Serving."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_resnet.data.preprocess import MAX_PIXELS
from keras_resnet.errors import ExportFailed
from keras_resnet.export import verify, warmup
from keras_resnet.export.fold import rewrite
from keras_resnet.export.folders import LABELS_FILE
from keras_resnet.export.heads import cut_head
from keras_resnet.export.record import ExportRecord, SavedModelRecord, Verified
from keras_resnet.export.reference import choose_tolerance
from keras_resnet.export.request import BATCH_SIZES, Request
from keras_resnet.export.writing import Writer, write_version
from keras_resnet.inputs import Preprocessing


def export_saved_model(
    model: keras.Model,
    path: str | os.PathLike[str],
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    *,
    name: str | None = None,
    version: int | None = None,
    warm_up: bool | None = None,
    images: Any = None,
    max_pixels: int = MAX_PIXELS,
) -> Path:
    """`softmax(network(preprocess(images)))` as `path/name/version/`, a SavedModel that TensorFlow Serving loads.

    Signatures, all of dynamic batch: `serving_default` (uint8 `images`, (batch, height, width, channels), any size),
    `serve_float` (the same, float32) and `serve_bytes` (`image_bytes`, PNG or JPEG files; for 1 and 3 channels) give
    `probabilities` and `logits`, (batch, classes), `class_ids` and `class_names`, (batch, min(5, classes)), by falling
    probability; `features` gives the pooled embedding of uint8 `images`. A network of sequences has `serving_default` and
    `features` of float32 `sequences`, (batch, steps, channels). BN is folded (`fold_batchnorm`), weights are constants.
    Without preprocessing, a network with an open side takes images as large as they come: of its fixed side, and all
    files of a `serve_bytes` batch of one size; others are an error.

    What was written is run before it gets its name: in fresh processes with TensorFlow alone, with oneDNN and without,
    every signature at batch 1 and 7 against the Keras model, and every warm-up request.

    Args:
        model: ends in logits or a softmax; it is left as it is.
        path: the folder over all models.
        preprocessing: what the network saw in training; None resizes with pad to the network's input and scales
            nothing.
        class_names: of the outputs, by default "0", "1", ...; also stored in `assets/labels.txt`, one per line.
        name: of the model's folder, by default the model's.
        version: of the model, by default the one after the highest there.
        warm_up: whether to write warm-up requests, which takes tensorflow-serving-api (extra "serving"); by default where
            it is installed.
        images: uint8 (at least 7, height, width, channels) to verify with; by default crops of photographs.
        max_pixels: height times width above which `serve_bytes` refuses an image.

    Returns:
        The version's folder; what was verified is in its `export.json`.

    Raises:
        InputError: a version that exists, class names that do not fit, a model without logits, ...
        ExportFailed: what was written cannot be served or differs from the model; nothing is left of it.
        SaveError: no permission, a full disk; nothing is left.
    """
    request = Request(
        model,
        path,
        "saved_model",
        preprocessing,
        class_names,
        name=name,
        version=version,
        images=images,
        warm_up=warm_up,
        max_pixels=max_pixels,
    )
    return write_version(SavedModelWriter(request))


class SavedModelWriter(Writer):
    """Preprocessing, folded network and head as one graph, with signatures and warm-up requests."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._network = cut_head(rewrite(request.model, native_groups=True, pair_groups=True, slice_pools=True))
        self._signatures: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Writes the SavedModel, with the class names as an asset."""
        import tensorflow as tf

        from keras_resnet.export.signatures import ServedModel

        with tempfile.TemporaryDirectory() as scratch:
            labels = Path(scratch) / LABELS_FILE  # TensorFlow copies it
            self.request.write_labels(labels)
            served = ServedModel(self._network, self.request, labels)
            signatures = served.make_signatures()
            tf.saved_model.save(served, str(folder), signatures=signatures)
        self._signatures = tuple(signatures)

    def verify(self, folder: Path, **common: Any) -> ExportRecord:
        """Has fresh processes call every signature, and answer the warm-up requests that are written first."""
        request = self.request
        cases = self.reference.make_cases(self._signatures)
        requests = warmup.write_warmup(folder, str(request.name), cases) if request.warm_up else 0
        tolerance = choose_tolerance(request.model)
        results = verify.verify_saved_model(folder, cases, request.head.class_names, tolerance)
        answered = [result.warmup for result in results.values()]
        if any(count != requests for count in answered):
            raise ExportFailed(f"All {requests} warm-up requests must be answered. Received: {answered} answers.")
        return SavedModelRecord(
            **common,
            signatures=tuple(sorted(self._signatures)),
            max_pixels=request.max_pixels,
            warm_up_requests=requests,
            verified=Verified(
                BATCH_SIZES, tolerance, {setting: result.differences for setting, result in results.items()}
            ),
        )
