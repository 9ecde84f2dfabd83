"""Warm-up requests, which TensorFlow Serving answers before it takes a new version into service."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from keras_resnet.errors import InputError
from keras_resnet.export.check import WARMUP_FILE


def has_serving_protos() -> bool:
    """Whether tensorflow-serving-api is installed."""
    return importlib.util.find_spec("tensorflow_serving") is not None


def check_serving_protos() -> None:
    """Raises InputError, saying how to install it, where tensorflow-serving-api is missing."""
    if not has_serving_protos():
        raise InputError(
            "Warm-up requests need the package tensorflow-serving-api: pip install 'keras-native-resnet[serving]'. "
            "Received: an environment without it."
        )


def write_warmup(saved_model: Path, name: str, cases: dict[str, np.ndarray]) -> int:
    """Writes the inputs of `cases` as `assets.extra/tf_serving_warmup_requests`; returns how many requests these are.

    The format is TensorFlow Serving's: a TFRecord file of PredictionLog protos, at most 1,000 of them.
    """
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    path = saved_model / WARMUP_FILE
    path.parent.mkdir()
    count = 0
    with tf.io.TFRecordWriter(str(path)) as writer:
        for key, value in cases.items():
            if "/input/" not in key:
                continue
            signature, _, _, input_name = key.split("/")
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = name
            request.model_spec.signature_name = signature
            request.inputs[input_name].CopyFrom(tf.make_tensor_proto(value))
            writer.write(log.SerializeToString())
            count += 1
    return count
