"""Decoding of image files, which is one function in training and in serving."""

import numpy as np
import pytest
import tensorflow as tf
from image_files import BAD_FILES, KINDS, PICTURE, read_bad_file
from serving import encode

from keras_resnet.data import decode


@tf.function
def _decode_in_graph(file):
    return decode(file, 3)


@pytest.mark.parametrize("where", ["eagerly", "function", "dataset"])
@pytest.mark.parametrize("bad", BAD_FILES)
def test_decoding_a_bad_file_is_an_error(where, bad):
    file, message = read_bad_file(bad)
    call = {
        "eagerly": lambda: decode(file, 3),
        "function": lambda: _decode_in_graph(tf.constant(file)),
        "dataset": lambda: next(iter(tf.data.Dataset.from_tensors(file).map(_decode_in_graph))),
    }[where]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        call()


def test_the_limit_of_pixels_is_an_argument():
    file = encode(PICTURE)
    assert decode(file, 3, max_pixels=600).shape == (20, 30, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"at most 599 pixels. Received, .*:\W+20\W+30$"):
        decode(file, 3, max_pixels=599)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_decoded_as_pillow_does(kind, channels):
    file, wanted = KINDS[kind]
    wanted = wanted.astype(np.float64)
    if channels == 1 and wanted.ndim == 3:
        wanted = wanted @ [0.299, 0.587, 0.114]
    wanted = wanted.reshape(20, 30, -1)
    found = np.asarray(decode(file, channels), np.float64)
    assert found.shape == (20, 30, channels)
    # A JPEG's pixels differ between decoders, whose transforms round otherwise; so does a gray made of three colours.
    limit = 4 if "jpeg" in kind else 1.5 * (channels == 1)
    assert np.abs(found - wanted).max() <= limit
    assert np.abs(found - wanted).mean() < 1
