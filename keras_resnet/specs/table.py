"""The table of every network: one row each, and families whose depth is a formula."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, replace

from keras_resnet.errors import InputError, suggest
from keras_resnet.specs.spec import D2L, ResNetSpec

HE2015 = "He et al. 2015, Deep Residual Learning for Image Recognition, arXiv:1512.03385"
D2L_CHAPTER = "Zhang et al., Dive into Deep Learning, section 8.6 (ResNet-18 in Keras)"


@dataclass(frozen=True)
class Row:
    """A spec with the input and the number of classes that its source states figures for."""

    spec: ResNetSpec
    input_shape: tuple[int, int, int]  # (height, width, channels) of the source
    classes: int  # of the source
    source: str


def _imagenet(name: str, block: str, depths: tuple[int, ...]) -> Row:
    spec = ResNetSpec(name, block, depths, filters=(64, 128, 256, 512), strides=(1, 2, 2, 2))
    return Row(spec, (224, 224, 3), 1000, HE2015)


def _cifar(name: str, blocks_per_stage: int) -> Row:
    spec = ResNetSpec(
        name,
        block="basic",
        depths=(blocks_per_stage,) * 3,
        filters=(16, 32, 64),
        strides=(1, 2, 2),
        stem="cifar",
        stem_filters=16,
        shortcut="B" if name.endswith("_b") else "A",
    )
    return Row(spec, (32, 32, 3), 10, HE2015)


_RESNET18 = _imagenet("resnet18", "basic", (2, 2, 2, 2))
_ROWS = (
    _RESNET18,
    _imagenet("resnet34", "basic", (3, 4, 6, 3)),
    _imagenet("resnet50", "bottleneck", (3, 4, 6, 3)),
    _imagenet("resnet101", "bottleneck", (3, 4, 23, 3)),
    _imagenet("resnet152", "bottleneck", (3, 8, 36, 3)),
    Row(replace(_RESNET18.spec, name="resnet18_d2l", dialect=D2L), (224, 224, 1), 10, D2L_CHAPTER),
    *(_cifar(f"resnet{depth}_cifar", (depth - 2) // 6) for depth in (20, 32, 44, 56, 110, 1202)),
    *(_cifar(f"resnet{depth}_cifar_b", (depth - 2) // 6) for depth in (20, 32, 44, 56, 110)),
)
TABLE: dict[str, Row] = {row.spec.name: row for row in _ROWS}

_CIFAR_NAME = re.compile(r"resnet(\d+)_cifar(_b)?")


def get_row(name: str) -> Row:
    """Returns the row called `name`, from the table or by a family's formula.

    Raises:
        InputError: no such network; names the nearest, or the nearest depths of the family.
    """
    if isinstance(name, str) and name in TABLE:
        return TABLE[name]
    match = _CIFAR_NAME.fullmatch(name) if isinstance(name, str) else None
    if match:
        depth, suffix = int(match[1]), match[2] or ""
        blocks, remainder = divmod(depth - 2, 6)
        if remainder == 0 and blocks >= 1:
            return _cifar(f"resnet{depth}_cifar{suffix}", blocks)
        low = max(blocks, 1)
        near = " or ".join(f"resnet{6 * n + 2}_cifar{suffix}" for n in (low, low + 1))
        raise InputError(
            f"The depth of a CIFAR ResNet must be 6n + 2 with n >= 1. Received: {name!r}. Nearest: {near}."
        )
    raise InputError(
        f"Unknown network. Received: {name!r}.{suggest(str(name), TABLE)} "
        f"Allowed: {', '.join(TABLE)}; and resnet{{6n+2}}_cifar[_b] for any n >= 1."
    )


def get_spec(name: str) -> ResNetSpec:
    """Returns the spec of the network called `name`; errors as `get_row`."""
    return get_row(name).spec


def list_models(pattern: str = "*") -> list[str]:
    """Returns the names in the table that match a shell-style `pattern`, in table order."""
    return [name for name in TABLE if fnmatch.fnmatchcase(name, pattern)]
