"""The table of every network: one row each, and families whose names are formulas."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from keras_resnet.errors import InputError, suggest
from keras_resnet.specs.dialect import D2L, KERAS_V1, KERAS_V2, TORCHVISION_V2
from keras_resnet.specs.spec import ResNetSpec

HE2015 = "He et al. 2015, Deep Residual Learning for Image Recognition, arXiv:1512.03385"
HE2016 = "He et al. 2016, Identity Mappings in Deep Residual Networks, arXiv:1603.05027"
XIE2016 = "Xie et al. 2016, Aggregated Residual Transformations (ResNeXt), arXiv:1611.05431"
ZAGORUYKO2016 = "Zagoruyko and Komodakis 2016, Wide Residual Networks, arXiv:1605.07146"
HE2018 = "He et al. 2018, Bag of Tricks for Image Classification (ResNet-D), arXiv:1812.01187"
HU2017 = "Hu et al. 2017, Squeeze-and-Excitation Networks, arXiv:1709.01507"
D2L_CHAPTER = "Zhang et al., Dive into Deep Learning, section 8.6 (ResNet-18 in Keras)"
KERAS_APPLICATIONS = "keras.applications, Keras 3.15"
SEQUENCES = "the same in one dimension"
MULTI_SCALE = "parallel kernels of 3, 5 and 7, joined, in each convolution of a basic block"

DEFAULT_INPUT_SHAPES: dict[int, tuple[int, ...]] = {1: (1024, 1), 2: (224, 224, 3)}  # by rank, for a spec of one's own
DEFAULT_CLASSES = 1000


@dataclass(frozen=True)
class Row:
    """A spec with the paper or library that it is from, and the input and classes that figures are stated for there."""

    spec: ResNetSpec
    input_shape: tuple[int, ...]  # (height, width, channels), or (steps, channels)
    classes: int
    reference: str


_IMAGENET_DEPTHS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}


def _imagenet(name: str, depth: int, reference: str = HE2015, **changes: Any) -> Row:
    """Table 1 of He et al. 2015, with `changes` to the spec."""
    block, depths = _IMAGENET_DEPTHS[depth]
    spec = ResNetSpec(name, block, depths, filters=(64, 128, 256, 512), strides=(1, 2, 2, 2))
    return Row(replace(spec, **changes), DEFAULT_INPUT_SHAPES[2], DEFAULT_CLASSES, reference)


def _resnext(name: str, depth: int, groups: int, width_per_group: int, **changes: Any) -> Row:
    return _imagenet(name, depth, **{"reference": XIE2016, **changes}, groups=groups, width_per_group=width_per_group)


def _cifar(name: str, blocks: int, reference: str = HE2015, **changes: Any) -> Row:
    """Section 4.2 of He et al. 2015: `blocks` in each of three stages, with `changes` to the spec."""
    spec = ResNetSpec(
        name,
        block="basic",
        depths=(blocks,) * 3,
        filters=(16, 32, 64),
        strides=(1, 2, 2),
        stem="cifar",
        stem_filters=16,
        shortcut="A",
    )
    return Row(replace(spec, **changes), (32, 32, 3), 10, reference)


def _resnext_cifar(name: str, blocks: int, groups: int, width_per_group: int) -> Row:
    # ReLU after the addition, as in the authors' code, whose notes say that the paper's CIFAR figures come from
    # pre-activated blocks.
    return _cifar(
        name,
        blocks,
        XIE2016,
        block="bottleneck",
        filters=(64, 128, 256),
        stem_filters=64,
        shortcut="B",
        groups=groups,
        width_per_group=width_per_group,
    )


def _wide_cifar(name: str, blocks: int, width: int) -> Row:
    filters = (16 * width, 32 * width, 64 * width)
    return _cifar(name, blocks, ZAGORUYKO2016, filters=filters, shortcut="B", dialect=TORCHVISION_V2)


@dataclass(frozen=True)
class _Family:
    """Networks whose name is a pattern with a depth of `layers_per_block * n + offset`, n blocks in each stage."""

    label: str  # how the name is written for people
    pattern: str  # a regular expression with the group `depth`, and groups that `make` takes
    layers_per_block: int
    offset: int
    make: Callable[..., Row]  # (name, blocks, **groups of the pattern)
    what: str

    def match(self, name: str) -> re.Match[str] | None:
        """Reads `name`, of any depth, if it is written as this family's are."""
        return re.fullmatch(self.pattern, name, re.ASCII)

    def name(self, match: re.Match[str], blocks: int) -> str:
        """Writes the name of the member with as many blocks in a stage, otherwise as the one that was read."""
        depth = self.layers_per_block * blocks + self.offset
        return f"{match.string[: match.start('depth')]}{depth}{match.string[match.end('depth') :]}"


def _with_integers(make: Callable[..., Row]) -> Callable[..., Row]:
    """Has `make` called with a name's numbers as integers, in their order."""
    return lambda name, blocks, **numbers: make(name, blocks, *(int(number) for number in numbers.values()))


FAMILIES = (
    _Family("resnet{6n+2}_cifar", r"resnet(?P<depth>[1-9]\d{0,4})_cifar", 6, 2, _cifar, "CIFAR ResNet"),
    _Family(
        "resnet{6n+2}_cifar_b",
        r"resnet(?P<depth>[1-9]\d{0,4})_cifar_b",
        6,
        2,
        lambda name, blocks: _cifar(name, blocks, shortcut="B"),
        "CIFAR ResNet",
    ),
    _Family(
        "plain{6n+2}_cifar",
        r"plain(?P<depth>[1-9]\d{0,4})_cifar",
        6,
        2,
        lambda name, blocks: _cifar(name, blocks, shortcut="none"),
        "plain CIFAR net",
    ),
    _Family(
        "resnetv2_{6n+2}_cifar",
        r"resnetv2_(?P<depth>[1-9]\d{0,4})_cifar",
        6,
        2,
        lambda name, blocks: _cifar(name, blocks, HE2016, shortcut="B", dialect=TORCHVISION_V2),
        "pre-activation CIFAR ResNet",
    ),
    _Family(
        "resnetv2_{9n+2}_cifar_bottleneck",
        r"resnetv2_(?P<depth>[1-9]\d{0,4})_cifar_bottleneck",
        9,
        2,
        lambda name, blocks: _cifar(name, blocks, HE2016, block="bottleneck", shortcut="B", dialect=TORCHVISION_V2),
        "pre-activation CIFAR bottleneck ResNet",
    ),
    _Family(
        "resnext{9n+2}_{groups}x{width}d_cifar",
        r"resnext(?P<depth>[1-9]\d{0,4})_(?P<groups>[1-9]\d{0,4})x(?P<width>[1-9]\d{0,4})d_cifar",
        9,
        2,
        _with_integers(_resnext_cifar),
        "CIFAR ResNeXt",
    ),
    _Family(
        "wrn{6n+4}_{width}_cifar",
        r"wrn(?P<depth>[1-9]\d{0,4})_(?P<width>[1-9]\d{0,4})_cifar",
        6,
        4,
        _with_integers(_wide_cifar),
        "wide CIFAR ResNet",
    ),
)
_RESNEXT_DEPTHS = (50, 101, 152)
_RESNEXT_NAME = re.compile(r"(se)?resnext([1-9]\d{0,4})_([1-9]\d{0,4})x([1-9]\d{0,4})d", re.ASCII)
RESNEXT_LABEL = "[se]resnext{50|101|152}_{groups}x{width}d"


def _from_family(name: str) -> Row | None:
    """The row of a family's member; None where no family writes its names so."""
    for family in FAMILIES:
        match = family.match(name)
        if not match:
            continue
        numbers = match.groupdict()
        depth = int(numbers.pop("depth"))
        blocks, remainder = divmod(depth - family.offset, family.layers_per_block)
        if remainder == 0 and blocks >= 1:
            return family.make(name, blocks, **numbers)
        low = max(blocks, 1)
        near = " or ".join(family.name(match, n) for n in (low, low + 1))
        raise InputError(
            f"The depth of a {family.what} must be {family.layers_per_block}n + {family.offset} with n >= 1. "
            f"Received: {name!r}. Nearest: {near}."
        )
    match = _RESNEXT_NAME.fullmatch(name)
    if match:
        depth, groups, width = map(int, match.groups()[1:])
        if depth not in _RESNEXT_DEPTHS:
            raise InputError(f"The depth of a ResNeXt must be 50, 101 or 152. Received: {name!r}.")
        squeezed: dict[str, Any] = {"reference": HU2017, "se_ratio": 1 / 16} if match[1] else {}
        return _resnext(name, depth, groups, width, **squeezed)
    return None


def _unknown(name: object) -> NoReturn:
    raise InputError(
        f"Unknown network. Received: {name!r}.{suggest(str(name), TABLE)} "
        f"Allowed: {', '.join(TABLE)}; and {', '.join(list_families())} for any n >= 1."
    )


def _member(name: str) -> Row:
    return _from_family(name) or _unknown(name)


_ROWS = (
    *(_imagenet(f"resnet{depth}", depth) for depth in _IMAGENET_DEPTHS),
    *(_imagenet(f"resnetv2_{depth}", depth, HE2016, dialect=TORCHVISION_V2) for depth in _IMAGENET_DEPTHS),
    *(_imagenet(f"resnet{depth}_d", depth, HE2018, stem="deep", shortcut="D") for depth in _IMAGENET_DEPTHS),
    *(_member(f"resnext{name}d") for name in ("50_32x4", "101_32x8", "101_64x4")),
    *(_imagenet(f"wide_resnet{depth}_2", depth, ZAGORUYKO2016, width_per_group=128) for depth in (50, 101)),
    *(_imagenet(f"seresnet{depth}", depth, HU2017, se_ratio=1 / 16) for depth in (18, 34, 50, 101, 152)),
    _member("seresnext50_32x4d"),
    *(_imagenet(f"plain{depth}", depth, shortcut="none") for depth in (18, 34)),
    *(_imagenet(f"resnet{depth}_keras", depth, KERAS_APPLICATIONS, dialect=KERAS_V1) for depth in (50, 101, 152)),
    *(
        _imagenet(f"resnet{depth}v2_keras", depth, KERAS_APPLICATIONS, strides=(2, 2, 2, 1), dialect=KERAS_V2)
        for depth in (50, 101, 152)
    ),
    replace(_imagenet("resnet18_d2l", 18, D2L_CHAPTER, dialect=D2L), input_shape=(224, 224, 1), classes=10),
    *(_member(f"resnet{depth}_cifar") for depth in (20, 32, 44, 56, 110, 1202)),
    *(_member(f"resnet{depth}_cifar_b") for depth in (20, 32, 44, 56, 110)),
    *(_member(f"plain{depth}_cifar") for depth in (20, 56)),
    *(_member(f"resnetv2_{depth}_cifar") for depth in (20, 110)),
    _member("resnetv2_164_cifar_bottleneck"),  # the paper's ResNet-164
    _member("resnext29_8x64d_cifar"),
    *(_member(f"wrn{name}_cifar") for name in ("16_4", "28_10", "40_2")),
    *(
        replace(_imagenet(f"resnet{depth}_1d", depth, SEQUENCES, rank=1), input_shape=DEFAULT_INPUT_SHAPES[1])
        for depth in (18, 34, 50)
    ),
    replace(
        _imagenet("resnet18_multiscale_1d", 18, MULTI_SCALE, rank=1, kernel_sizes=(3, 5, 7)),
        input_shape=DEFAULT_INPUT_SHAPES[1],
    ),
    _imagenet("resnet18_multiscale", 18, MULTI_SCALE, kernel_sizes=(3, 5, 7)),
)
TABLE: dict[str, Row] = {row.spec.name: row for row in _ROWS}


def list_families() -> list[str]:
    """Returns how the names of the families are written, of which any member can be built."""
    return [*(family.label for family in FAMILIES), RESNEXT_LABEL]


def get_row(name: str) -> Row:
    """Returns the row called `name`, from the table or by a family's formula.

    Raises:
        InputError: no such network; names the nearest, or the nearest depths of the family.
    """
    row = (TABLE.get(name) or _from_family(name)) if isinstance(name, str) else None
    return row or _unknown(name)


def resolve(spec_or_name: ResNetSpec | str) -> Row:
    """Returns the row of a name, or for a spec of one's own a row with the default input and classes."""
    if isinstance(spec_or_name, ResNetSpec):
        return Row(spec_or_name, DEFAULT_INPUT_SHAPES[spec_or_name.rank], DEFAULT_CLASSES, "a spec of one's own")
    return get_row(spec_or_name)


def get_spec(name: str) -> ResNetSpec:
    """Returns the spec of the network called `name`; errors as `get_row`."""
    return get_row(name).spec


def find_row(spec: ResNetSpec, near: str) -> Row | None:
    """Returns the row that is `spec` but for its name: of the table, or of the family that the name `near` belongs to."""
    for row in TABLE.values():
        if replace(row.spec, name=spec.name) == spec:
            return row
    read = ((family, family.match(near)) for family in FAMILIES)
    names = [family.name(match, spec.depths[0]) for family, match in read if match]
    match = _RESNEXT_NAME.fullmatch(near)
    if match:
        names += [f"{near[: match.start(2)]}{depth}{near[match.end(2) :]}" for depth in _RESNEXT_DEPTHS]
    rows = (get_row(name) for name in names)
    return next((row for row in rows if replace(row.spec, name=spec.name) == spec), None)


def list_models(pattern: str = "*") -> list[str]:
    """Returns the names in the table that match a shell-style `pattern`, in table order."""
    return [name for name in TABLE if fnmatch.fnmatchcase(name, pattern)]
