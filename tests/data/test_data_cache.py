"""The cache of decoded sets, sets above the memory limit, and TFDS sets made here."""

import itertools
import logging
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY, draw_images

from keras_resnet import InputError, Preprocessing, jobs, load_data, make_eval_dataset, make_train_dataset
from keras_resnet.data import cache, compute_preprocessing, encoded, streams

RAW = Preprocessing((6, 5), 3, (0.0,) * 3, (1 / 255,) * 3)  # pixels as they are
NUMBER = 45


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A TFDS set as it would be downloaded: 45 images of 6x5, each of one level, in 3 files."""
    import tensorflow_datasets as tfds

    class LevelSet(tfds.core.GeneratorBasedBuilder):
        """Flat colours."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(6, 5, 3)),
                "label": tfds.features.ClassLabel(names=["p", "q", "r"]),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for index in range(NUMBER):
                yield index, {"image": np.full((6, 5, 3), 5 * index, np.uint8), "label": index % 3}

    path = tmp_path_factory.mktemp("tfds")
    LevelSet(data_dir=path).download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=3))
    return path


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def _arrays():
    return {"images": np.arange(60, dtype=np.uint8).reshape(5, 3, 4), "labels": np.arange(5)}


def _never():
    raise AssertionError("must come from the cache")


# The cache


def test_arrays_are_made_once_and_mapped_afterwards(own_cache):
    made_first = cache.load_or_make("set", {"version": 1}, _arrays)
    again = cache.load_or_make("set", {"version": 1}, _never)
    for arrays in (made_first, again):
        np.testing.assert_array_equal(arrays["images"], _arrays()["images"])
        np.testing.assert_array_equal(arrays["labels"], _arrays()["labels"])
        assert isinstance(arrays["images"], np.memmap)
    again["images"][0] = 99  # a user's own change stays the user's own
    np.testing.assert_array_equal(cache.load_or_make("set", {"version": 1}, _never)["images"], _arrays()["images"])
    other = cache.load_or_make("set", {"version": 2}, lambda: {"labels": np.arange(3)})
    assert list(other) == ["labels"]
    assert len(list(own_cache.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "foreign", "other key", "empty", "header"])
def test_a_broken_or_foreign_file_is_made_anew(own_cache, damage, caplog):
    cache.load_or_make("set", {"version": 1}, _arrays)
    (path,) = own_cache.iterdir()
    whole = path.read_bytes()
    changed = {
        "cut": whole[:-4096],
        "flip": whole[:4100] + bytes([whole[4100] ^ 1]) + whole[4101:],
        "foreign": b"not ours" * 1000,
        "other key": whole.replace(b"version", b"vershun", 1),
        "empty": b"",
        "header": whole.replace(b'"offset"', b'"offsat"', 1),
    }[damage]
    path.write_bytes(changed)
    calls = []
    with caplog.at_level(logging.WARNING):
        arrays = cache.load_or_make("set", {"version": 1}, lambda: calls.append(1) or _arrays())
    assert calls == [1]
    assert "cannot be used and is made anew" in caplog.text
    np.testing.assert_array_equal(arrays["images"], _arrays()["images"])
    assert path.read_bytes() == whole


def test_two_writers_leave_one_whole_file(own_cache):
    """Both find nothing, both write: each into a file of its own, which is renamed when it is whole."""
    both_make = threading.Barrier(2, timeout=60)
    results = []

    def make():
        both_make.wait()
        return _arrays()

    threads = [threading.Thread(target=lambda: results.append(cache.load_or_make("set", {}, make))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.suffix for path in own_cache.iterdir()] == [".arrays"]
    for arrays in (*results, cache.load_or_make("set", {}, _never)):
        np.testing.assert_array_equal(arrays["images"], _arrays()["images"])


def test_without_a_folder_to_write_there_is_no_cache(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "file"))
    assert list(cache.load_or_make("set", {}, _arrays)) == ["images", "labels"]
    assert f"{cache.CACHE_VARIABLE} names another folder" in caplog.text
    monkeypatch.setenv(cache.CACHE_VARIABLE, "")
    assert cache.cache_folder() is None
    assert list(cache.load_or_make("set", {}, _arrays)) == ["images", "labels"]
    monkeypatch.delenv(cache.CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "keras_resnet"


def test_a_set_is_decoded_once(made, own_cache, monkeypatch):
    from keras_resnet.data import tfds_source

    first = load_data("level_set", data_dir=made)
    assert not first.train.encoded
    assert [path.name.split("-")[0] for path in own_cache.iterdir()] == ["level_set_1.0.0"]
    monkeypatch.setattr(tfds_source, "_fill", _never)
    again = load_data("level_set", data_dir=made)
    np.testing.assert_array_equal(again.train.images, first.train.images)
    np.testing.assert_array_equal(again.test.labels, first.test.labels)


# Streams


@pytest.fixture
def streamed(made):
    return load_data("level_set", data_dir=made, memory_limit_bytes=1000)


def _values(dataset):
    return [[round(float(value) / 5) for value in x[:, 0, 0, 0]] for x, _ in dataset]


def test_above_the_limit_a_set_is_streamed_with_the_same_split(made, streamed, caplog):
    with caplog.at_level(logging.INFO):
        load_data("level_set", data_dir=made, memory_limit_bytes=NUMBER * 90 - 1)
        assert "above the limit of 0.0 MiB (memory_limit_bytes, --memory-limit): it is streamed" in caplog.text
    held = load_data("level_set", data_dir=made, memory_limit_bytes=NUMBER * 90)
    assert not held.train.streamed
    assert streamed.train.streamed
    for part in ("train", "test"):
        ours, theirs = getattr(streamed, part), getattr(held, part)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        batches = zip(
            make_eval_dataset(ours, RAW, batch_size=7), make_eval_dataset(theirs, RAW, batch_size=7), strict=True
        )
        for (x, y), (x_held, y_held) in batches:
            np.testing.assert_allclose(x, x_held, atol=1e-4)
            np.testing.assert_array_equal(y, y_held)
    a, b = (compute_preprocessing(data, data.train) for data in (streamed, held))
    np.testing.assert_allclose(a.mean, b.mean, atol=1e-6)


@pytest.mark.parametrize("batch_size", [9, 8])  # 36 training images: even batches, and 5 of 7 or 8
def test_a_stream_replays_and_starts_in_the_middle(streamed, batch_size, monkeypatch):
    monkeypatch.setattr(streams, "SHUFFLE_IMAGES", 10)
    arguments = {"batch_size": batch_size, "seed": 3}
    dataset = make_train_dataset(streamed.train, RAW, **arguments)
    epochs = [_values(dataset), _values(dataset)]
    for epoch in epochs:
        assert sorted(itertools.chain(*epoch)) == sorted(round(int(place)) for place in _places(streamed))
        assert max(map(len, epoch)) - min(map(len, epoch)) <= 1
    assert epochs[0] != epochs[1]
    again = make_train_dataset(streamed.train, RAW, **arguments)
    import tensorflow as tf

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    again = again.with_options(options)
    tf.random.set_seed(77)  # the global seed has no part in it
    assert [_values(again), _values(again)] == epochs
    late = make_train_dataset(streamed.train, RAW, first_epoch=1, first_step=2, **arguments)
    assert _values(late) == epochs[1][2:]


def _places(data):
    """The levels of the training images, from the set held in memory."""
    return [
        round(float(x[0, 0, 0]) / 5) for batch, _ in make_eval_dataset(data.train, RAW, batch_size=99) for x in batch
    ]


def test_workers_of_a_stream_share_it(streamed):
    parts = [make_train_dataset(streamed.train, RAW, batch_size=4, seed=1, shard=(index, 3)) for index in range(3)]
    values = [_values(part) for part in parts]
    assert len({len(part) for part in values}) == 1
    assert sorted(itertools.chain(*itertools.chain(*values))) == sorted(_places(streamed))


def test_what_a_stream_cannot_do(streamed):
    with pytest.raises(InputError, match=r"must be taken in ascending order, each once. .*memory_limit_bytes"):
        make_eval_dataset(streamed.train.take(np.array([3, 1])), RAW)
    with pytest.raises(InputError, match=r"sampling='balanced' needs images that can be read in any order"):
        make_train_dataset(streamed.train, RAW, sampling="balanced")
    with pytest.raises(InputError, match=r"memory_limit_bytes must be a number of bytes of at least 1"):
        load_data("digits", memory_limit_bytes=0)


def test_a_stream_is_described_and_a_few_of_it_are_held(streamed):
    from keras_resnet.data import describe

    assert describe.measure_sizes(streamed.train) == ((6, 5), (6, 5))
    assert describe.count_bytes(streamed.train)[1] == "in files"
    few = encoded.hold_in_memory(streamed.train.take(np.array([7, 2, 30])))
    (x, y), *_ = make_eval_dataset(few, RAW)
    levels = _places(streamed)
    assert [round(float(value) / 5) for value in x[:, 0, 0, 0]] == [levels[7], levels[2], levels[30]]
    np.testing.assert_array_equal(y, streamed.train.labels[[7, 2, 30]])
    assert encoded.find_undecodable(streamed.train) == []


def test_an_archive_above_the_limit_is_an_error(tmp_path):
    images, labels = draw_images(20, 8, 8, 1, 2)
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    assert len(load_data(tmp_path / "set.npz", memory_limit_bytes=4000).train) == 16
    with pytest.raises(InputError, match=r"set.npz takes 0.0 MiB in memory; the limit is 0.0 MiB. Raise memory_limit"):
        load_data(tmp_path / "set.npz", memory_limit_bytes=1000)


# Damage


@pytest.fixture
def own_copy(made, own_cache, tmp_path):
    """A copy of the set, and its record files."""
    root = Path(shutil.copytree(made, tmp_path / "copy"))
    files = sorted(root.rglob("*.tfrecord*"))
    assert len(files) == 3
    return root, files


def _flip(contents, where):
    return contents[:where] + bytes([contents[where] ^ 1]) + contents[where + 1 :]


DAMAGES = {  # how, and what is said of the records
    "cut": (lambda contents: contents[: len(contents) // 2], r"damaged after record \d of 15 \(truncated record at"),
    "cut in a header": (lambda contents: contents[:5], r"damaged after record 0 of 15 \(it ends there\)"),
    "flipped": (
        lambda contents: _flip(contents, len(contents) - 20),
        r"damaged after record 14 of 15 \(corrupted record at",
    ),
    "a length flipped": (lambda contents: _flip(contents, 2), r"damaged after record 0 of 15 \(corrupted record at"),
    "empty": (lambda _: b"", r"damaged after record 0 of 15 \(it ends there\)"),
}


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize("limit", [None, 1000])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_file_is_named(own_copy, damage, limit, on_error):
    root, files = own_copy
    change, message = DAMAGES[damage]
    files[1].write_bytes(change(files[1].read_bytes()))
    with pytest.raises(InputError, match=rf"level_set train: .*Received: {files[1]}, {message}.* so none are skipped"):
        load_data("level_set", data_dir=root, memory_limit_bytes=limit, on_error=on_error)


@pytest.mark.parametrize("limit", [None, 1000])
def test_a_record_file_that_is_gone_is_named(own_copy, limit):
    root, files = own_copy
    files[2].unlink()
    with pytest.raises(InputError, match=rf"every record file must be there. Received: {files[2]}, which is not"):
        load_data("level_set", data_dir=root, memory_limit_bytes=limit)


def _damage_in_silence(file):
    """As a disk does: with size and time of the file unchanged, so that the labels in the cache are still its."""
    before = file.stat()
    file.write_bytes(_flip(file.read_bytes(), before.st_size // 2))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_damage_behind_the_cached_labels_is_named_by_whatever_reads_it(own_copy):
    root, files = own_copy
    arguments = {"data_dir": root, "memory_limit_bytes": 1000}
    data = load_data("level_set", **arguments)
    _damage_in_silence(files[0])
    message = rf"Received: {files[0]}, damaged after record 7 of 15 \(corrupted record at"
    with pytest.raises(InputError, match=message):
        load_data("level_set", on_error="skip", **arguments)  # decodes all once, and skips none of those behind
    data = load_data("level_set", **arguments)
    for what in (
        lambda: encoded.check_decodable(data.test),
        lambda: compute_preprocessing(data, data.train),
        lambda: list(make_train_dataset(data.train, RAW)),
        lambda: jobs.train("level_set", model=TINY, run_dir=root / "run", verbose=0, **arguments),
        lambda: jobs.inspect_data("level_set", memory_limit_bytes=1000, data_dir=root),
    ):
        with pytest.raises(InputError, match=message), encoded.naming_undecodable(data.train):
            what()


@pytest.mark.parametrize("limit", [None, 1000])
def test_an_image_in_whole_records_is_skipped_and_counted(made, own_copy, limit, caplog):
    """Its bytes are no image; the record around them has the right checksums."""
    import tensorflow as tf

    root, files = own_copy
    arguments = {"data_dir": root, "memory_limit_bytes": limit}
    held = load_data("level_set", data_dir=made)
    records = [bytes(record.numpy()) for record in tf.data.TFRecordDataset(str(files[1]))]
    example = tf.train.Example.FromString(records[4])
    example.features.feature["image"].bytes_list.value[0] = b"\x89PNG\r\n\x1a\n and no more"
    records[4] = example.SerializeToString()
    with tf.io.TFRecordWriter(str(files[1])) as writer:
        for record in records:
            writer.write(record)
    broken = "example 19 of level_set train"
    if limit is None:
        with pytest.raises(InputError, match=rf"{broken} could not be decoded as a PNG or JPEG image: "):
            load_data("level_set", **arguments)
    with caplog.at_level(logging.WARNING):
        data = load_data("level_set", on_error="skip", **arguments)
    assert data.skipped == (broken,)
    assert f"1 of {NUMBER} images could not be decoded and were skipped: {broken}" in caplog.text
    missing = []  # every other image is where it was; levels tell them apart.
    for part in ("train", "test"):
        datasets = [make_eval_dataset(getattr(images, part), RAW) for images in (data, held)]
        ours, theirs = (list(itertools.chain(*_values(dataset))) for dataset in datasets)
        assert [level for level in theirs if level in ours] == ours
        missing.append(len(theirs) - len(ours))
    assert sorted(missing) == [0, 1]
    if limit is None:  # from the cache, too
        with pytest.raises(InputError, match=rf"{broken} could not be decoded as a PNG or JPEG image"):
            load_data("level_set", **arguments)
