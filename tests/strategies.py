"""Random specs, for properties that hold of every network."""

import dataclasses

import numpy as np
from hypothesis import strategies as st

from keras_resnet import ResNetSpec
from keras_resnet.specs import DIALECTS


@st.composite
def specs(draw):
    stages = draw(st.integers(1, 3))
    block = draw(st.sampled_from(["basic", "bottleneck"]))
    kernel_sizes = draw(st.sampled_from([(3,), (3,), (5,), (3, 5)]))
    groups = draw(st.sampled_from([1, 2, 3])) if block == "bottleneck" else 1
    if groups > 1:
        kernel_sizes = kernel_sizes[:1]
    widths = sorted(draw(st.lists(st.integers(2, 9), min_size=stages, max_size=stages)))
    # Each kernel of a bottleneck needs at least one of its inner channels.
    group_widths = [width for width in (32, 64, 128) if widths[0] * width // 64 >= len(kernel_sizes)]
    stem = draw(st.sampled_from(["imagenet", "cifar", "deep", "none"]))
    strides = tuple(draw(st.lists(st.integers(1, 3), min_size=stages, max_size=stages)))
    shortcut = draw(st.sampled_from(["A", "B", "C", "D", "none"]))
    reached = [{"imagenet": 4, "deep": 4}.get(stem, 1) * int(np.prod(strides[:k])) for k in range(stages + 1)]
    return ResNetSpec(
        "drawn",
        block,
        depths=tuple(draw(st.lists(st.integers(1, 2), min_size=stages, max_size=stages))),
        filters=tuple(widths),
        strides=strides,
        stem=stem,
        stem_filters=draw(st.integers(2, widths[0])),
        rank=draw(st.sampled_from([1, 2])),
        kernel_sizes=kernel_sizes,
        groups=groups,
        width_per_group=draw(st.sampled_from(group_widths)) if block == "bottleneck" else 64,
        shortcut=shortcut,
        se_ratio=draw(st.sampled_from([0, 0, 0.25])),
        dropout=draw(st.sampled_from([0, 0.5])),
        block_dropout=draw(st.sampled_from([0, 0, 0.3])),
        stochastic_depth=draw(st.sampled_from([0, 0.2])) if shortcut != "none" else 0,
        zero_gamma=draw(st.booleans()) and shortcut != "none",
        output_stride=draw(st.sampled_from([None, *reached])),
        dialect=draw(st.sampled_from(list(DIALECTS.values()))),
    )


@st.composite
def deep_specs(draw):
    """Specs of any kind, with stages long enough that blocks repeat."""
    spec = draw(specs())
    return dataclasses.replace(spec, depths=[draw(st.integers(1, 6)) for _ in spec.depths])
