"""Where images are: the same questions, answered alike by pixels, bytes, files and a stream."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import draw_images
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from keras_resnet import InputError, Preprocessing, make_eval_dataset, make_train_dataset
from keras_resnet.data import Split, encoded
from keras_resnet.data.describe import count_bytes, measure_sizes
from keras_resnet.data.stores import BytesStore, FileStore, PixelStore, StreamStore, make_store
from keras_resnet.data.streams import Stream

NUMBER = 10
PIXELS, LABELS = draw_images(NUMBER, 6, 5, 3, 3)
RAW = Preprocessing((6, 5), 3, (0.0,) * 3, (1 / 255,) * 3)  # pixels as they are
ENCODED = ["bytes", "files", "stream"]
ALL = ["pixels", *ENCODED]


def _parse(record):
    """A record is a byte, the label, and then a PNG."""
    return tf.strings.substr(record, 1, -1), tf.cast(
        tf.io.decode_raw(tf.strings.substr(record, 0, 1), tf.uint8)[0], tf.int64
    )


@pytest.fixture(scope="module")
def contents():
    buffers = [io.BytesIO() for _ in PIXELS]
    for image, buffer in zip(PIXELS, buffers, strict=True):
        Image.fromarray(image).save(buffer, "PNG")
    return [buffer.getvalue() for buffer in buffers]


@pytest.fixture(scope="module")
def stores(tmp_path_factory, contents):
    """The same images in each kind of store; the stream has two record files."""
    folder = tmp_path_factory.mktemp("stores")
    paths = [folder / f"{index}.png" for index in range(NUMBER)]
    for path, image in zip(paths, contents, strict=True):
        path.write_bytes(image)
    files = [str(folder / name) for name in ("one.tfrecord", "two.tfrecord")]
    for file, part in zip(files, (range(4), range(4, NUMBER)), strict=True):
        with tf.io.TFRecordWriter(file) as writer:
            for index in part:
                writer.write(bytes([LABELS[index]]) + contents[index])
    stream = Stream("made train", tuple(files), (4, NUMBER - 4), _parse, 100.0)
    return {
        "pixels": make_store(PIXELS),
        "bytes": make_store(contents),
        "files": make_store(paths),
        "stream": StreamStore(np.arange(NUMBER), stream),
    }


def _pixels_of(store, values):
    """The pixels of what `gather` returned."""
    return np.stack([np.asarray(tf.io.decode_png(store.load(value)) if store.encoded else value) for value in values])


@pytest.mark.parametrize("kind", ALL)
def test_what_each_says_of_itself(stores, contents, kind):
    store, split = stores[kind], Split(stores[kind], LABELS)
    assert len(store) == len(split) == NUMBER
    assert store.encoded == split.encoded == (kind != "pixels")
    assert store.streamed == split.streamed == (kind == "stream")
    assert store.image_shape == split.image_shape == ((6, 5, 3) if kind == "pixels" else None)
    assert split.images is store.images
    taken = split.take(np.array([2, 7]))
    assert type(taken.store) is type(store)
    assert list(taken.labels) == list(LABELS[[2, 7]])
    name = {"files": str(stores["files"].images[7]), "stream": "example 7 of made train"}.get(kind, "image 1")
    assert taken.store.name(1) == name
    size = {"pixels": PIXELS.nbytes, "stream": 1000}.get(kind, sum(map(len, contents)))
    assert count_bytes(split) == (size, "in files" if kind in ("files", "stream") else "in memory")
    assert measure_sizes(split) == ((6, 5), (6, 5))
    store.check_readable()


@given(st.lists(st.integers(0, NUMBER - 1), unique=True, min_size=1))
@settings(max_examples=5, deadline=None, derandomize=True)
@pytest.mark.parametrize("kind", ALL)
def test_any_images_are_gathered_in_any_order(stores, kind, chosen):
    store, chosen = stores[kind], np.array(chosen)
    values = store.gather(chosen)
    np.testing.assert_array_equal(_pixels_of(store, values), PIXELS[chosen])
    assert store.element.dtype == (tf.uint8 if kind == "pixels" else tf.string)
    assert store.element.shape == values.shape[1:]
    held = store.take(chosen).hold()  # from a stream in an order that it cannot be read in
    assert not held.streamed
    assert held.encoded == store.encoded
    np.testing.assert_array_equal(_pixels_of(held, held.gather(np.arange(len(chosen)))), PIXELS[chosen])


@pytest.mark.parametrize("kind", ENCODED)
def test_encoded_images_are_read_in_order_or_sampled(stores, contents, kind):
    store = stores[kind]
    assert list(store.read_encoded().as_numpy_iterator()) == list(enumerate(contents))
    few = store.take(np.array([1, 4, 9]))
    assert [image for _, image in few.read_encoded().as_numpy_iterator()] == [contents[index] for index in (1, 4, 9)]
    sample = list(store.read_sample(4).as_numpy_iterator())
    assert len(set(sample)) == 4
    assert set(sample) <= set(contents)
    assert set(store.read_sample(NUMBER + 1).as_numpy_iterator()) == set(contents)
    opened = []
    for stored in store.open_sample(4):
        with Image.open(stored) as image:
            opened.append(np.asarray(image))
    places = [0, 1, 2, 3] if kind == "stream" else [0, 3, 6, 9]
    np.testing.assert_array_equal(np.stack(opened), PIXELS[places])


def test_pixels_have_no_headers_to_open(stores):
    assert list(stores["pixels"].open_sample(4)) == []


def test_all_give_the_same_batches(stores):
    splits = {kind: Split(store, LABELS) for kind, store in stores.items()}
    batches = {kind: list(make_eval_dataset(split, RAW, batch_size=4)) for kind, split in splits.items()}
    for kind in ENCODED:
        for (x, y), (expected, labels) in zip(batches[kind], batches["pixels"], strict=True):
            np.testing.assert_allclose(x, expected, atol=1e-4)
            np.testing.assert_array_equal(y, labels)
    orders = {
        kind: [y.numpy().tolist() for _, y in make_train_dataset(split, RAW, batch_size=4)]
        for kind, split in splits.items()
    }
    assert orders["pixels"] == orders["bytes"] == orders["files"]
    assert sorted(itertools.chain(*orders["stream"])) == sorted(LABELS.tolist())


@pytest.mark.parametrize(("count", "batch_size"), [(3, 4), (4, 2)])
def test_workers_share_a_stream_that_does_not_divide_evenly(stores, count, batch_size):
    split = Split(stores["stream"], LABELS)
    shares = [list(make_train_dataset(split, RAW, batch_size=batch_size, shard=(k, count))) for k in range(count)]
    assert len({len(share) for share in shares}) == 1
    assert max(len(x) for share in shares for x, _ in share) <= batch_size
    seen = []
    for x, y in itertools.chain(*shares):
        indices = [int(np.abs(PIXELS - image).sum((1, 2, 3)).argmin()) for image in x.numpy()]
        np.testing.assert_array_equal(y, LABELS[indices])
        seen += indices
    assert sorted(seen) == list(range(NUMBER))


@pytest.mark.parametrize(
    ("images", "kind"),
    [
        (PIXELS, PixelStore),
        (list(PIXELS), PixelStore),
        (np.array(["a.png", "b.png"]), FileStore),
        ([Path("a.png"), Path("b.png")], FileStore),
        (("a.png", Path("b.png")), FileStore),
        (np.array([Path("a.png"), "b.png"], object), FileStore),
        ([b"one", b"three\0"], BytesStore),
        (np.array([b"one", b"three"], object), BytesStore),
        (np.array([b"one", b"three"]), BytesStore),
    ],
)
def test_what_users_pass_becomes_its_store(images, kind):
    store = make_store(images)
    assert type(store) is kind
    assert make_store(store) is store
    assert len(store) == len(images)
    if kind is BytesStore:
        assert [type(image) for image in store.images] == [bytes] * 2
        assert [len(image) for image in store.images] == list(map(len, images))
    elif kind is FileStore:
        assert store.images.tolist() == ["a.png", "b.png"]


def test_pixels_are_not_copied():
    assert Split(PIXELS, LABELS).images is PIXELS


@pytest.mark.parametrize(
    ("images", "received"),
    [
        (PIXELS.astype(np.float32), r"float32, shape \(10, 6, 5, 3\)"),
        (PIXELS[..., 0], r"uint8, shape \(10, 6, 5\)"),
        (np.arange(NUMBER), r"int64, shape \(10,\)"),
        (["a.png", 3], r"a list of unequal items"),
        ([np.zeros((2, 2, 3), np.uint8), np.zeros((3, 2, 3), np.uint8)], r"a list of unequal items"),
        (np.array([b"one", "two.png"], object), r"object, shape \(2,\)"),
    ],
)
def test_what_is_no_images_is_named(images, received):
    with pytest.raises(
        InputError, match=rf"Images must be uint8 pixels .* bytes of PNG and JPEG files. Received: {received}"
    ):
        Split(images, np.zeros(len(images), np.int64))


def test_there_is_one_label_per_image():
    with pytest.raises(InputError, match=r"There must be one label per image. Received: 10 images, 9 labels"):
        Split(PIXELS, LABELS[1:])


@pytest.mark.parametrize("kind", ENCODED)
def test_a_broken_image_is_found_and_named_wherever_it_is(stores, contents, tmp_path, kind):
    broken = contents[6][:50]
    if kind == "bytes":
        store, name = make_store([*contents[:6], broken, *contents[7:]]), "image 6"
    elif kind == "files":
        store, name = (
            make_store([*stores["files"].images[:6], str(tmp_path / "broken.png"), *stores["files"].images[7:]]),
            "broken.png",
        )
        (tmp_path / "broken.png").write_bytes(broken)
    else:
        file = str(tmp_path / "broken.tfrecord")
        with tf.io.TFRecordWriter(file) as writer:
            for index, image in enumerate(contents):
                writer.write(bytes([LABELS[index]]) + (broken if index == 6 else image))
        store, name = (
            StreamStore(np.arange(NUMBER), Stream("made train", (file,), (NUMBER,), _parse, 1.0)),
            "example 6 of",
        )
    split = Split(store, LABELS)
    ((index, found, reason),) = encoded.find_undecodable(split)
    assert (index, name in found, bool(reason)) == (6, True, True)
    with pytest.raises(InputError, match=rf"{name}.* could not be decoded as a PNG or JPEG image"):
        encoded.check_decodable(split)


def test_a_damaged_stream_says_so(stores, tmp_path):
    whole = stores["stream"].stream
    cut = tmp_path / "cut.tfrecord"
    cut.write_bytes(Path(whole.files[1]).read_bytes()[:-7])
    stream = Stream("made train", (whole.files[0], str(cut)), whole.lengths, _parse, 100.0)
    with pytest.raises(InputError, match=rf"Received: {cut}, damaged after record 5 of 6"):
        StreamStore(np.arange(NUMBER), stream).check_readable()
