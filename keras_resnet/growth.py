"""Growing a trained network without changing what it computes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_resnet.errors import InputError
from keras_resnet.models import build
from keras_resnet.specs import ResNetSpec, find_row

_GROWABLE = ("A", "B", "D")


def deepen(model: keras.Model, spec: ResNetSpec, depths: Iterable[int]) -> tuple[keras.Model, ResNetSpec]:
    """`relu(0 + x) = x`: the same function with more blocks, each of which starts as an identity.

    The new blocks come last in their stage (before the last one where the dialect has the stride there); their last BN
    scale is 0, in pre-activation their last kernel, which training moves as any other weight. All other weights
    are those of `model`, so that the outputs are, bit for bit but for rounding, what they were. Chen et al. 2015,
    Net2Net (arXiv:1511.05641); Goyal et al. 2017, section 5.1, for the zero scale.

    Args:
        model: a network of `spec`, with any head, trained or not; it is left as it is.
        spec: what `model` was built from.
        depths: blocks in each stage afterwards, none fewer than now.

    Returns:
        The deeper model, not compiled, and its spec: that of a row where there is one of this shape.

    Raises:
        InputError: fewer blocks or another number of stages than now, a spec whose blocks cannot be identities (no
            shortcut, or a projection in each), a model that is not of `spec`.
    """
    depths = tuple(depths)
    if spec.block == "custom" or spec.shortcut not in _GROWABLE:
        raise InputError(
            f"{spec.name}: a new block must be able to be an identity, which takes a built-in block and one of the "
            f"shortcuts {', '.join(map(repr, _GROWABLE))}. Received: block={spec.block!r}, shortcut={spec.shortcut!r}."
        )
    if len(depths) != len(spec.depths) or any(new < old for new, old in zip(depths, spec.depths, strict=False)):
        raise InputError(
            f"{spec.name}: depths must have one entry per stage, none below {spec.depths}. Received: {depths!r}."
        )
    strided_last = spec.dialect.stride_block == "last"
    for stage, (old, new, stride) in enumerate(zip(spec.depths, depths, spec.strides, strict=True), start=1):
        if strided_last and old == 1 and new > 1 and stride > 1:
            raise InputError(
                f"{spec.name}: the only block of stage {stage} both projects and has the stride, which the dialect "
                f"{spec.dialect.name!r} does in two blocks of a longer stage, so it cannot grow. Received: {depths!r}."
            )
    _check_model(model, spec)
    deeper_spec = _deepen_spec(spec, depths)
    deeper = build(deeper_spec, model.input_shape[1:], name=deeper_spec.name, **_describe_head(model))
    old_names = {layer.name for layer in model.layers}
    for layer in deeper.layers:
        source = _source_name(layer.name, spec, depths)
        if source in old_names:
            layer.set_weights(model.get_layer(source).get_weights())
    for stage, (old, new) in enumerate(zip(spec.depths, depths, strict=True), start=1):
        first = old if strided_last else old + 1
        for block in range(first, first + new - old):
            _make_identity(deeper, f"stage{stage}_block{block}", spec)
    return deeper, deeper_spec


def _check_model(model: keras.Model, spec: ResNetSpec) -> None:
    expected = build(spec, model.input_shape[1:], **_describe_head(model))
    names, theirs = [layer.name for layer in expected.layers[1:]], [layer.name for layer in model.layers[1:]]
    shapes = [tuple(weight.shape) for weight in expected.weights] == [tuple(weight.shape) for weight in model.weights]
    if names != theirs or not shapes:
        odd = sorted(set(names) ^ set(theirs))
        raise InputError(
            f"deepen needs a model that build({spec.name!r}) made. Received: {model.name!r}, which differs"
            + (f" in the layers {', '.join(odd[:5])}." if odd else " in the shapes of its weights.")
        )


def _describe_head(model: keras.Model) -> dict[str, Any]:
    """The arguments of `build` that end a network as `model` ends."""
    layers = {layer.name: layer for layer in model.layers}
    if "head_logits" in layers:
        activation = layers.get("head_probabilities")
        return {
            "classes": layers["head_logits"].units,
            "classifier_activation": None if activation is None else activation.activation,
        }
    pool = layers.get("head_pool")
    pooling = None if pool is None else "max" if "Max" in type(pool).__name__ else "avg"
    return {"include_top": False, "pooling": pooling}


def _source_name(name: str, spec: ResNetSpec, depths: tuple[int, ...]) -> str | None:
    """The layer of the shallower network whose weights `name` takes; None for a layer of a new block."""
    match = re.match(r"stage(\d+)_block(\d+)_", name)
    if not match:
        return name
    stage, block = int(match[1]), int(match[2])
    old, new = spec.depths[stage - 1], depths[stage - 1]
    if spec.dialect.stride_block == "first" or old == new:
        return name if block <= old else None
    if block == new:
        return f"stage{stage}_block{old}_{name[match.end() :]}"
    return name if block < old else None


def _make_identity(model: keras.Model, block: str, spec: ResNetSpec) -> None:
    """Sets to 0 what makes the block's branch vanish and yet has a gradient."""
    last = 2 if spec.block == "basic" else 3
    if not spec.dialect.preactivation:
        bn = model.get_layer(f"{block}_bn{last}")
        bn.gamma.assign(np.zeros(bn.gamma.shape))
        return
    for layer in model.layers:
        if re.fullmatch(rf"{block}_conv{last}(_k\d+)?", layer.name):
            layer.kernel.assign(np.zeros(layer.kernel.shape))


def _deepen_spec(spec: ResNetSpec, depths: tuple[int, ...]) -> ResNetSpec:
    """The deeper spec, under the name of a row if there is one, else with its depths behind the name it began with."""
    first_name = spec.name.removesuffix(_suffix(spec.depths))
    deeper = replace(spec, depths=depths)
    row = find_row(deeper, near=first_name)
    return row.spec if row is not None else replace(deeper, name=first_name + _suffix(depths))


def _suffix(depths: tuple[int, ...]) -> str:
    return "".join(f"_{depth}" for depth in depths)
