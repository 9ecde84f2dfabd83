"""SavedModels as TensorFlow Serving sees them: their signatures, and what these answer."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image
from server import Server, check_refused
from serving import (
    COLOUR,
    GRAY,
    NAMES,
    as_bytes,
    check_answer,
    describe,
    draw,
    encode,
    network,
)

from keras_resnet.data import decode, preprocess
from keras_resnet.export import export_saved_model


def test_signatures_of_images(colour):
    images = [-1, -1, -1, 3]
    classified = {
        "probabilities": ("float32", [-1, 7]),
        "logits": ("float32", [-1, 7]),
        "class_ids": ("int64", [-1, 5]),
        "class_names": ("string", [-1, 5]),
    }
    found = {
        name: (describe(signature.inputs), describe(signature.outputs), signature.method_name)
        for name, signature in colour.server.signatures.items()
    }
    method = "tensorflow/serving/predict"
    assert found == {
        "serving_default": ({"images": ("uint8", images)}, classified, method),
        "serve_float": ({"images": ("float32", images)}, classified, method),
        "serve_bytes": ({"image_bytes": ("string", [-1])}, classified, method),
        "features": ({"images": ("uint8", images)}, {"features": ("float32", [-1, 6])}, method),
    }


def test_signatures_of_sequences(line):
    assert set(line.server.signatures) == {"serving_default", "features"}
    assert describe(line.server.signatures["serving_default"].inputs) == {"sequences": ("float32", [-1, 16, 2])}
    assert describe(line.server.signatures["features"].outputs) == {"features": ("float32", [-1, 4])}


def test_more_channels_than_an_encoded_image_has(tmp_path, export):
    server = Server(export(network((8, 8, 4), 3), tmp_path))
    assert set(server.signatures) == {"serving_default", "serve_float", "features"}
    assert server("serving_default", draw(1, 5, 5, 4))["logits"].shape == (1, 3)


@pytest.mark.parametrize("size", [(8, 10), (8, 8), (5, 7), (31, 17), (1, 40), (1, 1), (64, 80)])
@pytest.mark.parametrize("which", ["colour", "gray"])
def test_images_of_any_size_are_classified_as_keras_does(request, which, size):
    served = request.getfixturevalue(which)
    channels = served.preprocessing.channels
    for count in (1, 3):
        images = draw(count, *size, channels, seed=count)
        inputs = preprocess(images, served.preprocessing)
        for signature, fed in (("serving_default", images), ("serve_float", images.astype(np.float32))):
            check_answer(served.server(signature, fed), served.model, inputs, served.names)
        features = served.server("features", images)["features"]
        dense = served.model.get_layer("head_logits")
        wanted = keras.Model(served.model.input, dense.input)(inputs)
        np.testing.assert_allclose(features, wanted, rtol=1e-4, atol=1e-5)


def test_fractions_of_a_pixel_value_count(colour):
    images = draw(2, 9, 9).astype(np.float32) * 0.37
    answer = colour.server("serve_float", images)
    check_answer(answer, colour.model, preprocess(images, COLOUR), NAMES)


@pytest.mark.parametrize("which", ["colour", "gray"])
def test_files_of_several_sizes_are_classified_in_one_batch(request, which):
    served = request.getfixturevalue(which)
    channels = served.preprocessing.channels
    images = [draw(1, *size, channels, seed=size[0])[0] for size in ((8, 10), (20, 13), (1, 9), (40, 40))]
    files = [encode(image, "JPEG" if index % 2 else "PNG") for index, image in enumerate(images)]
    pixels = [
        np.array(Image.open(io.BytesIO(file))).reshape(image.shape) for file, image in zip(files, images, strict=True)
    ]
    inputs = np.concatenate([preprocess(image[None], served.preprocessing) for image in pixels])
    answer = served.server("serve_bytes", as_bytes(*files))
    exact = {name: value[::2] for name, value in answer.items()}  # a JPEG's pixels are the decoder's
    check_answer(exact, served.model, inputs[::2], served.names)
    decoded = np.concatenate([preprocess(decode(file, channels)[None], served.preprocessing) for file in files])
    check_answer(answer, served.model, decoded, served.names)
    np.testing.assert_allclose(decoded, inputs, atol=6 / 255 / 0.2)


def test_gray_files_in_a_network_of_colours_and_the_reverse(colour, gray):
    picture = draw(1, 9, 11, 1)[0]
    answer = colour.server("serve_bytes", as_bytes(encode(picture)))
    check_answer(answer, colour.model, preprocess(np.repeat(picture[None], 3, -1), COLOUR), NAMES)
    painted = draw(1, 9, 11)[0]
    luma = painted @ np.array([0.299, 0.587, 0.114])
    logits = gray.server("serve_bytes", as_bytes(encode(painted)))["logits"]
    wanted = gray.model(preprocess(np.round(luma)[None, ..., None], GRAY))
    np.testing.assert_allclose(logits, wanted, atol=0.1 * float(np.abs(wanted).max()))


def test_without_preprocessing_pixels_stay_as_they_are(tmp_path, export, plain):
    images = draw(2, 13, 9)
    check_answer(plain.server("serving_default", images), plain.model, images.astype(np.float32), list("0123"))
    below = images.astype(np.float32) - 200  # of unknown units
    check_answer(plain.server("serve_float", below), plain.model, below, list("0123"))
    files = as_bytes(*(encode(image) for image in images))
    check_answer(plain.server("serve_bytes", files), plain.model, images.astype(np.float32), list("0123"))
    fixed = network((8, 10, 3), 4)
    server = Server(export(fixed, tmp_path, warm_up=False))
    padded = tf.image.resize_with_pad(images, 8, 10)
    check_answer(server("serving_default", images), fixed, padded, list("0123"))


def test_sequences(line):
    for count in (1, 4):
        x = np.random.default_rng(count).normal(size=(count, 16, 2)).astype(np.float32)
        check_answer(line.server("serving_default", x), line.model, x, list("012345"))
        assert line.server("features", x)["features"].shape == (count, 4)


def test_a_softmax_head_and_logits_give_the_same_export(tmp_path, colour, export):
    model = network(activation=None)
    model.set_weights(colour.model.get_weights())
    server = Server(export(model, tmp_path, COLOUR, NAMES))
    images = draw(3, 12, 12)
    for signature in colour.server.signatures:
        fed = {"serve_float": images.astype(np.float32), "serve_bytes": as_bytes(*map(encode, images))}
        value = fed.get(signature, images)
        a, b = server(signature, value), colour.server(signature, value)
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_nested_classifier_is_exported(tmp_path, export):
    """Augmentation or rescaling before a whole network, as Keras' guides build it."""
    images = keras.Input((8, 10, 3))
    model = keras.Model(images, network()(layers.Rescaling(1 / 255)(images)), name="whole")
    server = Server(export(model, tmp_path))
    fed = draw(2, 8, 10)
    check_answer(server("serving_default", fed), model, fed.astype(np.float32), list("0123456"))


# Class names


def test_class_names_are_stored_beside_the_graph(colour, gray):
    assert (colour.path / "assets" / "labels.txt").read_text("utf-8") == "".join(f"{name}\n" for name in NAMES)
    assert (gray.path / "assets" / "labels.txt").read_text("utf-8") == "0\n1\n2\n"


# Networks of several kinds


def test_a_network_of_any_size_with_preprocessing_resizes_as_training_did(tmp_path, export):
    model = network((None, None, 3), 4)
    server = Server(export(model, tmp_path, COLOUR, warm_up=False))
    for size in ((20, 31), (8, 10), (3, 3)):
        images = draw(2, *size)
        check_answer(server("serving_default", images), model, preprocess(images, COLOUR), list("0123"))


@pytest.mark.parametrize("fixed", [0, 1])
def test_a_network_with_one_fixed_side(tmp_path, proved_here, fixed):
    """The proof's own cases fit it; images of another side are an error in words of ours."""
    sides = (12, None) if fixed == 0 else (None, 12)
    model = network((*sides, 3), 4)
    server = Server(export_saved_model(model, tmp_path, warm_up=False))
    images = draw(2, *(side or 9 for side in sides))
    check_answer(server("serving_default", images), model, images.astype(np.float32), list("0123"))
    answer = server("serve_bytes", as_bytes(*map(encode, images)))
    check_answer(answer, model, images.astype(np.float32), list("0123"))
    words = ", ".join(str(side or name) for side, name in zip(sides, ("height", "width"), strict=True))
    for signature, kind in (("serving_default", np.uint8), ("serve_float", np.float32), ("features", np.uint8)):
        message = rf"images must be \(batch, {words}, 3\), no side 0. Received the shape:\W+1\W+9\W+9\W+3\W"
        check_refused(server, signature, np.ones((1, 9, 9, 3), kind), message)
    check_refused(
        server,
        "serve_bytes",
        as_bytes(encode(Image.new("RGB", (9, 9)))),
        r"has a fixed side this one, .*:\W+\d+\W+\d+\W+Received:\W+9\W+9\W",
    )


@pytest.mark.parametrize("kinds", [("PNG", "JPEG"), ("JPEG", "PNG")])
def test_files_of_several_sizes_in_a_network_of_any_size_are_an_error(plain, kinds):
    files = [encode(Image.new("RGB", size), kind) for size, kind in zip(((9, 8), (7, 8)), kinds, strict=True)]
    message = r"All images of a batch must have one size, .* height and width:\W+8\W+9\W+Received:\W+8\W+7\W"
    check_refused(plain.server, "serve_bytes", as_bytes(*files), message)
    assert plain.server("serve_bytes", as_bytes(files[0], files[0]))["logits"].shape == (2, 4)
