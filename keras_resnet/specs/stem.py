"""The stem: the convolutions between the input and the first block."""

from __future__ import annotations

from keras_resnet.errors import InputError
from keras_resnet.records import check_choice
from keras_resnet.specs.conv import Conv

STEM_STRIDES = {"imagenet": 4, "deep": 4, "cifar": 1, "none": 1}
POOLED_STEMS = ("imagenet", "deep")  # end in a 3x3 max pool at stride 2


def check_stem(kind: str, filters: int) -> None:
    """Raises InputError for another kind of stem, or a deep one of less than 2 filters."""
    check_choice("stem", kind, STEM_STRIDES)
    if kind == "deep" and filters < 2:
        raise InputError(
            "The deep stem's first convolutions have stem_filters // 2 filters, so stem_filters must be at least 2. "
            f"Received: {filters}."
        )


def stem_convs(kind: str, filters: int) -> tuple[Conv, ...]:
    """The convolutions of a stem: 7x7/2; "deep": 3x3/2 and two 3x3, the first ones half as wide; "cifar": 3x3.

    The arguments are those of a spec, or have passed `check_stem`.
    """
    if kind == "cifar":
        return (Conv(filters),)
    if kind == "imagenet":
        return (Conv(filters, (7,), 2),)
    if kind == "deep":
        return Conv(filters // 2, stride=2), Conv(filters // 2), Conv(filters)
    return ()
