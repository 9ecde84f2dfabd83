"""Which image comes when: workers, starts in the middle, balanced classes; crops, products and the device."""

import hashlib
import math
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import TINY, draw_images, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_resnet
from keras_resnet import InputError, Preprocessing, jobs, load_data, make_eval_dataset, make_train_dataset
from keras_resnet.data import Split, class_weights, compute_preprocessing, crop, normalize, preprocess, resize_with_pad
from keras_resnet.data.augment.geometry import draw_flips
from keras_resnet.data.balance import draw_balanced
from keras_resnet.data.preprocess import enlarges_by_products
from keras_resnet.recipes import Augmentation

RAW = Preprocessing((6, 6), 1, mean=(0.0,), std=(1 / 255,))  # pixels as they are
CHANGES = Augmentation(shift_fraction=0.3, horizontal_flip=True, resized_crop=(0.4, 1.0))


@pytest.fixture
def split():
    """50 images, each of one gray level, its own label."""
    levels = np.arange(50, dtype=np.uint8)
    return Split(np.tile(levels[:, None, None, None], (1, 6, 6, 1)), levels.astype(np.int64))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    images, labels = draw_images(20, 9, 7, 3, 2)
    return load_data(write_folder(tmp_path_factory.mktemp("files"), images, labels, ["a", "b"], suffix=".jpg")).train


def _hashes(dataset):
    return [hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest() for x, y in dataset]


def _with_threads(dataset, number):
    options = tf.data.Options()
    options.threading.private_threadpool_size = number
    return dataset.with_options(options)


@pytest.mark.parametrize("kind", ["arrays", "files"])
@pytest.mark.parametrize("sampling", ["uniform", "balanced"])
def test_any_epoch_and_step_is_where_one_can_start(split, files, kind, sampling):
    images = split if kind == "arrays" else files
    preprocessing = RAW if kind == "arrays" else Preprocessing((8, 8), 3, (0.5,) * 3, (0.2,) * 3)
    arguments = {"batch_size": 8, "seed": 5, "augmentation": CHANGES, "sampling": sampling}
    dataset = _with_threads(make_train_dataset(images, preprocessing, **arguments), 1)
    epochs = [_hashes(dataset) for _ in range(3)]
    assert len({one for epoch in epochs for one in epoch}) == sum(map(len, epochs))
    late = _with_threads(make_train_dataset(images, preprocessing, first_epoch=1, first_step=1, **arguments), 2)
    assert [_hashes(late), _hashes(late)] == [epochs[1][1:], epochs[2]]


def test_starting_in_the_middle_reads_nothing_before(files, monkeypatch):
    from keras_resnet.data import batches

    seen = []
    real = batches.make_fetch

    def watched(split):
        fetch = real(split)

        def note(indices):
            tf.numpy_function(lambda i: seen.extend(i.tolist()) or np.int64(0), [indices], tf.int64)
            return fetch(indices)

        return note

    monkeypatch.setattr(batches, "make_fetch", watched)
    preprocessing = Preprocessing((8, 8), 3, (0.5,) * 3, (0.2,) * 3)
    list(make_train_dataset(files, preprocessing, batch_size=4, first_step=3))
    assert len(seen) == 4  # one batch of the four that an epoch of 16 has


def test_keras_trains_on_the_rest_of_an_epoch(split):
    dataset = make_train_dataset(split, RAW, batch_size=10, first_step=3)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(50)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    steps = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))
    model.fit(dataset, epochs=1, shuffle=False, verbose=0, callbacks=[count])
    assert steps == [0, 1]


@given(st.integers(1, 50), st.integers(1, 6), st.integers(1, 60))
@settings(max_examples=8, deadline=None, derandomize=True)
def test_workers_share_every_epoch_without_overlap_or_gap(number, count, batch_size):
    images = Split(np.zeros((number, 2, 2, 1), np.uint8), np.arange(number))
    steps = math.ceil(math.ceil(number / count) / batch_size)
    if number // count < steps:
        with pytest.raises(InputError, match=r"Every worker must have an image for each of the"):
            make_train_dataset(images, RAW, batch_size=batch_size, shard=(0, count))
        return
    shares = [
        [y.numpy() for _, y in make_train_dataset(images, RAW, batch_size=batch_size, shard=(index, count))]
        for index in range(count)
    ]
    assert {len(share) for share in shares} == {steps}
    sizes = [len(batch) for share in shares for batch in share]
    assert 1 <= min(sizes) <= max(sizes) <= batch_size
    assert sorted(np.concatenate([np.concatenate(share) for share in shares])) == list(range(number))


def test_workers_draw_changes_of_their_own():
    same = Split(
        np.tile(np.random.default_rng(0).integers(0, 255, (1, 6, 6, 1)), (8, 1, 1, 1)).astype(np.uint8),
        np.zeros(8, np.int64),
    )
    one, two = (
        make_train_dataset(same, RAW, batch_size=4, augmentation=CHANGES, shard=(index, 2)) for index in range(2)
    )
    assert _hashes(one) != _hashes(two)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shard": (2, 2)}, r"shard must be \(index, count\), with index from 0 to count - 1. Received: \(2, 2\)"),
        ({"first_step": 7}, r"first_step from 0 to 6, the batches of an epoch. Received: .*first_step=7"),
        ({"first_epoch": -1}, r"first_epoch must be at least 0"),
        ({"sampling": "even"}, r"sampling must be one of 'uniform', 'balanced'. Received: 'even'"),
        ({"prepare_on": "gpu"}, r"prepare_on must be one of 'host', 'device'. Received: 'gpu'"),
    ],
)
def test_what_is_not_there(split, arguments, message):
    with pytest.raises(InputError, match=message):
        make_train_dataset(split, RAW, batch_size=8, **arguments)


# Uneven classes


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.integers(0, 3))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_balanced_epochs_go_through_each_class_in_rounds(sizes, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    shown = np.zeros(len(labels), int)
    for epoch in range(4):
        order = draw_balanced(labels, seed, epoch)
        assert len(order) == len(labels)
        counts = np.bincount(labels[order], minlength=len(sizes))
        assert counts.max() - counts.min() <= 1
        shown += np.bincount(order, minlength=len(labels))
        for label in range(len(sizes)):  # none a second time before all had their first
            mine = shown[labels == label]
            assert mine.max() - mine.min() <= 1
        np.testing.assert_array_equal(order, draw_balanced(labels, seed, epoch))
    totals = np.bincount(labels, weights=shown, minlength=len(sizes))
    assert totals.max() - totals.min() <= 1


def test_class_weights():
    labels = np.array([0] * 6 + [1] * 2 + [3] * 4)
    weights = class_weights(labels, 4)
    assert weights == {0: 12 / 18, 1: 2.0, 2: 0.0, 3: 1.0}
    assert np.mean([weights[label] for label in labels]) == pytest.approx(1.0)
    with pytest.raises(InputError, match=r"at least 1 label. Received: none"):
        class_weights(np.zeros(0, int), 2)


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_a_job_balances_uneven_classes(tmp_path, monkeypatch, balance):
    from keras_resnet import data, training

    images, labels = draw_images(60, 8, 8, 1, 2)
    keep = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:6]])
    np.savez(tmp_path / "set.npz", images=images[keep], labels=labels[keep])
    seen = {}
    real_fit, real_make = training.fit, data.make_train_dataset
    monkeypatch.setattr(training, "fit", lambda *a, **k: seen.update(k) or real_fit(*a, **k))
    monkeypatch.setattr(data, "make_train_dataset", lambda *a, **k: seen.update(k) or real_make(*a, **k))
    recipe = {"epochs": 1, "batch_size": 8, "max_steps": 2, "class_balance": balance}
    run = jobs.train(tmp_path / "set.npz", model=TINY, run_dir=tmp_path / "r", recipe=recipe, verbose=0)
    assert run.recipe.class_balance == balance
    assert seen["sampling"] == ("balanced" if balance == "sampling" else "uniform")
    assert (seen["class_weight"] is None) == (balance == "sampling")
    if balance == "weights":
        assert seen["class_weight"][1] > 2 > 1 > seen["class_weight"][0]
    with pytest.raises(InputError, match=r"class_balance must be one of 'weights', 'sampling'. Received: 'both'"):
        keras_resnet.Recipe(class_balance="both")


# Normalization


def test_the_preset_of_mnist_is_what_is_measured(tfds_dir):
    data = load_data("mnist", data_dir=tfds_dir)
    preset, measured = (compute_preprocessing(data, data.train, normalize=kind) for kind in ("mnist", "dataset"))
    np.testing.assert_allclose(preset.mean, measured.mean, atol=1e-4)
    np.testing.assert_allclose(preset.std, measured.std, atol=1e-4)
    assert preset.image_size_pixels == measured.image_size_pixels


def test_a_preset_is_for_its_channels():
    data = load_data("digits")
    assert compute_preprocessing(data, data.train, normalize="mnist").mean == (0.1307,)
    with pytest.raises(InputError, match=r"normalize='imagenet' is for images of 3 channels. Received: digits, .* 1;"):
        compute_preprocessing(data, data.train, normalize="imagenet")
    with pytest.raises(InputError, match=r"normalize must be one of 'dataset', 'imagenet', .*Received: 'none'"):
        compute_preprocessing(data, data.train, normalize="none")


# Resizing


@settings(max_examples=40, deadline=None, derandomize=True)
@given(*(st.integers(1, 40) for _ in range(2)), *(st.integers(1, 90) for _ in range(2)), st.integers(1, 4))
def test_products_give_the_definition(height, width, new_height, new_width, channels):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, height, width, channels)).astype(np.uint8)
    preprocessing = Preprocessing(
        (new_height, new_width),
        channels,
        tuple(np.linspace(0.1, 0.6, channels)),
        tuple(np.linspace(0.2, 0.3, channels)),
    )
    expected = normalize(resize_with_pad(images, new_height, new_width), preprocessing)
    out = preprocess(images, preprocessing)
    assert out.shape == (3, new_height, new_width, channels)
    np.testing.assert_allclose(out, expected, atol=4e-6)  # pixels are at most 5 then: a few roundings


def test_what_is_enlarged_by_products():
    assert enlarges_by_products((28, 28, 1), 224, 224)
    assert enlarges_by_products((28, 14, 1), 32, 32)
    assert enlarges_by_products((32, 32, 3), 224, 224)
    assert not enlarges_by_products((32, 32, 3), 48, 48)  # little to gain
    assert not enlarges_by_products((32, 32, 1), 32, 64)  # only padded
    assert not enlarges_by_products((64, 64, 1), 32, 32)
    assert not enlarges_by_products((None, None, 1), 224, 224)
    assert not enlarges_by_products((32, 32, 200), 224, 224)  # the matrix would take gigabytes


# Resized crops


@pytest.mark.parametrize("size", [(5, 9), (24, 16), (1, 1)])
def test_a_crop_of_arrays_is_the_window_resized(size):
    """Away from a window's border, where pixels beyond it have a part, and at those of the image."""
    images = np.random.default_rng(0).integers(0, 256, (40, 12, 10, 3)).astype(np.uint8)
    numbers = crop.draw_numbers(40, [1, 2])
    out = crop.crop_batch(images, numbers, (0.2, 1.0), size)
    top, left, height, width = (value.numpy() for value in crop.crop_window(12, 10, numbers, (0.2, 1.0)))
    assert len(set(zip(top, left, height, width, strict=True))) > 30
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 12).all()
    assert (left + width <= 10).all()
    for index in range(40):
        window = images[index, top[index] : top[index] + height[index], left[index] : left[index] + width[index]]
        expected = np.asarray(tf.image.resize(window.astype(np.float32), size))
        rows = _inner(size[0], height[index])
        columns = _inner(size[1], width[index])
        np.testing.assert_allclose(out[index].numpy()[rows][:, columns], expected[rows][:, columns], atol=2e-2)


def _inner(new, old):
    positions = (np.arange(new) + 0.5) * old / new - 0.5
    return np.flatnonzero((positions >= 0) & (positions <= old - 1))


def test_crops_have_the_area_and_aspect_asked_for():
    numbers = crop.draw_numbers(3000, [3, 4])
    top, left, height, width = (value.numpy() for value in crop.crop_window(400, 400, numbers, (0.1, 0.5)))
    area = height * width / 400**2
    assert 0.095 < area.min() < 0.11
    assert 0.49 < area.max() < 0.51
    assert area.mean() == pytest.approx(0.3, abs=0.01)
    ratio = width / height
    assert 0.74 < ratio.min() < 0.78
    assert 1.29 < ratio.max() < 1.35
    assert np.mean(top / (400 - height)) == pytest.approx(0.5, abs=0.02)
    assert np.mean(left / (400 - width)) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_crop_of_a_file_is_a_part_of_what_it_decodes_to(tmp_path, suffix):
    ramp = np.zeros((64, 48, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(64)[:, None] * 4, np.arange(48)[None] * 5
    path = next(write_folder(tmp_path, ramp[None], [0], ["a"], suffix=suffix).rglob(f"*{suffix}"))
    numbers = tf.constant([0.3, 0.6, 0.5, 0.8])
    top, left, height, width = (int(v) for v in crop.crop_window(64, 48, numbers, (0.2, 0.9)))
    out = tf.cast(crop.crop_encoded(path.read_bytes(), numbers, (0.2, 0.9), (20, 20), 3) + 0.5, tf.uint8)
    resized = tf.image.resize(ramp[top : top + height, left : left + width], (20, 20))
    assert out.dtype == tf.uint8
    np.testing.assert_allclose(tf.cast(out, tf.float32), np.floor(resized + 0.5), atol=8 if suffix == ".jpg" else 0)


# The device


@pytest.mark.parametrize("target", [(24, 24), (8, 12), (10, 6), (4, 4)])
def test_the_device_computes_what_the_host_does(target):
    images, labels = draw_images(16, 10, 6, 3, 2)
    preprocessing = Preprocessing(target, 3, (0.2, 0.3, 0.4), (0.5, 0.6, 0.7))
    network = keras_resnet.build(TINY, preprocessing.input_shape, 2, classifier_activation=None)
    wrapped = keras_resnet.wrap_for_device(network, (10, 6, 3), preprocessing)
    split = Split(images, labels)
    (stored, _), *_ = make_eval_dataset(split, preprocessing, batch_size=16, prepare_on="device")
    assert (stored.dtype, stored.shape) == (tf.uint8, (16, 10, 6, 3))
    (prepared, _), *_ = make_eval_dataset(split, preprocessing, batch_size=16)
    np.testing.assert_allclose(wrapped.get_layer("prepare")(stored), prepared, atol=1e-5)
    np.testing.assert_allclose(wrapped(stored), network(prepared), atol=1e-4)
    assert [w.path for w in wrapped.trainable_weights] == [w.path for w in network.trainable_weights]


def test_a_job_that_resizes_on_the_device_saves_the_bare_network(npz, tmp_path):
    recipe = {"epochs": 1, "batch_size": 16, "seed": 3, "shift_fraction": 0.2}
    runs = [
        jobs.train(
            npz, model=TINY, image_size_pixels=(16, 16), run_dir=tmp_path / prepare_on, recipe=recipe,
            prepare_on=prepare_on, normalize="mnist", verbose=0,
        )
        for prepare_on in ("host", "device")
    ]  # fmt: skip
    assert runs[1].record.input.prepare_on == "device"
    assert runs[1].preprocessing.mean == (0.1307,)
    for run in runs:
        model = keras.saving.load_model(run.model_path)
        assert model.input_shape == (None, 16, 16, 1)
        assert jobs.evaluate(run.path, verbose=0).accuracy == run.record.test.accuracy
    losses = [run.record.validation.loss for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)  # the same images, up to roundings that training spreads


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(horizontal_flip=True),
        Augmentation(resized_crop=(0.3, 1.0), horizontal_flip=True),
        Augmentation(resized_crop=(0.3, 1.0), horizontal_flip=True, label_smoothing=0.1),
        CHANGES,
        Augmentation(horizontal_flip=True, brightness=0.4),
    ],
)
@pytest.mark.parametrize("batch_size", [8, 6])  # 16 images: batches of one size, and of 5 and 6
def test_the_device_takes_bytes_of_files(files, augmentation, batch_size):
    preprocessing = Preprocessing((12, 10), 3, (0.2, 0.3, 0.4), (0.5, 0.6, 0.7))
    network = keras_resnet.build(TINY, preprocessing.input_shape, 2, classifier_activation=None)
    wrapped = keras_resnet.wrap_for_device(network, preprocessing.input_shape, preprocessing)
    arguments = {"batch_size": batch_size, "seed": 4, "augmentation": augmentation, "classes": 2}
    on_host, on_device = (
        list(make_train_dataset(files, preprocessing, prepare_on=prepare_on, **arguments))
        for prepare_on in ("host", "device")
    )
    assert len(on_host) == len(on_device) == math.ceil(16 / batch_size)
    for (prepared, labels), (stored, same_labels) in zip(on_host, on_device, strict=True):
        assert (stored.dtype, stored.shape[1:]) == (tf.uint8, (12, 10, 3))
        np.testing.assert_array_equal(labels, same_labels)
        # Half a level, in units of the standard deviation.
        np.testing.assert_allclose(wrapped.get_layer("prepare")(stored), prepared, atol=0.501 / 255 / 0.5)
    ours, theirs = (
        list(make_eval_dataset(files, preprocessing, batch_size=7, prepare_on=r)) for r in ("host", "device")
    )
    assert [len(y) for _, y in ours] == [len(y) for _, y in theirs] == [7, 7, 2]
    for (prepared, _), (stored, _) in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(wrapped.get_layer("prepare")(stored), prepared, atol=0.501 / 255 / 0.5)


def test_files_are_mirrored_cropped_and_normalized_as_a_batch_would_be(files):
    preprocessing = Preprocessing((12, 10), 3, (0.2, 0.3, 0.4), (0.5, 0.6, 0.7))
    arguments = {"batch_size": 6, "seed": 4}
    plain = Augmentation(resized_crop=(0.3, 1.0))
    (crops, mirrored) = (
        list(make_train_dataset(files, preprocessing, augmentation=augmentation, **arguments))
        for augmentation in (plain, replace(plain, horizontal_flip=True))
    )
    order = tf.random.experimental.stateless_shuffle(tf.range(16, dtype=tf.int64), seed=[4, 0]).numpy()
    flipped, place = [], 0
    for step, ((straight, labels), (other, _)) in enumerate(zip(crops, mirrored, strict=True)):
        seed = tf.constant([4 + 1_000_003, step], tf.int64)
        numbers = crop.draw_numbers(len(labels), seed + tf.constant([2_000_003, 0], tf.int64))
        flips = draw_flips(straight, tf.random.split(seed, 7)[1]).numpy()
        np.testing.assert_array_equal(other, np.where(flips[:, None, None, None], straight[:, :, ::-1], straight))
        for index, image in enumerate(straight):
            encoded = tf.io.read_file(files.images[order[place]])
            levels = tf.cast(crop.crop_encoded(encoded, numbers[index], (0.3, 1.0), (12, 10), 3) + 0.5, tf.uint8)
            expected = normalize(levels, preprocessing)
            np.testing.assert_allclose(image, expected, atol=0.501 / 255 / 0.5)
            assert labels[index] == files.labels[order[place]]
            place += 1
        flipped += flips.tolist()
    assert place == 16
    assert 0 < sum(flipped) < 16


@pytest.mark.parametrize("size", [(40, 90), (375, 500)])
def test_a_window_is_what_the_whole_file_has_there(size):
    """Whatever block of the JPEG it begins in, but for colour that is spread over a border."""
    pixels = tf.image.resize(np.random.default_rng(0).integers(0, 256, (1, 6, 8, 3)), size, "bicubic")[0]
    encoded = tf.io.encode_jpeg(tf.saturate_cast(pixels, tf.uint8), quality=95)
    whole = tf.io.decode_jpeg(encoded, channels=3)
    for numbers in crop.draw_numbers(12, [7, 8]):
        top, left, height, width = (int(v) for v in crop.crop_window(*size, numbers, (0.1, 0.9)))
        out = crop.crop_encoded(encoded, numbers, (0.1, 0.9), (height, width), 3, known=True)
        expected = whole[top : top + height, left : left + width]
        np.testing.assert_array_equal(out[1:-1, 1:-1], expected[1:-1, 1:-1])
        np.testing.assert_allclose(out, expected, atol=12)


def test_a_folder_is_known_to_hold_only_jpegs(files, tmp_path):
    images, labels = draw_images(4, 8, 8, 3, 2)
    assert files.store.jpeg
    assert files.take(np.array([1, 0])).store.jpeg
    mixed = write_folder(tmp_path, images, labels, ["a", "b"], suffix=".png")
    tf.io.write_file(str(mixed / "a" / "one.jpg"), tf.io.encode_jpeg(images[0]))
    data = load_data(mixed)
    assert not data.train.store.jpeg
    preprocessing = Preprocessing((8, 8), 3, (0.0,) * 3, (1.0,) * 3)
    augmentation = Augmentation(resized_crop=(0.5, 1.0))
    batches = list(make_train_dataset(data.train, preprocessing, augmentation=augmentation))
    assert sum(len(y) for _, y in batches) == len(data.train)


def test_a_job_trains_on_bytes_of_files(tmp_path):
    images, labels = draw_images(24, 9, 7, 3, 2)
    folder = write_folder(tmp_path / "files", images, labels, ["a", "b"], suffix=".png")
    recipe = {"epochs": 1, "batch_size": 8, "seed": 3, "horizontal_flip": True}
    run = jobs.train(
        folder, model=TINY, image_size_pixels=(16, 16), run_dir=tmp_path / "run", recipe=recipe,
        prepare_on="device", verbose=0,
    )  # fmt: skip
    assert run.record.input.prepare_on == "device"
    assert math.isfinite(run.record.validation.loss)
    assert keras.saving.load_model(run.model_path).input_shape == (None, 16, 16, 3)
    assert jobs.evaluate(run.path, verbose=0).accuracy == run.record.test.accuracy


def test_what_the_device_cannot_do():
    network = keras_resnet.build(TINY, (8, 8, 1), 2)
    with pytest.raises(InputError, match=r"stored images of 1 channels are needed. Received: a network on \(8, 8, 1\)"):
        keras_resnet.wrap_for_device(network, (6, 6, 1), RAW)
