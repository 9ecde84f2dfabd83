"""Growing a trained network without changing what it computes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_resnet.errors import InputError
from keras_resnet.models import build
from keras_resnet.names import HEAD_DENSE, HEAD_POOL, block_name, layer_name, read_layer
from keras_resnet.specs import Block, ResNetSpec, find_row, iter_blocks, resolve

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
    policy = next(layer for layer in model.layers if _is_of_block(layer)).dtype_policy
    deeper = build(deeper_spec, model.input_shape[1:], dtype=policy, **_describe_head(model))
    sources = _map_blocks(spec, depths)
    layers = {layer.name: layer for layer in model.layers}
    for layer in deeper.layers:
        source = layers.get(_source_name(layer.name, sources))
        if source is not None:
            layer.set_weights(source.get_weights())
            layer.trainable = source.trainable
    for block in iter_blocks(deeper_spec):
        if block.name not in sources:
            _make_identity(deeper, block)
    return deeper, deeper_spec


def _has_stride_last(spec: ResNetSpec, stage: int) -> bool:
    return spec.dialect.stride_block == "last" and spec.strides[stage - 1] > 1


def _check_model(model: keras.Model, spec: ResNetSpec) -> None:
    """Raises InputError unless `model` is, but for its weights, what `spec` builds."""
    names = [layer.name for layer in model.layers]
    if not any(map(_is_of_block, model.layers)):
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


def _is_of_block(layer: keras.Layer) -> bool:
    name = read_layer(layer.name)
    return name is not None and name.block is not None


def _describe_head(model: keras.Model) -> dict[str, Any]:
    """The arguments of `build` that end a network as `model` ends."""
    layers = {layer.name: layer for layer in model.layers}
    if HEAD_DENSE in layers:
        activation = model.layers[-1].activation  # of the dense layer, or of the layer behind it
        return {
            "classes": layers[HEAD_DENSE].units,
            "classifier_activation": None if activation is keras.activations.linear else activation,
        }
    pool = layers.get(HEAD_POOL)
    pooling = None if pool is None else "max" if "Max" in type(pool).__name__ else "avg"
    return {"include_top": False, "pooling": pooling}


def _map_blocks(spec: ResNetSpec, depths: tuple[int, ...]) -> dict[str, str]:
    """Names of blocks of the deeper network -> of those of the shallower one whose weights they take; new ones are left out."""
    sources = {}
    for stage, (old, new) in enumerate(zip(spec.depths, depths, strict=True), start=1):
        front = old - _has_stride_last(spec, stage)  # blocks in front of the new ones; the rest comes behind them
        for block in range(1, old + 1):
            sources[block_name(stage, block if block <= front else block + new - old)] = block_name(stage, block)
    return sources


def _source_name(name: str, sources: dict[str, str]) -> str | None:
    """The layer of the shallower network whose weights `name` takes; None for a layer of a new block."""
    read = read_layer(name)
    if read is None or read.block is None:
        return name
    source = sources.get(read.place)
    return None if source is None else source + name.removeprefix(read.place)


def _make_identity(model: keras.Model, block: Block) -> None:
    """Sets to 0 what makes the block's branch vanish and yet has a gradient."""
    last = len(block.convs)
    if not block.dialect.preactivation:
        bn = model.get_layer(layer_name(block.name, "bn", last))
        bn.gamma.assign(np.zeros(bn.gamma.shape))
        return
    for layer in model.layers:
        name = read_layer(layer.name)
        if name is not None and (name.place, name.part, name.index) == (block.name, "conv", last):
            layer.kernel.assign(np.zeros(layer.kernel.shape))


def _name(deeper: ResNetSpec, spec: ResNetSpec) -> ResNetSpec:
    """`deeper` under the name of a row if there is one, else with its depths behind the name that it began with."""
    first_name = spec.name.removesuffix(_suffix(spec.depths))
    row = find_row(deeper, near=first_name)
    return row.spec if row is not None else replace(deeper, name=first_name + _suffix(deeper.depths))


def _suffix(depths: tuple[int, ...]) -> str:
    return "".join(f"_{depth}" for depth in depths)
