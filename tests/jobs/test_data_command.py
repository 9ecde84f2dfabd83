"""What `keras-resnet data` says and draws."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import draw_images, run_main, write_folder
from PIL import Image

from keras_resnet import Augmentation, Preprocessing, jobs, load_data
from keras_resnet.data import decode
from keras_resnet.data.describe import count_bytes, count_classes, count_turned, measure_sizes
from keras_resnet.jobs import data_job


def test_figures_of_an_array(npz, monkeypatch, capsys, tmp_path):
    plot = tmp_path / "sheet.png"
    status, out, _ = run_main(monkeypatch, capsys, "data", npz, "--plot", plot, "--mixup-alpha", "0.4", "--no-flip")
    assert status == 0
    data = load_data(npz)
    assert "96 training, 24 test images" in out
    assert [line.split() for line in out.splitlines() if line.startswith("gray")] == [["gray", "32", "8"]]
    assert "sizes: 8x8, 1 channels; 0.0 MiB in memory" in out
    assert f"mean {data.train.images.mean() / 255:.4f}; std {data.train.images.std() / 255:.4f}" in out
    assert "augmentation: mixup_alpha=0.4" in out
    with Image.open(plot) as picture:
        assert picture.format == "PNG"
        assert np.ptp(np.asarray(picture.convert("L"))) > 200


def test_figures_of_an_uneven_folder(monkeypatch, capsys, tmp_path):
    images, _ = draw_images(24, 6, 9, 3, 2)
    write_folder(tmp_path, images, np.array([0] * 20 + [1] * 4), ["often", "rare"])
    write_folder(tmp_path, *draw_images(1, 30, 5, 3, 1), ["often"], suffix=".large.png")
    status, out, _ = run_main(monkeypatch, capsys, "data", tmp_path, "--image-size", "12", "--json")
    assert status == 0
    report = json.loads(out)
    data = load_data(tmp_path)
    assert report["class_names"] == ["often", "rare"]
    assert report["train_counts"] == count_classes(data.train, 2) == np.bincount(data.train.labels).tolist()
    assert sum(report["train_counts"] + report["test_counts"]) == 25
    assert report["stored"] == "in files"
    assert report["stored_bytes"] == sum(path.stat().st_size for path in tmp_path.rglob("*.png"))
    assert report["smallest"] == [6, 5]
    assert report["largest"] == [30, 9]
    assert Preprocessing.from_dict(report["preprocessing"]).image_size_pixels == (12, 12)
    assert Augmentation.from_dict(report["augmentation"]) == Augmentation()


def test_encoded_images_in_memory_are_measured(tmp_path):
    data = load_data(write_folder(tmp_path, *draw_images(6, 5, 7, 1, 2), ["a", "b"]))
    contents = [Path(path).read_bytes() for path in data.train.images]
    encoded = type(data.train)(np.array(contents, object), data.train.labels)
    assert measure_sizes(encoded) == ((5, 7), (5, 7))
    assert count_bytes(encoded) == (sum(map(len, contents)), "in memory")


def test_the_sheet_shows_each_image_beside_its_own_augmentations(npz):
    data = load_data(npz)
    preprocessing = Preprocessing((8, 8), 1, (0.4,), (0.2,))
    shown, rows = data_job._choose(data, 0)
    assert [len(row) for row in rows] == [2, 2, 2]
    flip = Augmentation(horizontal_flip=True)
    plain, drawn, labels = data_job._see(data.train.take(shown), preprocessing, flip, 3, seed=1)
    np.testing.assert_array_equal(plain, data.train.images[shown])
    mirrored = 0
    for images, own in zip(drawn, labels, strict=True):
        np.testing.assert_array_equal(own, data.train.labels[shown])
        for before, after in zip(plain, images, strict=True):
            mirrored += (after == before[:, ::-1]).all()
            assert (after == before).all() or (after == before[:, ::-1]).all()
    assert 0 < mirrored < 18
    assert data_job._describe_label(np.array([0.02, 0.28, 0.7]), "abc") == "c 0.70\nb 0.28"
    assert data_job._describe_label(2, "abc") == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hue", "0.7"], "hue must be at least 0 and at most 0.5. Received: 0.7"),
        (["--resized-crop", "0.9", "0.3"], "resized_crop must be (least, greatest)"),
        (["--plot", "sheet.jpg"], "must be the name of a .png file. Received: 'sheet.jpg'"),
    ],
)
def test_bad_options_are_one_line(npz, monkeypatch, capsys, options, message):
    status, _, err = run_main(monkeypatch, capsys, "data", npz, *options)
    assert status == 2
    assert message in err


def test_a_file_that_is_not_there_is_an_error(tmp_path, monkeypatch, capsys):
    status, _, err = run_main(monkeypatch, capsys, "data", tmp_path / "none.npz")
    assert (status, "There is no file or folder" in err) == (2, True)


# EXIF


def _turn(path, orientation):
    """Has a file say that it is to be turned, as phones do; its pixels stay as they are."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    if path.suffix == ".jpg":
        return _insert_exif(path, exif.tobytes())
    with Image.open(path) as image:
        image.save(path, exif=exif)


def _insert_exif(path, segment):
    contents, marker = path.read_bytes(), b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big")
    path.write_bytes(contents[:2] + marker + segment + contents[2:])


def test_what_exif_would_turn_is_counted_and_taken_as_stored(monkeypatch, capsys, caplog, tmp_path):
    images, labels = draw_images(12, 8, 6, 3, 2)
    folder = write_folder(tmp_path / "set", images, labels, ["a", "b"], suffix=".jpg")
    write_folder(folder, *draw_images(2, 8, 6, 3, 2), ["a", "b"])  # PNGs
    status, out, _ = run_main(monkeypatch, capsys, "data", folder)
    assert (status, "EXIF" in out) == (0, False)
    before = decode((folder / "a" / "0002.jpg").read_bytes(), 3)
    for name, orientation in (("0002.jpg", 6), ("0004.jpg", 1), ("0006.jpg", 0), ("0000.png", 3)):
        _turn(folder / "a" / name, orientation)
    _insert_exif(folder / "a" / "0008.jpg", b"Exif\0\0no TIFF at all")
    np.testing.assert_array_equal(decode((folder / "a" / "0002.jpg").read_bytes(), 3), before)
    status, out, _ = run_main(monkeypatch, capsys, "data", folder)
    assert status == 0
    assert "EXIF: 2 of 14 files looked at say that they are to be turned or mirrored" in out
    assert "set: 2 of 14 images have an EXIF orientation other than 1, such as " in caplog.text
    report = jobs.inspect_data(folder, normalize="imagenet")
    assert report.turned == (2, 14)
    assert report.preprocessing.mean == (0.485, 0.456, 0.406)
    data = load_data(folder)
    contents = np.array([Path(path).read_bytes() for path in data.train.images], object)
    held = dataclasses.replace(data, train=type(data.train)(contents, data.train.labels))
    turned = [path for path in data.train.images if Path(path).name in ("0002.jpg", "0000.png") and "/a/" in path]
    assert count_turned(held) == (len(turned), 11)


def test_a_photo_on_its_side_is_named_where_it_is_classified(run, tmp_path, caplog):
    folder = write_folder(tmp_path, *draw_images(2, 8, 8, 1, 2), ["a", "b"], suffix=".jpg")
    paths = sorted(folder.rglob("*.jpg"))
    jobs.predict(run.path, paths)
    assert "EXIF" not in caplog.text
    _turn(paths[1], 8)
    jobs.predict(run.path, paths)
    assert f"predict: 1 of 2 images have an EXIF orientation other than 1, such as {paths[1]}" in caplog.text
