"""How images flow: order, augmentation, batches; and what default preprocessing is measured on them."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import draw_images, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_resnet import Augmentation, InputError, Preprocessing, load_data, make_eval_dataset, make_train_dataset
from keras_resnet.data import Split, compute_preprocessing, count_batches
from keras_resnet.data.augment.geometry import random_flip, random_shift

RAW = Preprocessing((6, 6), 1, mean=(0.0,), std=(1 / 255,))  # pixels as they are


@pytest.fixture
def split():
    """50 images, each of one gray level, its own label."""
    levels = np.arange(50, dtype=np.uint8)
    return Split(np.tile(levels[:, None, None, None], (1, 6, 6, 1)), levels.astype(np.int64))


def _hashes(dataset):
    return [hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest() for x, y in dataset]


def test_an_epoch_shows_each_image_once_and_the_next_in_another_order(split):
    dataset = make_train_dataset(split, RAW, batch_size=8, seed=0)
    assert int(dataset.cardinality()) == 7
    assert dataset.element_spec[0].shape == (None, 6, 6, 1)
    first, second = ([y.numpy() for _, y in dataset] for _ in range(2))
    assert sorted(map(len, first)) == [7] * 6 + [8]
    assert sorted(np.concatenate(first)) == sorted(np.concatenate(second)) == list(range(50))
    assert not np.array_equal(np.concatenate(first), np.concatenate(second))
    for x, y in dataset:
        np.testing.assert_array_equal(x[:, 0, 0, 0], y)  # labels stay with their images


@given(st.integers(1, 50), st.integers(1, 60))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_batches_are_as_few_and_as_even_as_can_be(number, batch_size):
    images = Split(np.zeros((number, 2, 2, 1), np.uint8), np.arange(number))
    sizes = [len(y) for _, y in make_train_dataset(images, RAW, batch_size=batch_size)]
    assert len(sizes) == count_batches(number, batch_size)
    assert sum(sizes) == number
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_even_batches_have_a_static_size(split):
    assert make_train_dataset(split, RAW, batch_size=10).element_spec[0].shape == (10, 6, 6, 1)


def test_batches_are_a_function_of_seed_epoch_and_step(split):
    arguments = {"batch_size": 8, "augmentation": Augmentation(shift_fraction=0.3, horizontal_flip=True)}
    one, two = (make_train_dataset(split, RAW, seed=5, **arguments) for _ in range(2))
    epochs = [_hashes(one), _hashes(one), _hashes(one)]
    assert [_hashes(two), _hashes(two), _hashes(two)] == epochs
    assert len({h for epoch in epochs for h in epoch}) == 21
    late = make_train_dataset(split, RAW, seed=5, first_epoch=2, **arguments)
    assert _hashes(late) == epochs[2]
    assert _hashes(make_train_dataset(split, RAW, seed=6, **arguments)) != epochs[0]
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    assert _hashes(make_train_dataset(split, RAW, seed=5, **arguments).with_options(options)) == epochs[0]


def test_evaluation_shows_every_image_once_in_order(split):
    batches = list(make_eval_dataset(split, RAW, batch_size=16))
    assert [len(y) for _, y in batches] == [16, 16, 16, 2]
    np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), split.labels)
    np.testing.assert_array_equal(np.concatenate([x[:, 3, 3, 0] for x, _ in batches]), split.labels)


def test_files_give_what_arrays_give(tmp_path):
    images, labels = draw_images(12, 6, 9, 3, 3)
    data = load_data(write_folder(tmp_path, images, labels, ["a", "b", "c"]))
    preprocessing = Preprocessing((12, 12), 3, (0.2, 0.3, 0.4), (0.5, 0.6, 0.7))
    index = [int(path[-8:-4]) for path in data.train.images]
    arrays = Split(images[index], labels[index])
    for a, b in zip(
        make_eval_dataset(data.train, preprocessing, batch_size=4),
        make_eval_dataset(arrays, preprocessing, batch_size=4),
        strict=True,
    ):
        np.testing.assert_allclose(a[0], b[0], atol=1e-5)
        np.testing.assert_array_equal(a[1], b[1])
    encoded = np.array([Path(path).read_bytes() for path in data.train.images], object)
    from_bytes = make_eval_dataset(Split(encoded, arrays.labels), preprocessing, batch_size=4)
    np.testing.assert_allclose(
        next(iter(from_bytes))[0], next(iter(make_eval_dataset(arrays, preprocessing, batch_size=4)))[0], atol=1e-5
    )
    assert next(iter(make_train_dataset(data.train, preprocessing, batch_size=5)))[0].shape == (5, 12, 12, 3)


def test_no_images_and_no_batch_are_errors(split):
    for make in (make_train_dataset, make_eval_dataset):
        with pytest.raises(InputError, match=r"at least 1 image .* Received: 50 images, batch_size=0"):
            make(split, RAW, batch_size=0)
        with pytest.raises(InputError, match=r"Received: 0 images, batch_size=64"):
            make(split.take(np.arange(0)), RAW)


def test_channels_must_match(split):
    with pytest.raises(InputError, match=r"have 1 channels and the preprocessing 3; they must match"):
        make_eval_dataset(split, Preprocessing((6, 6), 3, (0.0,) * 3, (1.0,) * 3))


@pytest.mark.parametrize("channels", [1, 3])
def test_flip_mirrors_whole_images_about_half_of_them(channels):
    images = np.random.default_rng(0).integers(0, 255, (200, 5, 6, channels)).astype(np.float32)
    out = random_flip(tf.constant(images), [1, 2]).numpy()
    same = (out == images).all(axis=(1, 2, 3))
    mirrored = (out == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 70 < mirrored.sum() < 130
    traced = next(iter(tf.data.Dataset.from_tensors(images).map(lambda x: random_flip(x, [1, 2]))))
    np.testing.assert_array_equal(traced, out)


@pytest.mark.parametrize("channels", [1, 3])
def test_shift_moves_each_image_by_its_own_draw(channels):
    images = np.random.default_rng(0).integers(1, 255, (60, 8, 10, channels)).astype(np.float32)
    out = random_shift(tf.constant(images), 0.2, [3, 4]).numpy()
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    found = []
    for index in range(len(images)):
        hits = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if (padded[index, top : top + 8, left : left + 10] == out[index]).all()
        ]
        assert len(hits) == 1
        found += hits
    assert len(set(found)) > 12  # of the 25 there are
    assert {top for top, _ in found} == {left for _, left in found} == set(range(5))
    traced = next(iter(tf.data.Dataset.from_tensors(images).map(lambda x: random_shift(x, 0.2, [3, 4]))))
    np.testing.assert_array_equal(traced, out)


def test_default_preprocessing_is_measured(tmp_path):
    images, labels = draw_images(40, 8, 6, 3, 2)
    images[..., 2] = 7  # a channel without spread
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    data = load_data(tmp_path / "set.npz")
    preprocessing = compute_preprocessing(data, data.train)
    pixels = data.train.images / 255.0
    assert preprocessing.image_size_pixels == (8, 6)
    np.testing.assert_allclose(preprocessing.mean, pixels.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(preprocessing.std[:2], pixels.std((0, 1, 2))[:2], atol=1e-5)
    assert preprocessing.std[2] == 1.0
    assert compute_preprocessing(data, data.train, (4, 5)).image_size_pixels == (4, 5)
    folder = load_data(write_folder(tmp_path / "folder", images, labels, ["a", "b"]))
    np.testing.assert_allclose(compute_preprocessing(folder, folder.train).mean, preprocessing.mean, atol=0.02)


def test_default_size_is_224_for_large_or_uneven_images(tmp_path):
    for name, size in (("large", (230, 10)), ("small", (20, 10))):
        images, labels = draw_images(8, *size, 1, 2)
        data = load_data(write_folder(tmp_path / name, images, labels, ["a", "b"]))
        expected = (224, 224) if name == "large" else size
        assert compute_preprocessing(data, data.train).image_size_pixels == expected
    write_folder(tmp_path / "small" / "..", *draw_images(2, 30, 30, 1, 2), ["small/a", "small/b"], suffix=".jpg")
    data = load_data(tmp_path / "small")
    assert data.image_size_pixels is None
    assert compute_preprocessing(data, data.train).image_size_pixels == (224, 224)
