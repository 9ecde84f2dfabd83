"""What is to be exported, as what and where to: one record, checked whole before anything is written."""

from __future__ import annotations

import logging
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet.data.preprocess import MAX_PIXELS
from keras_resnet.errors import InputError
from keras_resnet.export.fold import as_functional
from keras_resnet.export.formats import FORMATS, check_options
from keras_resnet.export.heads import Classifier, cut_head
from keras_resnet.inputs import Preprocessing
from keras_resnet.records import is_count

log = logging.getLogger(__name__)

BATCH_SIZES = (1, 7)  # of what an export is verified with
# What runs an exported file: a float32 batch to outputs by name.
Runner = Callable[[np.ndarray], Mapping[str, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Request:
    """An export that can be done: the fields are as `export_saved_model` and `export_format` take them.

    Raises:
        InputError: one that cannot be done.
    """

    model: keras.Model  # functional, once it was checked
    path: str | os.PathLike[str]  # the folder over all models
    format: str
    preprocessing: Preprocessing | None = None
    class_names: Sequence[str] | None = None
    name: str | None = None  # the model's, once it was checked
    version: int | None = None  # None: the one after the highest
    images: Any = None  # to verify with; None: photographs
    warm_up: bool | None = None  # "saved_model" only; True or False, once it was checked
    max_pixels: int = MAX_PIXELS  # "saved_model" only
    calibration: Any = None  # "litert" only; a float32 array, once it was checked
    measure: Callable[[Runner], dict[str, Any]] | None = None  # all but "saved_model"

    def __post_init__(self) -> None:
        check_options(self.format, warm_up=self.warm_up, int8=self.calibration is not None)
        if self.format != "saved_model":
            FORMATS[self.format].check_installed(f"The format {self.format!r}")
        self._set(model=as_functional(self.model))
        self._set(name=self.model.name if self.name is None else self.name)
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9_][\w.\-]*", self.name):
            raise InputError(
                f"The name of an exported model must be made of letters, digits and _ - . Received: {self.name!r}."
            )
        for name in ("version", "max_pixels"):
            value = getattr(self, name)
            if not (is_count(value) or (value is None and name == "version")):
                raise InputError(f"{name} must be a whole number of at least 1. Received: {value!r}.")
            if value is not None:
                self._set(**{name: operator.index(value)})
        classes = self.network.output_shape[0][-1]
        self._set(class_names=_check_class_names(self.class_names, classes))
        self._check_preprocessing()
        self._check_images()
        if self.calibration is not None:
            self._set(calibration=_check_calibration(self.calibration, self.input_shape))
        self._set(warm_up=self.format == "saved_model" and _choose_warm_up(self.warm_up))

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def folder(self) -> Path:
        """The folder of the model, whose sub-folders are its versions."""
        return Path(self.path) / str(self.name)

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Of the network, without the batch."""
        return tuple(self.model.input_shape[1:])

    @cached_property
    def network(self) -> keras.Model:
        """The model cut open: its input to (logits, features)."""
        return cut_head(self.model)

    @property
    def head(self) -> Classifier:
        """What is served of the logits."""
        return Classifier(tuple(self.class_names or ()))

    def write_labels(self, path: Path) -> None:
        """Writes the class names, a line each, in the order of the outputs."""
        path.write_text("".join(f"{name}\n" for name in self.head.class_names), "utf-8")

    def _check_preprocessing(self) -> None:
        given, shape = self.preprocessing, self.input_shape
        if given is None:
            return
        if not isinstance(given, Preprocessing):
            raise InputError(f"preprocessing must be a keras_resnet.Preprocessing or None. Received: {given!r}.")
        fits = len(shape) == 3 and all(
            side in (None, wanted) for side, wanted in zip(shape, given.input_shape, strict=True)
        )
        if not fits:
            raise InputError(
                f"{self.model.name}: preprocessing must give the network's input, {shape}. Received: one that gives "
                f"{given.input_shape}."
            )

    def _check_images(self) -> None:
        images, count, channels = self.images, max(BATCH_SIZES), self.input_shape[-1]
        shape: Any = getattr(images, "shape", ())
        if images is None:
            return
        if len(shape) != 4 or shape[0] < count or shape[3] != channels or np.asarray(images).dtype != np.uint8:
            raise InputError(
                f"images must be uint8, (at least {count}, height, width, {channels}). Received: "
                f"{getattr(images, 'dtype', type(images).__name__)}, shape {tuple(shape)}."
            )


def _check_class_names(class_names: Sequence[str] | None, classes: int) -> tuple[str, ...]:
    """The names, by default numbers; raises InputError unless there is one line of text for each class."""
    if class_names is None:
        return tuple(str(index) for index in range(classes))
    names = tuple(class_names) if isinstance(class_names, Iterable) else (class_names,)
    odd = [name for name in names if not _is_line(name)]
    if isinstance(class_names, str) or len(names) != classes or odd:
        received = f"{odd[0]!r}" if odd else f"{len(names)} names"
        raise InputError(f"class_names must be {classes} strings of one line each. Received: {received}.")
    return names


def _is_line(name: Any) -> bool:
    if not isinstance(name, str) or name.splitlines() != [name]:
        return False
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:  # half of a pair of surrogates
        return False
    return True


def _check_calibration(calibration: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """The images as one float32 array; raises InputError unless they are such as the file takes."""
    received = f"{type(calibration).__name__}, no array of numbers"
    try:
        images: np.ndarray = np.asarray(calibration, np.float32)
        received = f"shape {images.shape}" + ("" if np.isfinite(images).all() else ", not all of it numbers")
    except (ValueError, TypeError):  # of several sizes, or no numbers
        images = np.empty((0,), np.float32)
    if images.ndim != len(shape) + 1 or not len(images) or images.shape[1:] != shape or not np.isfinite(images).all():
        raise InputError(
            f"calibration must be finite images as the file takes them, (at least 1, {', '.join(map(str, shape))}). "
            f"Received: {received}."
        )
    return images


def _choose_warm_up(asked: bool | None) -> bool:
    """Whether warm-up requests are written: as asked, by default where their package is installed."""
    if asked is False:
        return False
    try:
        FORMATS["saved_model"].check_installed("Writing warm-up requests")
    except InputError:
        if asked:
            raise
        log.info("without tensorflow-serving-api (extra 'serving') no warm-up requests are written")
        return False
    return True
