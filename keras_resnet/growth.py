"""Growing a trained network without changing what it computes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_resnet.errors import InputError
from keras_resnet.models import build
from keras_resnet.specs import ResNetSpec, find_row, resolve

_GROWABLE = ("A", "B", "D")


def deepen(model: keras.Model, spec: ResNetSpec | str, depths: Iterable[int]) -> tuple[keras.Model, ResNetSpec]:
    """`relu(0 + x) = x`: the same function with more blocks, each of which starts as an identity.

    The new blocks come last in their stage (before the last one where that has the stride); their last BN scale is 0, in
    pre-activation their last kernel, which training moves as any other weight. All other weights are those of `model`, as
    are its dtype policy and which layers are frozen, so that the outputs are what they were but for rounding. Chen et al. 2015,
    Net2Net (arXiv:1511.05641); Goyal et al. 2017, section 5.1, for the zero scale.

    Args:
        model: a network of `spec`, with any head, trained or not; it is left as it is.
        spec: what `model` was built from, or its name.
        depths: blocks in each stage afterwards, none fewer than now.

    Returns:
        The deeper model, not compiled, and its spec: that of a row where there is one of this shape.

    Raises:
        InputError: fewer blocks or another number of stages than now, a spec whose blocks cannot be identities (no
            shortcut, or a projection in each), a model that is not of `spec`.
    """
    if not isinstance(model, keras.Model):
        raise InputError(f"deepen needs a Keras model. Received: {model!r}.")
    spec = resolve(spec).spec
    if spec.block == "custom" or spec.shortcut not in _GROWABLE:
        raise InputError(
            f"{spec.name}: a new block must be able to be an identity, which takes a built-in block and one of the "
            f"shortcuts {', '.join(map(repr, _GROWABLE))}. Received: block={spec.block!r}, shortcut={spec.shortcut!r}."
        )
    deeper_spec = replace(spec, depths=depths)  # type: ignore[arg-type]
    depths = deeper_spec.depths
    if any(new < old for new, old in zip(depths, spec.depths, strict=True)):
        raise InputError(f"{spec.name}: depths must not be below {spec.depths}. Received: {depths!r}.")
    for stage, (old, new) in enumerate(zip(spec.depths, depths, strict=True), start=1):
        if _has_stride_last(spec, stage) and old == 1 < new:
            raise InputError(
                f"{spec.name}: stage {stage} is one block with a stride, which the dialect {spec.dialect.name!r} has in the "
                f"last block of a longer stage, so it cannot grow. Received: {depths!r}."
            )
    _check_model(model, spec)
    deeper_spec = _name(deeper_spec, spec)
    with _dtype_policy(model):
        deeper = build(deeper_spec, model.input_shape[1:], **_describe_head(model))
    old_names = {layer.name for layer in model.layers}
    for layer in deeper.layers:
        source = _source_name(layer.name, spec, depths)
        if source in old_names:
            layer.set_weights(model.get_layer(source).get_weights())
            layer.trainable = model.get_layer(source).trainable
    for stage, (old, new) in enumerate(zip(spec.depths, depths, strict=True), start=1):
        first = old if _has_stride_last(spec, stage) else old + 1
        for block in range(first, first + new - old):
            _make_identity(deeper, f"stage{stage}_block{block}", spec)
    return deeper, deeper_spec


def _has_stride_last(spec: ResNetSpec, stage: int) -> bool:
    return spec.dialect.stride_block == "last" and spec.strides[stage - 1] > 1


@contextlib.contextmanager
def _dtype_policy(model: keras.Model) -> Iterator[None]:
    """Builds under the policy that `model` was built under."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(next(layer for layer in model.layers if layer.name.startswith("stage")).dtype_policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _check_model(model: keras.Model, spec: ResNetSpec) -> None:
    """Raises InputError unless `model` is, but for its weights, what `spec` builds."""
    names = [layer.name for layer in model.layers]
    if not any(re.match(r"stage\d+_block\d+_", name) for name in names):
        raise InputError(
            f"deepen needs a model of keras_resnet.build. Received: {model.name!r} without its layer names."
        )
    expected = build(spec, model.input_shape[1:], **_describe_head(model))
    odd = sorted({layer.name for layer in expected.layers[1:]} ^ set(names[1:])) or [
        layer.name for layer in expected.layers[1:] if _describe(layer) != _describe(model.get_layer(layer.name))
    ]
    if odd:
        raise InputError(
            f"deepen needs a model that build({spec.name!r}) made. Received: {model.name!r}, which differs in the layers "
            f"{', '.join(odd[:5])}."
        )


def _describe(layer: Any) -> tuple[Any, ...]:
    """What decides what a layer computes from given weights."""
    fields = ("strides", "padding", "dilation_rate", "groups", "pool_size", "epsilon", "rate", "noise_shape")
    return (
        type(layer).__name__,
        [tuple(weight.shape) for weight in layer.weights],
        [getattr(layer, field, None) for field in fields],
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
    if not _has_stride_last(spec, stage) or old == new:
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


def _name(deeper: ResNetSpec, spec: ResNetSpec) -> ResNetSpec:
    """`deeper` under the name of a row if there is one, else with its depths behind the name that it began with."""
    first_name = spec.name.removesuffix(_suffix(spec.depths))
    row = find_row(deeper, near=first_name)
    return row.spec if row is not None else replace(deeper, name=first_name + _suffix(deeper.depths))


def _suffix(depths: tuple[int, ...]) -> str:
    return "".join(f"_{depth}" for depth in depths)
