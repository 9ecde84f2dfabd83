"""Images that are broken, rare or odd: right, or named; never wrong in silence."""

import io
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import draw_images, run_main, write_folder
from PIL import Image

from keras_resnet import InputError, Preprocessing, load_data, make_eval_dataset, make_train_dataset
from keras_resnet.data import decode, encoded
from keras_resnet.jobs.inference import load_run_data
from keras_resnet.jobs.run_folder import load_run
from keras_resnet.recipes import Augmentation

RAW = Preprocessing((12, 12), 3, (0.0,) * 3, (1 / 255,) * 3)


@pytest.fixture
def folder(tmp_path):
    images, labels = draw_images(40, 16, 16, 3, 2)
    return write_folder(tmp_path / "set", images, labels, ["dark", "light"], suffix=".jpg")


def _cut(path, keep=0.6):
    contents = Path(path).read_bytes()
    Path(path).write_bytes(contents[: int(len(contents) * keep)])


def test_broken_files_are_skipped_and_counted(folder, caplog):
    whole = load_data(folder)
    broken = sorted((whole.train.images[3], whole.train.images[20], whole.test.images[1]))
    _cut(broken[0])
    Path(broken[1]).write_bytes(b"")
    Path(broken[2]).write_bytes(b"GIF89a and so on")
    with caplog.at_level(logging.WARNING):
        data = load_data(folder, on_error="skip")
    assert sorted(data.skipped) == broken
    assert "3 of 40 images could not be decoded and were skipped: " in caplog.text
    # Every image that is left is where it was: test images stay test images.
    for part in ("train", "test"):
        kept = [path for path in getattr(whole, part).images if path not in broken]
        assert list(getattr(data, part).images) == kept
    assert sum(len(y) for _, y in make_train_dataset(data.train, RAW)) == len(data.train)
    with pytest.raises(InputError, match=r"on_error must be one of 'stop', 'skip'. Received: 'ignore'"):
        load_data(folder, on_error="ignore")


def test_the_command_stops_at_a_broken_file_or_skips_it(folder, tmp_path, monkeypatch, capsys, caplog):
    broken = load_data(folder).train.images[5]
    _cut(broken)
    command = ["train", folder, "--model", "resnet8_cifar", "--steps", "1", "--epochs", "1", "--batch-size", "8"]
    status, _, err = run_main(monkeypatch, capsys, *command, "--run-dir", tmp_path / "stop")
    assert status == 2
    assert f"{broken} could not be decoded as a PNG or JPEG image" in err
    status, _, err = run_main(monkeypatch, capsys, *command, "--run-dir", tmp_path / "skip", "--on-error", "skip")
    assert status == 0, err
    assert "1 of 40 images could not be decoded and were skipped" in caplog.text
    run = load_run(tmp_path / "skip")
    assert run.record.data.skipped_images == (broken,)
    assert run.record.source.on_error == "skip"
    assert len(load_run_data(run).skipped) == 1  # an evaluation leaves out the same


@pytest.mark.parametrize("crop", [None, (0.3, 1.0)])
def test_a_cut_file_is_named_by_what_reads_it(folder, crop):
    data = load_data(folder)
    _cut(data.train.images[7])
    dataset = make_train_dataset(data.train, RAW, augmentation=Augmentation(resized_crop=crop))
    with (
        pytest.raises(InputError, match=rf"{Path(data.train.images[7]).name} could not be decoded"),
        encoded.naming_undecodable(data.train),
    ):
        list(dataset)


def _encode(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def test_cmyk_is_named_where_the_folder_is_read(folder):
    Image.new("CMYK", (8, 8), (10, 20, 30, 40)).save(folder / "dark" / "press.jpg")
    with pytest.raises(InputError, match=r"press.jpg must be in gray or RGB colours. Received: CMYK"):
        load_data(folder)
    assert [Path(path).name for path in load_data(folder, on_error="skip").skipped] == ["press.jpg"]


def test_16_bits_per_pixel_become_8_and_say_so(tmp_path, caplog):
    deep = (np.arange(64 * 4, dtype=np.uint32) * 257).astype(np.uint16).reshape(16, 16)
    for name in ("a", "b"):
        for index in range(3):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(deep).save(tmp_path / name / f"{index}.png")
    data = load_data(tmp_path)
    assert data.channels == 1
    assert "of 6 grayscale images with 16 bits per pixel the upper 8 are used" in caplog.text
    pixels = decode((tmp_path / "a" / "0.png").read_bytes(), 1)
    np.testing.assert_array_equal(np.asarray(pixels)[..., 0], (deep >> 8).astype(np.uint8))


def test_a_palette_is_looked_up(tmp_path):
    colours = np.zeros((4, 6, 3), np.uint8)
    colours[:2], colours[2:, 3:] = (200, 10, 30), (5, 250, 90)
    palette = Image.fromarray(colours).quantize(8)
    assert palette.mode == "P"
    np.testing.assert_array_equal(decode(_encode(palette, "PNG"), 3), colours)
    transparent = _encode(palette, "PNG", transparency=0)
    np.testing.assert_array_equal(decode(transparent, 3), colours)
    write_folder(tmp_path, *draw_images(6, 4, 6, 1, 2), ["a", "b"])
    palette.save(tmp_path / "a" / "palette.png")
    assert load_data(tmp_path).channels == 3  # colours among gray images


def test_a_gif_is_no_png_whatever_its_name(folder):
    Image.new("RGB", (8, 8)).save(folder / "dark" / "moving.png", "GIF")
    with pytest.raises(InputError, match=r"moving.png must be a PNG or JPEG image. Received: GIF"):
        load_data(folder)


@pytest.mark.parametrize("shape", [(1, 10_000), (10_000, 1)])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_long_lines_are_images_too(tmp_path, shape, suffix):
    lines = np.full((4, *shape, 3), 200, np.uint8)
    data = load_data(write_folder(tmp_path, lines, np.arange(4) % 2, ["a", "b"], suffix=suffix))
    (x, _), *_ = make_eval_dataset(data.train, RAW)
    long_side = x[0].numpy().max(axis=(1 if shape[0] == 1 else 0, 2))
    assert (long_side > 190).sum() == 1  # one line of twelve, the rest padding
    for x, _ in make_train_dataset(data.train, RAW, augmentation=Augmentation(resized_crop=(0.1, 0.5))):
        np.testing.assert_allclose(x, 200, atol=3)


def test_names_need_not_be_utf8(tmp_path):
    images, labels = draw_images(10, 8, 8, 3, 2)
    folder = write_folder(tmp_path / "set", images, labels, ["a", "b"])
    odd = os.fsencode(folder / "a") + b"/caf\xe9.png"
    try:
        os.rename(folder / "a" / "0000.png", odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    data = load_data(folder)
    seen = sum(len(y) for part in (data.train, data.test) for _, y in make_eval_dataset(part, RAW))
    assert seen == 10
    _cut(os.fsdecode(odd))
    whole = data.train if os.fsdecode(odd) in data.train.images else data.test
    with pytest.raises(InputError, match=r"caf\\xe9.png could not be decoded as a PNG or JPEG image"):
        encoded.check_decodable(whole)
    os.rename(os.fsencode(folder / "b"), os.fsencode(folder) + b"/\xff")
    with pytest.raises(InputError, match=r"\\xff: the name of a class folder must be UTF-8 text"):
        load_data(folder)
