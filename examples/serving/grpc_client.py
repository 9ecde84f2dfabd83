"""Classifies a directory of images over TensorFlow Serving's gRPC API and writes a CSV file.

    python examples/serving/grpc_client.py photos --model NAME [--host localhost] [--port 8500] [--output predictions.csv]

It needs grpcio, tqdm and tensorflow-serving-api (extra "serving"), whose protos import TensorFlow: some seconds at the
start. DEST/NAME, of `keras_resnet.export_saved_model(model, "DEST", name="NAME")`, is served with

    docker run -p 8500:8500 -p 8501:8501 --mount type=bind,source=/abs/DEST/NAME,target=/models/NAME \\
        -e MODEL_NAME=NAME tensorflow/serving

Columns: path, class_name and probability of the best class, class_name_2, probability_2, ..., error. A request that ends in
UNAVAILABLE, DEADLINE_EXCEEDED or RESOURCE_EXHAUSTED is tried again, each time after twice the wait. If the server refuses a
batch (INVALID_ARGUMENT), its images are sent one by one, and those refused are named. Exit status: 0 if all images were
classified, 1 if not, 130 after Ctrl-C; the rows so far are written in any case.

TensorFlow Serving itself was not run: tests/export/test_serving_clients.py runs this client against a stand-in server
that answers with the same messages.
"""

import argparse
import os
import sys

from client_common import (
    INPUT,
    SIGNATURE,
    ClientError,
    Predict,
    RefusedError,
    TryAgainError,
    address,
    run_client,
    shorten,
)

OUTPUTS = ("probabilities", "class_ids", "class_names")  # the logits stay where they are
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # 4 MB would be 48 answers of 21,841 classes
    # A channel whose connection failed answers UNAVAILABLE from memory for up to 2 minutes. Waiting is done here.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 100),
)


def main() -> int:
    return run_client(__doc__, 8500, connect)


def connect(args: argparse.Namespace) -> Predict:
    """What sends a batch as a PredictRequest and reads the PredictResponse."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow on start
    try:
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
    except ImportError as error:
        raise ClientError(
            f"This client needs grpcio and tensorflow-serving-api: pip install 'keras-native-resnet[serving]'. "
            f"Received: {error}."
        ) from error
    code = grpc.StatusCode
    worth_retrying = (code.UNAVAILABLE, code.DEADLINE_EXCEEDED, code.RESOURCE_EXHAUSTED)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(address(args), CHANNEL_OPTIONS))

    def predict(images):
        request = predict_pb2.PredictRequest(output_filter=OUTPUTS)
        request.model_spec.name = args.model
        request.model_spec.signature_name = SIGNATURE
        if args.model_version is not None:
            request.model_spec.version.value = args.model_version
        request.inputs[INPUT].CopyFrom(tf.make_tensor_proto(images, tf.string, [len(images)]))
        try:
            response = stub.Predict(request, timeout=args.timeout_seconds)
        except grpc.RpcError as error:
            received = f"{error.code().name}, {shorten(error.details() or 'no message')}"
            if error.code() in worth_retrying:
                raise TryAgainError(received) from error
            if error.code() is code.INVALID_ARGUMENT:
                raise RefusedError(received) from error
            raise ClientError(
                f"{address(args)} must take images for {SIGNATURE!r} of {args.model}. Received: {received}."
            ) from error
        probabilities, ids, names = (tf.make_ndarray(response.outputs[output]) for output in OUTPUTS)
        return [
            [(name.decode("utf-8"), float(row[index])) for index, name in zip(*best, strict=True)]
            for row, *best in zip(probabilities, ids, names, strict=True)
        ]

    return predict


if __name__ == "__main__":
    sys.exit(main())
