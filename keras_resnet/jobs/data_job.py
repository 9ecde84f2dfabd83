"""A look at a data set: its figures, and a picture of its images as a network will see them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_resnet import data as data_module
from keras_resnet import plots
from keras_resnet.data import ImageData, Split
from keras_resnet.data.describe import count_bytes, count_classes, count_turned, measure_sizes
from keras_resnet.data.encoded import hold_in_memory, naming_undecodable
from keras_resnet.errors import InputError
from keras_resnet.files import write_beside
from keras_resnet.inputs import DataSource, InputOptions, Preprocessing
from keras_resnet.recipes import NO_AUGMENTATION, Augmentation, default_recipe
from keras_resnet.records import Record

# Of the contact sheet: more would be too small to see.
MOST_CLASSES, IMAGES_PER_CLASS, DRAWS = 12, 2, 3
_LEAST_SHARE = 0.05  # of a mixed label, that is named below its image


@dataclass(frozen=True)
class DataReport(Record):
    """What `inspect_data` found."""

    name: str
    origin: str  # where the data came from: "folder", "npz", "tfds mnist 3.0.1"
    class_names: tuple[str, ...]
    train_counts: tuple[int, ...]  # images of each class
    test_counts: tuple[int, ...]
    smallest: tuple[int, int]  # least height and least width of the training images
    largest: tuple[int, int]
    stored_bytes: int  # of training and test images
    stored: str  # "in memory" or "in files"
    turned: tuple[int, int]  # images whose EXIF orientation, which is ignored, is not upright, of how many looked at
    preprocessing: Preprocessing  # as a training would have it, with mean and std
    augmentation: Augmentation  # as a training would have it


def inspect_data(
    data: str | os.PathLike[str] | DataSource,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    memory_limit_bytes: int | None = None,
    on_error: str = "stop",
    normalize: str = "dataset",
    image_size_pixels: tuple[int, int] | None = None,
    augmentation: Mapping[str, Any] | None = None,
    seed: int = 0,
    plot: str | os.PathLike[str] | None = None,
) -> DataReport:
    """Counts and measures a data set as a training would take it, and draws a contact sheet of it.

    Args:
        data: as for `load_data`.
        data_dir: where TFDS sets are.
        memory_limit_bytes: of the images, as for `load_data`.
        on_error: "stop" or "skip" what cannot be decoded, as for `load_data`.
        normalize: mean and std, as for `compute_preprocessing`.
        image_size_pixels: (height, width) of the network's input; by default as in `train`.
        augmentation: the fields that differ from the default for this data.
        seed: of the images that are shown and of their augmentation.
        plot: a PNG file to write: images of each class as they are, and augmented.

    Raises:
        InputError: whatever cannot be used.
        SaveError: the picture could not be written.
    """
    given = Augmentation(**augmentation or {})  # a mistake fails before minutes go into reading data
    source = DataSource.of(data, data_dir=data_dir, memory_limit_bytes=memory_limit_bytes, on_error=on_error)
    options = InputOptions(image_size_pixels, normalize)
    images = data_module.load_data(source)
    default = default_recipe(images.name, len(images.train)).augmentation
    chosen = Augmentation.from_dict(
        {**default.to_dict(), **{name: getattr(given, name) for name in augmentation or {}}}
    )
    preprocessing = data_module.compute_preprocessing(
        images, images.train, options.image_size_pixels, normalize=options.normalize
    )
    sizes = [count_bytes(split) for split in (images.train, images.test)]
    with naming_undecodable(images.train):
        smallest, largest = measure_sizes(images.train)
        turned = count_turned(images)
        if plot is not None:
            figure = _draw(images, preprocessing, chosen, seed)
            write_beside(plot, lambda path: plots.save_figure(figure, path))
    return DataReport(
        images.name,
        images.origin,
        images.class_names,
        tuple(count_classes(images.train, len(images.class_names))),
        tuple(count_classes(images.test, len(images.class_names))),
        smallest,
        largest,
        sum(number for number, _ in sizes),
        sizes[0][1],
        turned,
        preprocessing,
        chosen,
    )


def _draw(images: ImageData, preprocessing: Preprocessing, augmentation: Augmentation, seed: int) -> Any:
    shown, rows = _choose(images, seed)
    plain, drawn, labels = _see(
        hold_in_memory(images.train.take(shown)), preprocessing, augmentation, len(images.class_names), seed
    )
    columns = []
    for place in range(IMAGES_PER_CLASS):
        taken = [row[place] if place < len(row) else None for row in rows]
        columns.append(("as it is", [None if k is None else (plain[k], "") for k in taken]))
        for draw in range(DRAWS):
            heading = f"augmented {draw + 1}"
            captions = [None if k is None else _describe_label(labels[draw][k], images.class_names) for k in taken]
            columns.append(
                (
                    heading,
                    [None if k is None else (drawn[draw][k], c or "") for k, c in zip(taken, captions, strict=True)],
                )
            )
    names = [images.class_names[int(images.train.labels[shown[row[0]]])] for row in rows]
    height, width = preprocessing.image_size_pixels
    changes = ", ".join(f"{k}={v}" for k, v in augmentation.to_dict().items() if v != getattr(NO_AUGMENTATION, k))
    title = f"{images.name}: training images at {height}x{width} pixels"
    return plots.plot_contact_sheet(columns, names, title=title, subtitle=changes or "no augmentation")


def _choose(images: ImageData, seed: int) -> tuple[np.ndarray, list[list[int]]]:
    """Indices of the images that are shown, and for each row, a class, which of them are its."""
    present = np.unique(images.train.labels)
    if len(present) > MOST_CLASSES:
        present = present[np.linspace(0, len(present) - 1, MOST_CLASSES).round().astype(int)]
    rng = np.random.default_rng(seed)
    shown: list[int] = []
    rows = []
    for label in present:
        members = np.flatnonzero(images.train.labels == label)
        members = rng.choice(members, min(IMAGES_PER_CLASS, len(members)), replace=False)
        rows.append(list(range(len(shown), len(shown) + len(members))))
        shown += members.tolist()
    return np.array(shown), rows


def _see(
    split: Split, preprocessing: Preprocessing, augmentation: Augmentation, classes: int, seed: int
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Pixels of the images as they are and of each draw, and the labels of each draw, in the order of `split`."""
    size = len(split)
    if size < 2:
        raise InputError(f"A contact sheet needs at least 2 training images. Received: {size}.")
    numbered = Split(split.images, np.arange(size))
    # The same order twice, once with numbers for labels, which tell which image is where.
    common: dict[str, Any] = {"batch_size": size, "seed": seed}
    orders = data_module.make_train_dataset(numbered, preprocessing, **common)
    batches = data_module.make_train_dataset(split, preprocessing, augmentation=augmentation, classes=classes, **common)
    plain = np.concatenate([x for x, _ in data_module.make_eval_dataset(split, preprocessing, batch_size=size)])
    drawn, labels = [], []
    for _ in range(DRAWS):
        ((_, order),), ((x, y),) = list(orders), list(batches)
        back = np.argsort(order)
        drawn.append(_to_pixels(x.numpy()[back], preprocessing))
        labels.append(y.numpy()[back])
    return _to_pixels(plain, preprocessing), drawn, labels


def _to_pixels(images: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    pixels = (images * np.array(preprocessing.std) + np.array(preprocessing.mean)) * 255
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _describe_label(label: Any, class_names: Sequence[str]) -> str:
    """The classes of a mixed label and their shares; nothing for an integer, which the row tells."""
    if not np.ndim(label):
        return ""
    order = np.argsort(label)[::-1][:2]
    return "\n".join(f"{class_names[k]} {label[k]:.2f}" for k in order if label[k] >= _LEAST_SHARE)
