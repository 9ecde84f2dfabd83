"""Where images come from: digits, .npz, folders, TFDS."""

import numpy as np
import pytest
from helpers import draw_images, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_resnet import InputError, load_data
from keras_resnet.data import Split, draw_subset, split_stratified, tfds_sets


def test_digits_are_there_without_a_network_and_always_split_alike():
    data = load_data("digits")
    assert (len(data.train), len(data.test)) == (1438, 359)
    assert data.train.images.shape[1:] == (8, 8, 1)
    assert (data.train.images.min(), data.train.images.max()) == (0, 255)
    assert data.class_names == tuple("0123456789")
    assert set(np.bincount(data.test.labels)) <= {35, 36, 37}
    again = load_data("digits")
    np.testing.assert_array_equal(data.test.images, again.test.images)
    everything = np.concatenate([data.train.images, data.test.images]).reshape(1797, -1)
    assert everything.astype(float).sum() == pytest.approx(561718 * 255 / 16, rel=1e-3)  # scikit-learn's sum of levels


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=80),
    st.floats(0.01, 0.99),
    st.integers(0, 3),
)
def test_a_stratified_split_takes_each_class_in_proportion(labels, fraction, seed):
    labels = np.array(labels)
    rest, drawn = split_stratified(labels, fraction, seed)
    assert sorted([*rest, *drawn]) == list(range(len(labels)))
    assert len(drawn) == min(max(round(len(labels) * fraction), 1), len(labels) - 1)
    share = len(drawn) / len(labels)
    for label in np.unique(labels):
        expected = share * (labels == label).sum()
        assert abs((labels[drawn] == label).sum() - expected) <= 1.5
    again = split_stratified(labels, fraction, seed)
    np.testing.assert_array_equal(drawn, again[1])


def test_a_subset_is_drawn_by_the_seed():
    split = Split(np.arange(50, dtype=np.uint8).reshape(50, 1, 1, 1), np.arange(50))
    a, b, c = (draw_subset(split, 10, seed, what="train-size").labels for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert set(a) != set(c)
    assert len(set(a)) == 10
    assert draw_subset(split, None, 0, what="train-size") is split
    for size in (0, 51, -1):
        with pytest.raises(InputError, match=rf"train-size must be from 1 to 50, .* or 'all'. Received: {size}"):
            draw_subset(split, size, 0, what="train-size")


# The record of a source


def test_a_record_says_what_keywords_say(npz, tmp_path):
    from keras_resnet.inputs import DataSource

    typed, recorded = (
        load_data(npz, memory_limit_bytes=10**6),
        load_data(DataSource(str(npz), memory_limit_bytes=10**6)),
    )
    np.testing.assert_array_equal(typed.train.images, recorded.train.images)
    assert (typed.name, typed.origin) == (recorded.name, recorded.origin) == (str(npz), "npz")
    with pytest.raises(InputError, match=r"the limit is 0.0 MiB"):
        load_data(DataSource(str(npz), memory_limit_bytes=10))
    for also in ({"data_dir": tmp_path}, {"memory_limit_bytes": 5}, {"on_error": "skip"}):
        message = rf"A DataSource says itself how the data is read. Received: one, and {next(iter(also))}; set that in"
        with pytest.raises(InputError, match=message):
            load_data(DataSource(str(npz)), **also)
    with pytest.raises(InputError, match=r"name must be a name or a path. Received: 5"):
        load_data(5)


# .npz


def test_npz_with_and_without_a_test_split(npz, tmp_path):
    data = load_data(npz)
    assert (len(data.train), len(data.test), data.channels, data.image_size_pixels) == (96, 24, 1, (8, 8))
    assert data.class_names == ("dark", "gray", "light")
    images, labels = draw_images(50, 6, 5, 3, 5)
    np.savez(tmp_path / "two.npz", images=images, labels=labels[:, None])
    data = load_data(tmp_path / "two.npz")
    assert (len(data.train), len(data.test), data.channels, data.image_size_pixels) == (40, 10, 3, (6, 5))
    assert list(np.bincount(data.test.labels)) == [2] * 5
    np.savez(tmp_path / "gray.npz", images=images[..., 0], labels=labels)
    assert load_data(tmp_path / "gray.npz").train.images.shape == (40, 6, 5, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, r"must hold x_train, y_train, x_test, y_test, or images, labels. Received: images"),
        ({"images": np.zeros((6, 4, 4, 1), np.float32)}, r"images must be uint8 .* Received: float32 from 0.0 to 0.0"),
        (
            {"images": np.zeros((6, 16), np.uint8)},
            r"images must be \(number, height, width\).* Received: shape \(6, 16\)",
        ),
        ({"labels": np.arange(6) % 2 - 1}, r"integers from 0 to 1 .*Received: -1 at index 0; 3 of 6"),
        (
            {"labels": np.array([0, 1, 255, 0, 1, 255])},
            r"with 3 different labels and no class_names: .* Received: 255 at index 2",
        ),
        ({"labels": np.zeros(6)}, r"labels must be integers, one per image. Received: float64, shape \(6,\)"),
        ({"labels": np.zeros(5, int)}, r"images has 6 images and labels 5 labels; they must match"),
        (
            {"class_names": np.array(["a", "b"]), "labels": np.arange(6) % 3},
            r"from 0 to 1 \(2 classes\). Received: 2 at index",
        ),
        ({"labels": np.zeros(6, int)}, r"there must be at least 2 classes. Received: 0"),
        ({"class_names": np.array("ab")}, r"class_names must be a list of names. Received: shape \(\)"),
    ],
)
def test_bad_npz(tmp_path, changes, message):
    arrays = {"images": np.zeros((6, 4, 4, 1), np.uint8), "labels": np.arange(6) % 2, **changes}
    np.savez(tmp_path / "bad.npz", **{key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(InputError, match=message):
        load_data(tmp_path / "bad.npz")


def test_npz_that_is_none_or_holds_objects(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InputError, match=r"could not be read as an .npz archive"):
        load_data(tmp_path / "text.npz")
    np.savez(tmp_path / "pickle.npz", images=np.array([{}], object), labels=np.zeros(1, int))
    with pytest.raises(InputError, match=r"could not be read as an .npz archive of plain arrays"):
        load_data(tmp_path / "pickle.npz")
    with pytest.raises(InputError, match=r"There is no file or folder at 'nowhere.npz'"):
        load_data("nowhere.npz")
    np.savez(tmp_path / "cut.npz", images=np.zeros((9, 4, 4), np.uint8), labels=np.arange(9) % 2)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:300])
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    for name in ("cut.npz", "one.npz"):
        with pytest.raises(InputError, match=rf"{name} could not be read as an .npz archive of plain arrays"):
            load_data(tmp_path / name)


# Folders


def test_a_folder_is_split_alike_each_time(tmp_path):
    images, labels = draw_images(20, 6, 7, 3, 2)
    write_folder(tmp_path, images, labels, ["cat", "dog"])
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "cat" / ".hidden.png").write_text("not looked at")
    data = load_data(tmp_path)
    assert (len(data.train), len(data.test), data.channels) == (16, 4, 3)
    assert data.class_names == ("cat", "dog")
    assert data.image_size_pixels == (6, 7)
    assert data.train.encoded
    assert all(("dog" in path) == label for path, label in zip(data.train.images, data.train.labels, strict=True))
    np.testing.assert_array_equal(load_data(tmp_path).test.images, data.test.images)


def test_train_and_test_folders_are_used(tmp_path):
    images, labels = draw_images(12, 5, 5, 1, 3)
    write_folder(tmp_path / "train", images, labels, ["a", "b", "c"])
    write_folder(tmp_path / "test", draw_images(2, 9, 5, 1, 2)[0], [0, 2], ["a", "b", "c"], suffix=".jpg")
    data = load_data(tmp_path)
    assert (len(data.train), len(data.test), data.channels, data.image_size_pixels) == (12, 2, 1, None)
    assert list(data.test.labels) == [0, 2]


def test_an_existing_path_wins_over_a_name(tmp_path, monkeypatch):
    write_folder(tmp_path / "mnist", *draw_images(10, 4, 4, 1, 2), ["x", "y"])
    monkeypatch.chdir(tmp_path)
    assert load_data("mnist").class_names == ("x", "y")


def test_bad_folders(tmp_path):
    with pytest.raises(InputError, match=r"must have one sub-folder per class. Received: a folder without any"):
        load_data(tmp_path)
    write_folder(tmp_path, *draw_images(4, 4, 4, 1, 2), ["a", "b"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        InputError, match=r"empty: a class folder must hold at least one image .*Received: 0 other files"
    ):
        load_data(tmp_path)
    (tmp_path / "empty" / "x.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"x.png could not be decoded as a PNG or JPEG image: "):
        load_data(tmp_path)
    (tmp_path / "empty" / "x.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"x.png could not be decoded"):
        load_data(tmp_path)
    other = write_folder(tmp_path / "other" / "train", *draw_images(4, 4, 4, 1, 2), ["a", "b"]).parent
    with pytest.raises(
        InputError, match=r"train/ and test/ that both have. Received: train/, but no class folders in test/"
    ):
        load_data(other)
    (other / "test").mkdir()
    (other / "test" / "0.png").write_bytes(b"")  # unsorted test images, as competitions hand them out
    with pytest.raises(InputError, match=r"Received: train/ and test/, but no class folders in test/"):
        load_data(other)
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "pets" / "cat").mkdir(parents=True)  # one level too high
    with pytest.raises(
        InputError, match=r"pets: a class folder must hold at least one image .*folders \(cat\) instead"
    ):
        load_data(tmp_path / "up")
    write_folder(other / "test", *draw_images(4, 4, 4, 1, 2), ["a", "z"])
    with pytest.raises(InputError, match=r"every class of test/ must be in train/ \(a, b\). Received: z"):
        load_data(other)


def test_phone_pictures_of_several_images_are_jpegs(tmp_path):
    from PIL import Image

    write_folder(tmp_path, *draw_images(6, 8, 8, 3, 2), ["a", "b"])
    picture = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    picture.save(tmp_path / "a" / "phone.jpg", "MPO", save_all=True, append_images=[picture])
    data = load_data(tmp_path)
    assert len(data.train) + len(data.test) == 7


def test_another_format_under_an_image_suffix_is_named(tmp_path):
    from PIL import Image

    write_folder(tmp_path, *draw_images(4, 4, 4, 1, 2), ["a", "b"])
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a" / "anim.png", "GIF")
    with pytest.raises(InputError, match=r"anim.png must be a PNG or JPEG image. Received: GIF"):
        load_data(tmp_path)


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"There is no file or folder at "):
        load_data(tmp_path / "nothing")
    (tmp_path / "data.csv").write_text("1")
    with pytest.raises(InputError, match=r"A data file must be an .npz archive"):
        load_data(tmp_path / "data.csv")


# TFDS


def test_an_unknown_name_has_its_nearest_named():
    with pytest.raises(InputError, match=r"Unknown data set. Received: 'mnits'. Did you mean 'mnist'"):
        load_data("mnits")
    with pytest.raises(InputError, match=r"Received: 'digit'. Did you mean 'digits'"):
        load_data("digit")


def test_a_set_that_is_not_prepared_and_no_network(tmp_path, monkeypatch):
    def no_address(*_):
        raise OSError("no name resolution")

    monkeypatch.setattr(tfds_sets.socket, "getaddrinfo", no_address)
    monkeypatch.setattr(tfds_sets.urllib.request, "getproxies", dict)
    with pytest.raises(InputError) as caught:
        load_data("cifar100", data_dir=tmp_path)
    message = str(caught.value)
    assert f"'cifar100' is not prepared in {tmp_path} (looked for {tmp_path / 'cifar100'}" in message
    assert "www.cs.toronto.edu cannot be reached" in message
    assert f"tfds build cifar100 --data_dir {tmp_path}" in message
    assert not list(tmp_path.iterdir())


def test_configurations_and_versions_of_a_set(tmp_path, monkeypatch):
    def no_address(*_):
        raise OSError("no name resolution")

    monkeypatch.setattr(tfds_sets.socket, "getaddrinfo", no_address)
    monkeypatch.setattr(tfds_sets.urllib.request, "getproxies", dict)
    with pytest.raises(InputError, match=rf"tfds build cifar10_corrupted/fog_1 --data_dir {tmp_path} "):
        load_data("cifar10_corrupted/fog_1", data_dir=tmp_path)
    with pytest.raises(InputError, match=r"TFDS could not open 'mnist:9.9.9': "):
        load_data("mnist:9.9.9", data_dir=tmp_path)
    with pytest.raises(InputError, match=r"must have a name or a path. Received: ''"):
        load_data("")


def test_a_download_that_fails_says_how_to_prepare(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def broken(self, **_):
        raise ConnectionError("connection reset")

    monkeypatch.setattr(tfds_sets.socket, "getaddrinfo", lambda *_: [])
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", broken)
    with pytest.raises(InputError, match=r"preparing it failed: connection reset. To prepare it there, run"):
        load_data("cifar100", data_dir=tmp_path)


def test_a_set_of_another_kind_is_refused_before_any_download(tmp_path):
    with pytest.raises(InputError, match=r"'ag_news_subset' must be an image classification set.* Received: features "):
        load_data("ag_news_subset", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "shape", "mean"), [("mnist", (28, 28, 1), 33.318), ("fashion_mnist", (28, 28, 1), 72.940)]
)
def test_prepared_sets_are_read_whole(tfds_dir, name, shape, mean):
    data = load_data(name, data_dir=tfds_dir)
    assert (data.train.images.shape, data.test.images.shape) == ((60_000, *shape), (10_000, *shape))
    assert data.train.images.mean() == pytest.approx(mean, abs=5e-4)  # stated by the data's own README
    assert len(data.class_names) == 10
    assert len(np.unique(data.train.labels)) == 10


def test_a_made_tfds_set_of_varying_sizes_stays_encoded(tmp_path):
    """A set as TFDS would download it, made here: 20 PNG images of different sizes, no test split."""
    import tensorflow_datasets as tfds

    from keras_resnet.data import make_eval_dataset
    from keras_resnet.inputs import Preprocessing

    class MadeSet(tfds.core.GeneratorBasedBuilder):
        """Gray squares."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=["p", "q"]),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for index in range(20):
                image = np.full((4 + index, 9, 3), 10 * index, np.uint8)
                yield index, {"image": image, "label": index % 2}

    MadeSet(data_dir=tmp_path).download_and_prepare()
    data = load_data("made_set", data_dir=tmp_path)
    assert (len(data.train), len(data.test), data.image_size_pixels, data.class_names) == (16, 4, None, ("p", "q"))
    assert data.train.encoded
    preprocessing = Preprocessing((6, 6), 3, (0.0,) * 3, (1 / 255,) * 3)
    values = [float(v.numpy().max()) for x, _ in make_eval_dataset(data.train, preprocessing, batch_size=5) for v in x]
    assert len(values) == 16
    assert set(values) <= {10.0 * index for index in range(20)}
    assert [round(v / 10) % 2 for v in values] == list(data.train.labels)
