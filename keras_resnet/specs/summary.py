"""A network by stages, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from keras_resnet.specs.block import Block, BlockOptions
from keras_resnet.specs.conv import Conv
from keras_resnet.specs.counting import Section, iter_sections
from keras_resnet.specs.layout import iter_stages
from keras_resnet.specs.spec import ResNetSpec
from keras_resnet.specs.stem import POOLED_STEMS, stem_convs
from keras_resnet.specs.table import resolve

# The options that have words of their own here: of the convolutions, behind the stage, or of the conventions.
_DESCRIBED = ("kernel_sizes", "groups", "width_per_group", "se_ratio", "shortcut", "dialect")


@dataclass(frozen=True)
class SectionSummary:
    """The stem, one stage or the head, for people."""

    name: str  # "stem", "stage1", ..., "head"
    text: str  # such as "6 x [1x1->256, 3x3->256 in 32 groups, 1x1->1024]"
    blocks: int  # 0 for stem and head
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


def summarize(
    spec: ResNetSpec | str, input_shape: tuple[int, ...] | None = None, classes: int | None = None
) -> list[SectionSummary]:
    """Returns what each section of a network does, puts out, holds and costs; arguments and errors as `count_params`."""
    sections = list(iter_sections(spec, input_shape, classes))
    spec = resolve(spec).spec
    texts = [_describe_stem(spec), *_describe_stages(spec), _describe_head(spec, sections[-1])]
    return [
        SectionSummary(section.name, text, blocks, section.output_shape, section.parameters, section.multiply_adds)
        for section, text, blocks in zip(sections, texts, (0, *spec.depths, 0), strict=True)
    ]


def _describe_conv(conv: Conv, rank: int) -> str:
    sizes = "|".join("x".join([str(size)] * rank) for size in conv.kernel_sizes)
    text = f"{sizes}->{conv.filters}"
    text += f" in {conv.groups} groups" if conv.groups > 1 else ""
    text += f" stride {conv.stride}" if conv.stride > 1 else ""
    return text + (f" dilated {conv.dilation}" if conv.dilation > 1 and conv.kernel_sizes != (1,) else "")


def _describe_stem(spec: ResNetSpec) -> str:
    parts = [_describe_conv(conv, spec.rank) for conv in stem_convs(spec.stem, spec.stem_filters)]
    if spec.stem in POOLED_STEMS:
        parts.append(f"max pool {'x'.join(['3'] * spec.rank)} stride 2")
    return ", ".join(parts) or "the input as it is"


def _describe_stages(spec: ResNetSpec) -> Iterator[str]:
    for _, blocks in iter_stages(spec):
        usual = _describe_branch(blocks[-1 if spec.dialect.stride_block == "first" else 0], spec.rank)
        strides = [block.stride for block in blocks]
        text = f"{len(blocks)} x [{usual}]"
        if max(strides) > 1:
            text += f", the {'first' if strides[0] > 1 else 'last'} with stride {max(strides)}"
        yield text + (f", SE {spec.se_ratio:g}" if spec.se_ratio else "")


def _describe_branch(block: Block, rank: int) -> str:
    convs = replace(block, stride=1).convs  # a stride is told once, behind the stage
    return ", ".join(_describe_conv(conv, rank) for conv in convs)


def _describe_head(spec: ResNetSpec, section: Section) -> str:
    parts = ["BN, ReLU"] if spec.dialect.preactivation else []
    parts += ["mean", *([f"dropout {spec.dropout:g}"] if spec.dropout else []), f"dense {section.output_shape[-1]}"]
    return ", ".join(parts)


def describe_conventions(spec: ResNetSpec) -> str:
    """One line on what holds for all stages: dialect, shortcut and the rest of the spec that is not the default."""
    changes = "shape changes" if spec.dialect.stride_block == "first" else "channels change"
    shortcuts = {
        "A": "shortcut A (zero padding)",
        "B": f"shortcut B (projection where the {changes})",
        "C": "shortcut C (projection in every block)",
        "D": "shortcut D (average pool, projection)",
        "none": "no shortcuts",
    }
    parts = [
        f"dialect {spec.dialect.name}",
        "pre-activation" if spec.dialect.preactivation else "ReLU after the addition",
        shortcuts[spec.shortcut],
    ]
    for field in fields(BlockOptions):
        value = getattr(spec, field.name)
        if field.name not in _DESCRIBED and value != field.default:
            parts.append(field.name.replace("_", " ") if value is True else f"{field.name} {value}")
    return ", ".join([*parts, f"total stride {spec.total_stride}"])
