"""Bad input, as TensorFlow Serving would feed it: an error that says so, and never an answer."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from image_files import BAD_FILES, PICTURE, read_bad_file
from PIL import Image
from server import Server, check_refused
from serving import COLOUR, as_bytes, draw, encode, network


@pytest.mark.parametrize("bad", BAD_FILES)
def test_a_bad_file_is_an_error(colour, gray, plain, bad):
    file, message = read_bad_file(bad)
    good = encode(PICTURE)
    assert colour.server("serve_bytes", as_bytes(good))["logits"].shape == (1, 7)
    check_refused(colour.server, "serve_bytes", as_bytes(file), message)
    check_refused(colour.server, "serve_bytes", as_bytes(good, file, good), message)
    for served in (gray, plain):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            served.server("serve_bytes", as_bytes(good, file))


def test_the_limit_of_pixels_is_that_of_the_export(tmp_path, export):
    server = Server(export(network(), tmp_path, COLOUR, max_pixels=20_000, warm_up=False))
    assert server("serve_bytes", as_bytes(encode(Image.new("RGB", (100, 200)))))["logits"].shape == (1, 7)
    for kind in ("PNG", "JPEG"):
        large = encode(Image.new("RGB", (100, 201)), kind)
        check_refused(server, "serve_bytes", as_bytes(large), r"at most 20,000 pixels. Received, .*:\W+201\W+100\W")


@pytest.mark.parametrize("which", ["colour", "gray", "plain"])
def test_an_empty_batch_is_an_error(request, which):
    served = request.getfixturevalue(which)
    channels = served.model.input_shape[-1]
    check_refused(served.server, "serve_bytes", as_bytes(), r"image_bytes must hold at least one image. Received: none")
    for signature, kind in (("serving_default", np.uint8), ("serve_float", np.float32), ("features", np.uint8)):
        message = rf"images must be \(batch, height, width, {channels}\), no side 0. Received the shape:"
        for size in ((8, 10), (8, 8), (5, 5)):
            check_refused(served.server, signature, np.zeros((0, *size, channels), kind), message)


@pytest.mark.parametrize("signature", ["serving_default", "serve_float", "features"])
@pytest.mark.parametrize("which", ["colour", "gray", "plain"])
def test_a_shape_that_does_not_fit_is_an_error(request, which, signature):
    served = request.getfixturevalue(which)
    channels = served.model.input_shape[-1]
    kind = np.float32 if signature == "serve_float" else np.uint8
    shapes = [(1, 0, 8, channels), (1, 8, 0, channels), (2, 0, 0, channels)]
    # The network's own size and others, and channels that only differ in how the same bytes are cut up.
    shapes += [(2, *size, c) for size in ((8, 10), (8, 8), (5, 7)) for c in (0, 1, 2, 3, 4, 6) if c != channels]
    for shape in shapes:
        told = r"\W+".join(map(str, shape))  # all of it: the last number is the one that is wrong
        message = rf"images must be \(batch, height, width, {channels}\), no side 0. Received the shape:\W+{told}\W"
        check_refused(served.server, signature, np.ones(shape, kind), message)


@pytest.mark.parametrize("signature", ["serving_default", "serve_float", "features"])
@pytest.mark.parametrize("which", ["colour", "gray"])
def test_a_batch_of_another_rank_is_an_error(request, which, signature):
    served = request.getfixturevalue(which)
    height, width, channels = served.model.input_shape[1:]
    kind = np.float32 if signature == "serve_float" else np.uint8
    for shape in (
        (height, width, channels),  # one image, and no batch
        (height * width * channels,),
        (),
        (1, 1, height, width, channels),
        (1, height, width, channels, 1),
        (1, height, width, channels, channels),
    ):
        message = rf"images must be \(batch, height, width, {channels}\)"
        check_refused(served.server, signature, np.ones(shape, kind), message)


RANKS = """
import sys
import numpy as np
from server import Server, check_refused
server = Server(sys.argv[1])
for signature, kind in (("serving_default", np.uint8), ("serve_float", np.float32), ("features", np.uint8)):
    for shape in ((8, 8, 3), (192,), (), (1, 1, 8, 8, 3), (1, 8, 8, 3, 3), (1, 8, 8, 3, 1)):
        check_refused(server, signature, np.ones(shape, kind), r"images must be \\(batch, height, width, 3\\)")
        print(signature, shape, flush=True)
print("all", flush=True)
"""


def test_another_rank_does_not_end_the_server(plain):
    """In a process of its own: oneDNN's convolution ends the process on an input of another rank."""
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", RANKS, str(plain.path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("all\n"), (done.returncode, done.stdout, done.stderr[-2000:])


def test_files_in_another_rank_are_an_error(colour):
    file = encode(PICTURE)
    for value in (np.array(file, object), np.array([[file, file]], object), np.array([[file], [file]], object)):
        check_refused(colour.server, "serve_bytes", value, None)


@pytest.mark.parametrize("size", [(8, 10), (9, 11)])
@pytest.mark.parametrize("which", ["colour", "gray", "plain"])
def test_pixels_that_are_no_numbers_are_an_error(request, which, size):
    served = request.getfixturevalue(which)
    images = draw(3, *size, served.model.input_shape[-1]).astype(np.float32)
    for value, told in ((np.nan, "NaN"), (np.inf, "Inf"), (-np.inf, "Inf")):
        images[1, 4, 5, 0] = value  # in one image of three
        check_refused(served.server, "serve_float", images, rf"images must hold numbers. Received.*{told}")


@pytest.mark.parametrize("size", [(8, 10), (9, 11)])
@pytest.mark.parametrize("which", ["colour", "gray"])
def test_pixels_outside_of_what_pixels_are_in_are_an_error(request, which, size):
    served = request.getfixturevalue(which)
    for value in (-0.01, -300, 255.5, 1e30):
        images = np.full((3, *size, served.model.input_shape[-1]), 100, np.float32)
        images[1, 4, 5, 0] = value
        low, high = (_pattern(x) for x in (min(value, 100), max(value, 100)))
        message = rf"images must hold pixel values from 0 to 255. Received, lowest and highest:\W+{low}\W+{high}\W"
        check_refused(served.server, "serve_float", images, message)
    for value in (0, 255):
        images = np.full((1, *size, served.model.input_shape[-1]), value, np.float32)
        assert np.isfinite(served.server("serve_float", images)["logits"]).all()


def _pattern(value):
    """As TensorFlow prints it, for a pattern; a minus sign is no word and is passed over."""
    return f"{abs(value):g}".replace(".", r"\.").replace("+", r"\+")


def test_sequences_that_do_not_fit_are_an_error(line):
    for signature in ("serving_default", "features"):
        for shape in ((0, 16, 2), (2, 0, 2), (2, 15, 2), (2, 16, 1), (2, 16, 3), (2, 32, 1), (16, 2), (1, 1, 16, 2)):
            message = r"sequences must be \(batch, 16, 2\), no side 0. Received the shape:"
            check_refused(line.server, signature, np.ones(shape, np.float32), message)
        x = np.zeros((2, 16, 2), np.float32)
        x[1, 3, 1] = np.nan
        check_refused(line.server, signature, x, r"sequences must hold numbers. Received.*NaN")


def test_good_input_is_answered_after_bad(colour):
    images = draw(2, 9, 9)
    before = colour.server("serving_default", images)
    with pytest.raises(tf.errors.InvalidArgumentError):
        colour.server("serving_default", images[:0])
    after = colour.server("serving_default", images)
    assert all(np.array_equal(before[name], after[name]) for name in before)
