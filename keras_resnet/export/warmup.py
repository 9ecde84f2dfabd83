"""Warm-up requests, which TensorFlow Serving answers before it takes a new version into service."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from keras_resnet.errors import InputError, check_installed
from keras_resnet.export.check import WARMUP_FILE

log = logging.getLogger(__name__)


def choose_warm_up(asked: bool | None) -> bool:
    """Whether to write requests: as asked, by default where tensorflow-serving-api is; InputError where it is missing."""
    if asked is False:
        return False
    try:
        check_installed("Writing warm-up requests", ("tensorflow_serving",), "serving")
    except InputError:
        if asked:
            raise
        log.info("without tensorflow-serving-api (extra 'serving') no warm-up requests are written")
        return False
    return True


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
