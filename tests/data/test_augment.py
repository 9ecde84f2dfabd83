"""Augmentation against Pillow, NumPy and formulas; each image by itself; the same from one seed everywhere."""

import colorsys
import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from keras_resnet import Augmentation, InputError, Recipe
from keras_resnet.data.augment import erase, geometry, jitter, make_augment, mixing, randaugment
from keras_resnet.data.augment.randaugment import OPERATIONS, apply_operations, random_augment
from keras_resnet.recipes import default_recipe

ALONE = Augmentation(  # all that changes an image without looking at another
    shift_fraction=0.2,
    horizontal_flip=True,
    randaugment_ops=2,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    cutout_fraction=0.3,
    erasing_probability=0.5,
)
EVERYTHING = dataclasses.replace(ALONE, mixup_alpha=0.4, cutmix_alpha=1.0, label_smoothing=0.1)


def _images(number, channels, height=17, width=24):
    """Noise, dark noise, a ramp, one gray level, few values: what the operations tell apart."""
    images = np.random.default_rng(0).integers(0, 256, (number, height, width, channels)).astype(np.uint8)
    images[::4] //= 4
    images[1::4] = (np.indices((height, width)).sum(0) * 5 % 256).astype(np.uint8)[None, ..., None]
    images[2] = 7
    images[3, :8] = 0
    return images


def _in_pillow(name, image, strength):
    """RandAugment's operations as torchvision and the paper's authors write them in Pillow."""
    width, height = image.size
    factor = float(1 + np.float32(0.9) * np.float32(strength))  # Pillow rounds a factor to float32 as well
    size = abs(strength)
    right, down = round(strength * width * 150 / 331), round(strength * height * 150 / 331)
    return {
        "identity": lambda: image,
        "shear_x": lambda: image.transform(image.size, Image.Transform.AFFINE, (1, 0.3 * strength, 0, 0, 1, 0)),
        "shear_y": lambda: image.transform(image.size, Image.Transform.AFFINE, (1, 0, 0, 0.3 * strength, 1, 0)),
        "translate_x": lambda: image.transform(image.size, Image.Transform.AFFINE, (1, 0, -right, 0, 1, 0)),
        "translate_y": lambda: image.transform(image.size, Image.Transform.AFFINE, (1, 0, 0, 0, 1, -down)),
        "rotate": lambda: image.rotate(-30 * strength),
        "brightness": lambda: ImageEnhance.Brightness(image).enhance(factor),
        "color": lambda: ImageEnhance.Color(image).enhance(factor),
        "contrast": lambda: ImageEnhance.Contrast(image).enhance(factor),
        "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(factor),
        "posterize": lambda: ImageOps.posterize(image, 8 - round(4 * size)),
        "solarize": lambda: ImageOps.solarize(image, 256 * (1 - size)),
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
    }[name]()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_pillows(name, channels):
    images = _images(24, channels)
    strength = np.random.default_rng(1).uniform(-1, 1, 24).astype(np.float32)
    strength[:3] = 0, 1, -1
    found = apply_operations(tf.constant(images), tf.fill([24], OPERATIONS.index(name)), tf.constant(strength))
    for image, s, out in zip(images, strength, found.numpy(), strict=True):
        one = Image.fromarray(image if channels == 3 else image[..., 0])
        expected = np.asarray(_in_pillow(name, one, float(s))).reshape(image.shape)
        if name == "rotate":  # a source just between two pixels may fall to either
            assert (out != expected).any(-1).sum() <= 2
        else:
            np.testing.assert_array_equal(out, expected)


def test_a_batch_of_mixed_operations_is_each_image_alone():
    images, operation = _images(42, 3), np.arange(42, dtype=np.int32) % 14
    strength = np.random.default_rng(1).uniform(-1, 1, 42).astype(np.float32)
    together = apply_operations(tf.constant(images), tf.constant(operation), tf.constant(strength)).numpy()
    for k in range(0, 42, 3):
        alone = apply_operations(
            tf.constant(images[k : k + 1]), tf.constant(operation[k : k + 1]), tf.constant(strength[k : k + 1])
        )
        np.testing.assert_array_equal(together[k], alone[0])


def test_magnitude_zero_changes_nothing_but_tones_that_have_none():
    images = np.tile(_images(4, 3)[:1], (300, 1, 1, 1))
    out = random_augment(images, 1, 0.0, 0.0, [1, 2]).numpy()
    changed = (out != images).any((1, 2, 3)).mean()
    assert 0.08 < changed < 0.22  # autocontrast and equalize are 2 of 14
    out = random_augment(images.astype(np.float32), 2, 7.0, 0.5, [1, 2])
    assert out.dtype == tf.uint8
    np.testing.assert_array_equal(out, random_augment(images, 2, 7.0, 0.5, [1, 2]))
    assert len({image.tobytes() for image in out.numpy()}) > 150  # each image by its own draw


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_is_its_formulas(channels):
    images = np.random.default_rng(1).uniform(0, 255, (6, 5, 7, channels)).astype(np.float32)
    factors = np.array([0.0, 0.3, 1.0, 1.0, 1.7, 3.0], np.float32)
    f = factors[:, None, None, None]
    luma = (images * ([0.2989, 0.587, 0.114] if channels == 3 else [1.0])).sum(-1, keepdims=True)
    mean = luma.mean((1, 2, 3), keepdims=True)
    for function, expected in (
        (jitter.adjust_brightness, f * images),
        (jitter.adjust_contrast, f * images + (1 - f) * mean),
        (jitter.adjust_saturation, f * images + (1 - f) * luma if channels == 3 else images),
    ):
        out = function(tf.constant(images), tf.constant(factors)).numpy()
        np.testing.assert_allclose(out, expected.clip(0, 255), atol=0.02)
        np.testing.assert_allclose(out[2:4], images[2:4], atol=0.02)  # a factor of 1
    turned = jitter.adjust_hue(tf.constant(images), tf.constant([0.0, 0.2, -0.2, 0.5, -0.5, 0.1])).numpy()
    if channels == 1:
        np.testing.assert_array_equal(turned, images)
        return
    for image, rotation, out in zip(images, [0.0, 0.2, -0.2, 0.5, -0.5, 0.1], turned, strict=True):
        for pixel, found in zip(image.reshape(-1, 3), out.reshape(-1, 3), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
            expected = np.array(colorsys.hsv_to_rgb((hue + rotation) % 1, saturation, value)) * 255
            np.testing.assert_allclose(found, expected, atol=0.05)


@given(st.floats(0, 2), st.floats(0, 2), st.integers(0, 2**31))
@settings(max_examples=8, deadline=None, derandomize=True)
def test_jitter_factors_stay_in_their_range(brightness, contrast, seed):
    images = np.full((64, 2, 2, 1), 50, np.uint8)
    out = jitter.random_jitter(images, brightness, 0, 0, 0, [seed, 0]).numpy()[:, 0, 0, 0] / 50
    assert out.min() >= max(1 - brightness, 0) - 1e-5
    assert out.max() <= 1 + brightness + 1e-5
    assert len(np.unique(out)) > 30 or brightness < 1e-4
    even = jitter.random_jitter(images, 0, contrast, 0, 0, [seed, 0])  # one gray level is its own mean
    np.testing.assert_allclose(even, images, atol=0.01)


@pytest.mark.parametrize(("height", "width", "channels"), [(8, 8, 1), (9, 13, 3), (6, 4, 2)])
def test_shift_and_flip_are_numpys(height, width, channels):
    images = np.random.default_rng(1).integers(1, 256, (40, height, width, channels)).astype(np.uint8)
    shifts = geometry.draw_shifts(tf.constant(images), 0.3, [5, 6])
    flips = geometry.draw_flips(tf.constant(images), [7, 8])
    rows, columns = round(height * 0.3), round(width * 0.3)
    assert set(shifts[0].numpy()) == set(range(-rows, rows + 1))
    assert set(shifts[1].numpy()) == set(range(-columns, columns + 1))
    for dtype in (np.uint8, np.float32):
        out = geometry.shift_and_flip(images.astype(dtype), shifts, flips).numpy()
        assert out.dtype == dtype
        for image, down, right, flip, found in zip(images, *map(np.array, shifts[:2]), flips.numpy(), out, strict=True):
            padded = np.pad(image, ((rows, rows), (columns, columns), (0, 0)))
            top, left = rows - down, columns - right
            expected = padded[top : top + height, left : left + width]
            np.testing.assert_array_equal(found, expected[:, ::-1] if flip else expected)


@given(st.integers(1, 6), st.floats(0.01, 1), st.integers(0, 2**31))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_cutout_is_a_square_cut_at_the_border(channels, fraction, seed):
    images = np.full((30, 12, 15, channels), 9, np.uint8)
    black = erase.random_cutout(images, fraction, [seed, 1]).numpy() == 0
    assert (black == black[..., :1]).all()  # all channels alike
    side = max(round(fraction * 12), 1)
    for mask in black[..., 0]:
        rows, columns = mask.any(1), mask.any(0)
        assert (mask == rows[:, None] & columns[None]).all()
        for part, length in ((rows, 12), (columns, 15)):
            where = np.flatnonzero(part)
            assert (np.diff(where) == 1).all()
            assert len(where) == side or 0 in where or length - 1 in where
            assert 1 <= len(where) <= side


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_erasing_fills_a_rectangle_of_a_share_of_the_images_with_noise(dtype):
    images = np.full((400, 20, 30, 3), 300 if dtype == np.float32 else 128, dtype)
    out = erase.random_erasing(images, 0.4, [3, 1]).numpy()
    assert out.dtype == dtype
    erased = (out != images).any(-1)
    hit = erased.any((1, 2))
    assert 0.33 < hit.mean() < 0.47
    boxes = [(np.flatnonzero(m.any(1)), np.flatnonzero(m.any(0))) for m in erased[hit]]
    areas = np.array([(np.ptp(rows) + 1) * (np.ptp(columns) + 1) / 600 for rows, columns in boxes])
    assert areas.min() > 0.005
    assert areas.max() <= 0.42
    assert 0.15 < areas.mean() < 0.25
    noise = np.concatenate([out[hit][k][m] for k, m in enumerate(erased[hit])]).astype(float)
    assert abs(noise.mean() - 127.5) < 2
    assert abs(noise.std() - 73.9) < 2
    np.testing.assert_array_equal(erase.random_erasing(images, 0.0, [3, 1]), images)


def _mixed(augmentation, classes=5, batch=40):
    """Images of one level each, so that a mixed pixel tells its weight; labels that tell the image."""
    images = np.tile((np.arange(batch, dtype=np.float32) * 5)[:, None, None, None], (1, 10, 12, 1))
    return images, *make_augment(augmentation, classes=batch)(images, np.arange(batch), [4, 2])


def test_mixup_weighs_images_and_labels_alike():
    images, out, labels = _mixed(Augmentation(mixup_alpha=0.5))
    labels = labels.numpy()
    np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)
    distances = set()
    for k, (image, label) in enumerate(zip(out.numpy(), labels, strict=True)):
        np.testing.assert_allclose(image, np.full_like(image, label @ images[:, 0, 0, 0]), atol=1e-3)
        others = set(np.flatnonzero(label)) - {k}
        assert len(others) <= 1  # a pair, not more
        distances |= {(other - k) % 40 for other in others}
    assert len(distances) == 1
    assert labels.diagonal().std() > 0.05


def test_cutmix_labels_are_shares_of_the_area():
    images, out, labels = _mixed(Augmentation(cutmix_alpha=1.0))
    labels, levels = labels.numpy(), images[:, 0, 0, 0]
    for k, (image, label) in enumerate(zip(out.numpy()[..., 0], labels, strict=True)):
        for j in range(40):
            assert label[j] == pytest.approx((image == levels[j]).mean(), abs=1e-5)
        foreign = image != levels[k]
        assert (foreign == foreign.any(1)[:, None] & foreign.any(0)[None]).all()  # a rectangle
    assert labels.diagonal().min() < 0.5 < labels.diagonal().max()


def test_with_both_each_image_has_one_of_the_two():
    images, out, labels = _mixed(Augmentation(mixup_alpha=1.0, cutmix_alpha=1.0))
    kinds = []
    for k, (image, label) in enumerate(zip(out.numpy()[..., 0], labels.numpy(), strict=True)):
        np.testing.assert_allclose(image.mean(), label @ images[:, 0, 0, 0], atol=0.01)
        kinds.append("mixup" if np.ptp(image) < 1e-3 and label[k] < 0.999 else "cutmix")
    assert 8 < kinds.count("mixup") < 32


def test_an_image_alone_is_mixed_with_itself():
    images, labels = make_augment(EVERYTHING, classes=3)(np.full((1, 4, 4, 1), 9, np.uint8), np.array([1]), [0, 0])
    assert images.shape == (1, 4, 4, 1)
    np.testing.assert_allclose(labels, [[0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3]], rtol=1e-6)


@given(st.floats(0, 0.99), st.sampled_from([0.0, 0.2, 1.0]), st.sampled_from([0.0, 1.0]), st.integers(2, 7))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_labels_stay_weights(smoothing, mixup, cutmix, classes):
    augmentation = Augmentation(label_smoothing=smoothing, mixup_alpha=mixup, cutmix_alpha=cutmix)
    labels = np.arange(9) % classes
    _, out = make_augment(augmentation, classes=classes)(np.zeros((9, 4, 4, 1), np.uint8), labels, [1, 1])
    if not augmentation.soft_labels:
        np.testing.assert_array_equal(out, labels)
        return
    np.testing.assert_allclose(np.sum(out, 1), 1, atol=1e-5)
    assert np.min(out) >= smoothing / classes - 1e-6
    if not mixup and not cutmix:
        np.testing.assert_allclose(out, (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes, atol=1e-6)


@pytest.mark.parametrize("alpha", [1e-3, 0.2, 1.0, 5.0])
def test_beta_draws_have_its_mean_and_variance(alpha):
    draws = mixing.draw_beta([20_000], [3, 4], alpha).numpy()
    assert np.isfinite(draws).all()
    assert draws.min() >= 0
    assert draws.max() <= 1
    assert draws.mean() == pytest.approx(0.5, abs=0.015)
    assert draws.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.float32), (2, np.uint8), (3, np.uint8)])
def test_everything_at_once_is_the_same_eagerly_and_in_any_pipeline(channels, dtype):
    images, labels = _images(16, channels).astype(dtype), np.arange(16) % 4
    augment = make_augment(EVERYTHING, classes=4)
    expected = augment(images, labels, [5, 6])
    assert expected[0].shape == images.shape
    assert expected[0].dtype == tf.float32
    assert np.min(expected[0]) >= 0
    assert np.max(expected[0]) <= 255.001
    # Batches of unknown size, as in an uneven epoch; the same one several times, for threads to work side by side.
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(16).repeat(4)
    mapped = dataset.map(lambda x, y: augment(x, y, [5, 6]), tf.data.AUTOTUNE)
    batches = []
    for threads in (1, 2):
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        batches += list(mapped.with_options(options))
    for image, label in batches:
        np.testing.assert_array_equal(image, batches[0][0])
        np.testing.assert_array_equal(label, batches[0][1])
        np.testing.assert_allclose(image, expected[0], atol=1e-3)
        np.testing.assert_allclose(label, expected[1], atol=1e-6)
    assert (augment(images, labels, [5, 7])[0] != expected[0]).numpy().any()


def test_an_image_does_not_depend_on_the_others():
    augment = make_augment(ALONE)
    images = _images(12, 3)
    others = images.copy()
    others[1:] = np.random.default_rng(1).integers(0, 256, others[1:].shape)
    one, two = (augment(x, np.zeros(12, np.int64), [8, 9])[0].numpy() for x in (images, others))
    np.testing.assert_array_equal(one[0], two[0])
    assert (one[1:] != two[1:]).any()
    same = augment(np.tile(images[5], (12, 1, 1, 1)), np.zeros(12, np.int64), [8, 9])[0].numpy()
    assert len({image.tobytes() for image in same}) == 12


def test_switching_one_change_on_leaves_the_draws_of_the_others():
    images, labels = _images(16, 3), np.zeros(16, np.int64)
    shifted = make_augment(Augmentation(shift_fraction=0.2))(images, labels, [1, 2])[0]
    both = make_augment(Augmentation(shift_fraction=0.2, cutout_fraction=0.3))(images, labels, [1, 2])[0]
    kept = both.numpy() != 0
    np.testing.assert_array_equal(both.numpy()[kept], shifted.numpy()[kept])
    for augmentation in (Augmentation(), Augmentation(resized_crop=(0.3, 1.0))):  # crops are made at decoding
        np.testing.assert_array_equal(make_augment(augmentation)(images, labels, [1, 2])[0], images)


def test_soft_labels_need_the_number_of_classes():
    for classes in (None, 1):
        with pytest.raises(
            InputError, match=rf"need classes, the number of classes, of at least 2. Received: {classes}"
        ):
            make_augment(Augmentation(label_smoothing=0.1), classes=classes)
    make_augment(ALONE)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("shift_fraction", 1.0, r"shift_fraction must be at least 0 and below 1. Received: 1.0"),
        ("horizontal_flip", "yes", r"horizontal_flip must be True or False. Received: 'yes'"),
        ("resized_crop", (0.0, 1.0), r"resized_crop must be \(least, greatest\) share .* Received: \(0.0, 1.0\)"),
        ("resized_crop", (0.5, 0.4), r"0 < least <= greatest <= 1, or None. Received: \(0.5, 0.4\)"),
        ("resized_crop", 0.5, r"resized_crop must be .* Received: 0.5"),
        ("randaugment_ops", 1.5, r"randaugment_ops must be an integer of at least 0. Received: 1.5"),
        ("randaugment_magnitude", 11, r"randaugment_magnitude must be at least 0 and at most 10. Received: 11"),
        ("brightness", -0.1, r"brightness must be at least 0. Received: -0.1"),
        ("hue", 0.6, r"hue must be at least 0 and at most 0.5. Received: 0.6"),
        ("cutout_fraction", 1.1, r"cutout_fraction must be at least 0 and at most 1. Received: 1.1"),
        ("erasing_probability", float("nan"), r"erasing_probability must be at least 0 and at most 1. Received: nan"),
        ("mixup_alpha", True, r"mixup_alpha must be at least 0. Received: True"),
        ("label_smoothing", 1, r"label_smoothing must be at least 0 and below 1. Received: 1"),
    ],
)
def test_bad_fields_are_errors_of_both_records(field, value, text):
    for record in (Augmentation, Recipe):
        with pytest.raises(InputError, match=text):
            record(**{field: value})


def test_a_recipe_holds_an_augmentation_and_both_round_trip():
    chosen = dataclasses.replace(EVERYTHING, resized_crop=(0.35, 1.0))
    recipe = Recipe(epochs=3, **chosen.to_dict())
    assert recipe.augmentation == chosen
    assert Augmentation.from_dict(chosen.to_dict()) == chosen
    values = recipe.to_dict() | {"resized_crop": [0.35, 1.0]}  # as JSON has it
    assert Recipe.from_dict(values) == recipe
    assert not Recipe().soft_labels
    assert Recipe().augmentation == Augmentation()
    for name in ("digits", "mnist"):
        assert not default_recipe(name, 1000).horizontal_flip


def test_operations_are_those_of_torchvision():
    assert len(OPERATIONS) == 14
    assert randaugment.GREATEST_MAGNITUDE == 10
