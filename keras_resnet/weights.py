"""Weights from other libraries, by a map of layer names."""

from __future__ import annotations

from typing import Any

import keras

from keras_resnet.errors import InputError
from keras_resnet.names import HEAD, HEAD_DENSE, STEM, layer_name, read_layer

_HEAD_BN = layer_name(HEAD, "bn")
_SINGLE = {  # ours -> keras.applications'
    layer_name(STEM, "conv"): "conv1_conv",
    layer_name(STEM, "bn"): "conv1_bn",
    _HEAD_BN: "post_bn",
    HEAD_DENSE: "predictions",
}
_IN_BLOCK = ("conv", "bn", "shortcut_conv", "shortcut_bn")


def keras_applications_name(name: str, *, preactivation: bool) -> str:
    """Returns what `keras.applications` calls the layer that is called `name` here.

    `stage2_block1_conv3` is `conv3_block1_3_conv` there. With `preactivation`, the names of `ResNet50V2`, where BN comes
    before the convolution of the next number: `stage2_block1_bn1` is `conv3_block1_preact_bn` and `_bn2` is `_1_bn`.

    Raises:
        InputError: no layer with weights is called so.
    """
    if name in _SINGLE:
        return _SINGLE[name]
    ours = read_layer(name)
    is_shortcut = ours is not None and ours.part.startswith("shortcut_")
    if ours is None or ours.block is None or ours.part not in _IN_BLOCK or (ours.index is None) != is_shortcut:
        raise InputError(
            f"A layer must be one of {', '.join(_SINGLE)}, or of a block with conv, bn or shortcut_conv in its name. "
            f"Received: {name!r}."
        )
    kind, index = ours.part.removeprefix("shortcut_"), ours.index or 0
    part = f"{index}_{kind}"
    if preactivation and kind == "bn":
        part = "preact_bn" if index == 1 else f"{index - 1}_bn"
    return f"conv{ours.stage + 1}_block{ours.block}_{part}"


def load_keras_applications(model: keras.Model, source: keras.Model, *, head: bool = True) -> None:
    """Copies the weights of a `keras.applications` ResNet into the same network of ours, layer by layer.

    For example `load_keras_applications(resnet50_keras(), keras.applications.ResNet50())`, or `resnet50v2_keras` and
    `ResNet50V2`; afterwards both give the same outputs at every stage, for images preprocessed as
    `keras.applications.resnet.preprocess_input` (or `resnet_v2`) does. Nothing is copied if anything does not fit.

    Args:
        model: of a row `resnet*_keras`.
        source: from `keras.applications`; `weights=` there takes "imagenet" or a file.
        head: whether the dense head is copied; False keeps that of `model`, for other classes.

    Raises:
        InputError: a layer of either has no counterpart in the other, or other shapes, strides or epsilon.
    """
    for argument, value in (("model", model), ("source", source)):
        if not isinstance(value, keras.Model):
            raise InputError(f"{argument} must be a Keras model. Received: {value!r}.")
    names = {layer.name for layer in model.layers}
    theirs = {layer.name: layer for layer in source.layers if layer.weights}
    if not head or HEAD_DENSE not in names:
        theirs.pop("predictions", None)
    copies: list[tuple[Any, list[Any]]] = []
    for layer in model.layers:
        if not layer.weights or (layer.name == HEAD_DENSE and not head):
            continue
        name = keras_applications_name(layer.name, preactivation=_HEAD_BN in names)
        counterpart = theirs.pop(name, None)
        ours_is, theirs_is = _describe(layer), _describe(counterpart)
        if ours_is != theirs_is:
            raise InputError(
                f"Each layer must have a counterpart of the same shapes in {source.name}. Received: {layer.name} with "
                f"{ours_is}, there {name} with {theirs_is}. Rows for keras.applications are called resnet50_keras, "
                "resnet50v2_keras, and so on; head=False leaves the head out."
            )
        copies.append((layer, counterpart.get_weights()))  # type: ignore[union-attr]
    if theirs:
        raise InputError(
            f"Each layer of {source.name} must have a counterpart in {model.name}. Received: "
            f"{', '.join(list(theirs)[:5])} without one; the source may be a deeper network."
        )
    for layer, weights in copies:
        layer.set_weights(weights)


def _describe(layer: Any) -> str:
    """What two layers must share to compute the same from the same weights."""
    if layer is None:
        return "no weights"
    shapes = [tuple(weight.shape) for weight in layer.weights]
    rest = [f"{field} {getattr(layer, field)}" for field in ("strides", "epsilon") if hasattr(layer, field)]
    return ", ".join([f"weights {shapes}", *rest])
