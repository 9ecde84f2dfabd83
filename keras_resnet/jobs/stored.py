"""`DataFacts`: what `run.json` and `search.json` both say of the data."""

from __future__ import annotations

from dataclasses import dataclass

from keras_resnet.records import Record, check_types


@dataclass(frozen=True)
class DataFacts(Record):
    """What was found where the data was read."""

    origin: str  # "tfds mnist 3.0.1", "scikit-learn load_digits", "folder", "npz"
    class_names: tuple[str, ...]
    channels: int
    streamed: bool | None  # whether training images are read from their files while used; None: 0.1 did not say
    skipped_images: tuple[str, ...]  # that could not be decoded
    train_images: int
    validation_images: int
    test_images: int

    def __post_init__(self) -> None:
        check_types(self)
