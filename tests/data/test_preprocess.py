"""Decode, resize with pad, normalize."""

import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_resnet import InputError, Preprocessing
from keras_resnet.data import decode, normalize, preprocess, resize_with_pad
from keras_resnet.data.preprocess import fitted_size


def _random(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32)


def _fit(height, width, target_height, target_width):
    """(new height, new width, rows above, columns left), the same from numbers and from a graph's tensors."""
    sides, targets = np.array([height, width]), np.array([target_height, target_width])
    found = [tuple(map(int, np.concatenate(fitted_size(x, targets)))) for x in (sides, tf.constant(sides))]
    assert found[0] == found[1]
    return found[0]


def _keras_rounding_loses_a_pixel(height, width, target_height, target_width):
    """Whether float32 arithmetic, as tf.image.resize_with_pad does it, gives another size than exact arithmetic."""
    f = np.float32
    ratio = max(f(width) / f(target_width), f(height) / f(target_height))
    new_height, new_width = f(height) / ratio, f(width) / ratio
    top, left = np.floor((f(target_height) - new_height) / f(2)), np.floor((f(target_width) - new_width) / f(2))
    theirs = (int(np.floor(new_height)), int(np.floor(new_width)), max(0, int(top)), max(0, int(left)))
    return theirs != _fit(height, width, target_height, target_width)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(*(st.integers(1, 70) for _ in range(4)), st.sampled_from([1, 3]))
def test_equals_tensorflow_wherever_that_is_exact(height, width, target_height, target_width, channels):
    new_height, new_width, top, left = _fit(height, width, target_height, target_width)
    # Exact arithmetic: the largest size that fits, floor of the scaled sides, at least one pixel, centred.
    assert new_height == target_height or new_width == target_width
    assert 1 <= new_height <= target_height
    assert 1 <= new_width <= target_width
    assert 0 <= top <= target_height - new_height
    assert 0 <= left <= target_width - new_width
    images = _random(2, height, width, channels)
    ours = resize_with_pad(images, target_height, target_width)
    assert ours.shape == (2, target_height, target_width, channels)
    if not _keras_rounding_loses_a_pixel(height, width, target_height, target_width):
        theirs = tf.image.resize_with_pad(images, target_height, target_width)
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("side", [32, 64, 128])
@pytest.mark.parametrize("target", [56, 112, 224])
def test_no_black_line_where_tensorflow_loses_a_pixel(side, target):
    white = np.full((1, side, side, 1), 255, np.float32)
    assert (np.asarray(resize_with_pad(white, target, target)) == 255).all()
    np.testing.assert_allclose(
        resize_with_pad(_random(1, side, side, 3), target, target),
        tf.image.resize(_random(1, side, side, 3), [target, target]),
        atol=1e-5,
    )


def test_tensorflow_does_lose_a_pixel_there():
    """The reason for an implementation of our own; when this fails, it can go."""
    white = np.full((1, 32, 32, 1), 255, np.float32)
    lines = (np.asarray(tf.image.resize_with_pad(white, 224, 224))[0, :, 112, 0] == 0).sum()
    assert lines == 1


def test_extreme_shapes_keep_one_pixel():
    line = np.full((1, 1000, 3), 255, np.uint8)
    out = np.asarray(resize_with_pad(line, 8, 8))
    assert out.shape == (8, 8, 3)
    assert (out.max(axis=(1, 2)) == 255).sum() == 1  # one row of the eight


def test_one_image_is_a_batch_of_one_and_uint8_is_float():
    image = _random(9, 13, 3).astype(np.uint8)
    one, batch = resize_with_pad(image, 20, 20), resize_with_pad(image[None], 20, 20)
    assert one.dtype == tf.float32
    np.testing.assert_array_equal(one, batch[0])
    same = resize_with_pad(image, 9, 13)
    np.testing.assert_array_equal(same, image)
    assert same.dtype == tf.float32


@pytest.mark.parametrize("shape", [(30, 11, 3), (11, 30, 1), (16, 16, 3), (1, 60, 1)])
def test_the_same_inside_tf_data_with_unknown_sizes(shape):
    images = _random(3, *shape)
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(images), output_signature=tf.TensorSpec((None, None, shape[-1]), tf.float32)
    )
    for image, ours in zip(images, dataset.map(lambda x: resize_with_pad(x, 24, 18)), strict=True):
        np.testing.assert_allclose(ours, resize_with_pad(image, 24, 18), atol=1e-5)


def test_normalize():
    preprocessing = Preprocessing((4, 4), 3, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    out = normalize(np.full((2, 4, 4, 3), 255, np.uint8), preprocessing)
    np.testing.assert_allclose(out[0, 0, 0], [1.0, 3.0, 1.0], rtol=1e-6)
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    gray = Preprocessing((16, 16), 1, mean=(0.1307,), std=(0.3081,))
    np.testing.assert_allclose(preprocess(pixels, gray), (pixels / 255.0 - 0.1307) / 0.3081, atol=1e-6)
    inside = next(iter(tf.data.Dataset.from_tensors(pixels).map(lambda x: preprocess(x, gray))))
    np.testing.assert_array_equal(inside, preprocess(pixels, gray))


def test_padding_is_black_before_normalization():
    preprocessing = Preprocessing((4, 8), 1, mean=(0.5,), std=(0.5,))
    out = np.asarray(preprocess(np.full((4, 4, 1), 255, np.uint8), preprocessing))
    assert (out[:, 2:6] == 1).all()
    assert (out[:, :2] == -1).all()


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_decode_converts_between_gray_and_colour(file_format):
    from PIL import Image

    def encode(pixels):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, file_format)
        return buffer.getvalue()

    gray = np.full((5, 7), 100, np.uint8)
    colour = np.full((5, 7, 3), (200, 100, 50), np.uint8)
    assert decode(encode(gray), 3).shape == (5, 7, 3)
    np.testing.assert_allclose(decode(encode(gray), 3), np.full((5, 7, 3), 100), atol=2)
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    np.testing.assert_allclose(np.asarray(decode(encode(colour), 1), float), luma, atol=6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resize_with_pad(np.zeros((4, 4, 1)), 0, 4), r"height and a width of at least 1 pixel. Received: 0, 4"),
        (lambda: resize_with_pad(np.zeros((4, 4)), 4, 4), r"Received: shape \(4, 4\)"),
        (
            lambda: resize_with_pad(np.zeros((0, 4, 1)), 4, 4),
            r"images of at least 1x1 pixel. Received: shape \(0, 4, 1\)",
        ),
        (lambda: Preprocessing((0, 4), 1, (0.0,), (1.0,)), r"image_size_pixels must be .* Received: \(0, 4\)"),
        (lambda: Preprocessing((4, 4), 3, (0.0,), (1.0,)), r"one value per channel, 3. Received: \(0.0,\), \(1.0,\)"),
        (
            lambda: Preprocessing((4, 4), 1, (0.0,), (0.0,)),
            r"std must be positive in every channel. Received: \(0.0,\)",
        ),
        (lambda: Preprocessing((4, 4), 0, (), ()), r"channels must be an integer of at least 1. Received: 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
