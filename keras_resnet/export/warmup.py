"""Warm-up requests, which TensorFlow Serving answers before it takes a new version into service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from keras_resnet.export.check import WARMUP_FILE
from keras_resnet.export.reference import Case


def write_warmup(saved_model: Path, name: str, cases: Sequence[Case]) -> int:
    """Writes the inputs of `cases` as `assets.extra/tf_serving_warmup_requests`; returns the number of requests.

    The format is TensorFlow Serving's: a TFRecord file of PredictionLog protos, at most 1,000 of them.
    """
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    path = saved_model / WARMUP_FILE
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for case in cases:
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = name
            request.model_spec.signature_name = case.signature
            request.inputs[case.name].CopyFrom(tf.make_tensor_proto(case.value))
            writer.write(log.SerializeToString())
    return len(cases)
