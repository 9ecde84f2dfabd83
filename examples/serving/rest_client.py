"""Classifies a directory of images over TensorFlow Serving's REST API and writes a CSV file.

    python examples/serving/rest_client.py photos --model NAME [--host localhost] [--port 8501] [--output predictions.csv]

It needs requests and tqdm, not TensorFlow. DEST/NAME, of `keras_resnet.export_saved_model(model, "DEST", name="NAME")`, is
served with

    docker run -p 8500:8500 -p 8501:8501 --mount type=bind,source=/abs/DEST/NAME,target=/models/NAME \\
        -e MODEL_NAME=NAME tensorflow/serving

Columns: path, class_name and probability of the best class, class_name_2, probability_2, ..., error. A request that finds
no server, no answer in time, 429, 503 or 504 is tried again, each time after twice the wait. If the server refuses a batch
(400), its images are sent one by one, and those refused are named. Exit status: 0 if all images were classified, 1 if not,
130 after Ctrl-C; the rows so far are written in any case.

TensorFlow Serving itself was not run: tests/export/test_serving_clients.py runs this client against a stand-in server
that answers with the same messages.
"""

import argparse
import base64
import sys
from urllib.parse import quote

import requests
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

WORTH_RETRYING = (429, 503, 504)  # RESOURCE_EXHAUSTED, UNAVAILABLE, DEADLINE_EXCEEDED
# TensorFlow Serving's 400 for a model without the signature: no image is to blame for it.
NO_SIGNATURE = f'"{SIGNATURE}" not found'


def main() -> int:
    return run_client(__doc__, 8501, connect)


def connect(args: argparse.Namespace) -> Predict:
    """What sends a batch as JSON and reads the answer."""
    version = "" if args.model_version is None else f"/versions/{args.model_version}"
    url = f"http://{address(args)}/v1/models/{quote(args.model, safe='')}{version}:predict"
    session = requests.Session()

    def predict(images):
        instances = [{INPUT: {"b64": base64.b64encode(image).decode("ascii")}} for image in images]
        body = {"signature_name": SIGNATURE, "instances": instances}
        try:
            response = session.post(url, json=body, timeout=args.timeout_seconds)
        except requests.Timeout as error:
            raise TryAgainError(f"no answer within {args.timeout_seconds:g} s") from error
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            raise TryAgainError(_first_cause(error)) from error
        except requests.RequestException as error:
            raise ClientError(f"{url} could not be asked: {shorten(str(error))}.") from error
        if response.status_code == 200:
            return _read_answers(response)
        received = f"{response.status_code}, {_read_error(response)}"
        if response.status_code in WORTH_RETRYING:
            raise TryAgainError(received)
        if response.status_code == 400 and NO_SIGNATURE not in received:
            raise RefusedError(received)
        raise ClientError(f"{url} must take images for {SIGNATURE!r}. Received: {received}.")

    return predict


def _read_answers(response):
    try:
        return [
            [
                (name, row["probabilities"][index])
                for index, name in zip(row["class_ids"], row["class_names"], strict=True)
            ]
            for row in response.json()["predictions"]
        ]
    except (ValueError, LookupError, TypeError) as error:
        raise ClientError(
            f"{response.url} must answer with probabilities, class_ids and class_names. Received: {shorten(response.text)}."
        ) from error


def _read_error(response):
    try:
        return shorten(response.json()["error"])
    except (ValueError, LookupError, TypeError):  # not TensorFlow Serving: a proxy, another program on this port
        return shorten(response.text) or "no message"


def _first_cause(error):
    """What the operating system said, which requests and urllib3 wrap in errors of their own."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return shorten(str(error))


if __name__ == "__main__":
    sys.exit(main())
