"""Rewriting a trained network for inference: BN folded into convolutions, random layers removed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_resnet.errors import InputError
from keras_resnet.layers import GroupedConv1D, GroupedConv2D
from keras_resnet.models import deep_graph
from keras_resnet.private import get_nodes

# Layers with the kernel's filters last, so that one factor per filter can be folded in.
_LINEAR = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Dense,
    GroupedConv1D,
    GroupedConv2D,
)
_IDENTITIES = (  # in inference; stochastic depth is a Dropout with one draw per image
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)
_GROUPED = {keras.layers.Conv1D: GroupedConv1D, keras.layers.Conv2D: GroupedConv2D}
_POOLS = (
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
)
_NARROW = 8  # channels of a group below which two groups are computed as one


@dataclass(frozen=True)
class _Affine:
    """`scale y + shift` per channel."""

    scale: np.ndarray
    shift: np.ndarray


def fold_batchnorm(model: keras.Model) -> keras.Model:
    """`conv(x; s W) + s (b - mean) + beta`, with `s = gamma / sqrt(variance + epsilon)`: BN inside the convolutions.

    What inference computes, in fewer operations: each BN goes into the convolution (or Dense layer) before it where that feeds
    nothing else and has no activation, also through a concatenation of convolutions; dropout and stochastic depth are
    removed. BN that follows something else, as the first of each pre-activation block, or a quantized layer, stays. What
    LoRA adds becomes part of the kernels. Jacob et al. 2018 (arXiv:1712.05877), section 3.2.

    Args:
        model: a functional or Sequential model with inputs, trained or not; it is left as it is. Models nested in it are
            folded too. Layers that are called several times stay as they are.

    Returns:
        A new functional model with the same inputs, outputs and layer names (but for what is gone), outputs equal to
        1e-4 of their scale; not compiled. It is for inference: training it goes on without BN.

    Raises:
        InputError: not a model, or one whose layers are not known to Keras (a subclass with a `call` of its own).
    """
    return rewrite(model)


def rewrite(
    model: keras.Model, *, native_groups: bool = False, pair_groups: bool = False, slice_pools: bool = False
) -> keras.Model:
    """`fold_batchnorm`, and other layers as they run best.

    Args:
        model: functional or Sequential.
        native_groups: Keras' grouped convolutions, which need XLA, become ours.
        pair_groups: two by two, groups of fewer than 8 channels become one, with zeros where a filter does not look. It
            is what TensorFlow computes fastest on a CPU: half as many convolutions without oneDNN, whole registers with.
        slice_pools: pools of a single pixel, which only leave out, become slices; oneDNN's pools are slow to begin.
    """
    model = as_functional(model)
    folding = _Folding(model)
    sources: dict[str, Any] = {}

    def clone(layer: Any) -> Any:
        if is_network(layer):
            return rewrite(layer, native_groups=native_groups, pair_groups=pair_groups, slice_pools=slice_pools)
        kind: Any = type(layer)
        config = layer.get_config()
        if isinstance(layer, keras.Layer):  # and not an operation of keras.ops
            sources[layer.name] = layer
        if _has_lora(layer):
            config |= {"lora_rank": None}  # what it adds is in the kernel
        if layer.name in folding.folded:
            config |= {"use_bias": True, "kernel_initializer": "zeros"}
        if native_groups and getattr(layer, "groups", 1) > 1 and kind in _GROUPED:
            kind = _GROUPED[kind]
        if pair_groups and _is_narrow(layer):
            config |= {"groups": layer.groups // 2}
        if slice_pools and _is_one_pixel_pool(layer):
            kind, config = _Subsample, {"name": layer.name, "strides": layer.strides}
        try:
            return kind.from_config(config)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise _not_rebuilt(model, error) from error

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in folding.removed else layer(*args, **kwargs)

    with deep_graph():
        try:
            result = keras.models.clone_model(
                model, input_tensors=_make_inputs(model), clone_function=clone, call_function=call
            )
        except NotImplementedError as error:  # of get_config()
            raise _not_rebuilt(model, error) from error
        # Without what compiled the original.
        result = keras.Model(result.input, result.output, name=model.name)
    for layer in result.layers:
        if layer.name not in sources:
            continue
        source = sources[layer.name]
        weights = _fold(source, folding.folded[layer.name]) if layer.name in folding.folded else _get_weights(source)
        if pair_groups and _is_narrow(source):
            weights[0] = _pair(weights[0], source.groups)
        layer.set_weights(weights)
    return result


def _make_inputs(model: keras.Model) -> Any:
    """Inputs with the names of the model's input layers; `clone_model` by itself takes those of the tensors."""
    layers = {id(layer.output): layer for layer in model.operations if isinstance(layer, keras.layers.InputLayer)}

    def copy(tensor: Any) -> Any:
        return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=layers[id(tensor)].name)

    return keras.tree.map_structure(copy, model.input)


def _has_lora(layer: Any) -> bool:
    return type(layer) in _LINEAR and layer.lora_enabled


def _get_weights(layer: Any) -> list[np.ndarray]:
    """The weights as the layer without LoRA has them."""
    if not _has_lora(layer):
        return layer.get_weights()
    return [np.asarray(weight) for weight in (layer.kernel, layer.bias) if weight is not None]


def _not_rebuilt(model: keras.Model, error: Exception) -> InputError:
    return InputError(
        f"{model.name}: every layer must be one that Keras can build again from its get_config(). Received: {error}"
    )


def is_network(layer: Any) -> bool:
    """Whether a layer is a functional or Sequential model itself."""
    return isinstance(layer, keras.Model) and (isinstance(layer, keras.Sequential) or hasattr(layer, "operations"))


def as_functional(model: keras.Model) -> keras.Model:
    """The model itself, or a Sequential as a functional model; raises InputError for what is neither."""
    if isinstance(model, keras.Sequential) and model.built and model.inputs:
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if not is_network(model) or isinstance(model, keras.Sequential):
        raise InputError(
            "A functional Keras model is needed, or a Sequential one with an Input, as keras_resnet.build and "
            f"keras.saving.load_model give. Received: {model!r}."
        )
    return model


def get_producers(model: keras.Model) -> dict[int, Any]:
    """Operations by `id` of their output; without those that are called several times or have several outputs."""
    producers = {}
    for operation in model.operations:
        nodes = get_nodes(operation)
        if len(nodes) == 1 and len(nodes[0].outputs) == 1:
            producers[id(nodes[0].outputs[0])] = operation
    return producers


class _Folding:
    """Which layers of a model go away, and what is folded into which."""

    def __init__(self, model: keras.Model) -> None:
        self.folded: dict[str, _Affine] = {}
        self._producers = get_producers(model)
        self._uses = Counter(id(tensor) for tensor in model.outputs)
        for operation in model.operations:
            for node in get_nodes(operation):
                self._uses.update(id(tensor) for tensor in node.input_tensors)
        self.removed = {layer.name for layer in model.operations if isinstance(layer, _IDENTITIES)}
        for layer in model.operations:
            if type(layer) is keras.layers.BatchNormalization and len(get_nodes(layer)) == 1:
                self._add(layer)

    def _add(self, bn: Any) -> None:
        targets = self._find_targets(bn.input)
        axis = bn.axis if bn.axis >= 0 else bn.axis + len(bn.input.shape)
        if not targets or any(_channel_axis(layer, len(bn.input.shape)) != axis for layer in targets):
            return
        scale, shift = _compute_affine(bn)
        start = 0
        for layer in targets:
            end = start + layer.kernel.shape[-1]
            self.folded[layer.name] = _Affine(scale[start:end], shift[start:end])
            start = end
        self.removed.add(bn.name)

    def _find_targets(self, tensor: Any) -> list[Any]:
        """The layers that together make `tensor` and nothing else, in the order of its channels; empty if others do."""
        producer = self._producers.get(id(tensor))
        if producer is None or self._uses[id(tensor)] != 1:
            return []
        if type(producer) in _LINEAR:
            usable = producer.activation is keras.activations.linear and producer.name not in self.folded
            quantized = getattr(producer, "quantization_mode", None) is not None  # its kernel is in units of its own
            return [producer] if usable and not quantized else []
        if type(producer) is keras.layers.Concatenate and producer.axis in (-1, len(tensor.shape) - 1):
            parts = [self._find_targets(part) for part in producer.input]
            return [layer for part in parts for layer in part] if all(parts) else []
        return []


def _channel_axis(layer: Any, rank: int) -> int:
    return 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1


def _compute_affine(bn: Any) -> tuple[np.ndarray, np.ndarray]:
    """`gamma / sqrt(variance + epsilon)` and `beta - mean scale`, in float64."""
    mean = np.asarray(bn.moving_mean, np.float64)
    scale = 1 / np.sqrt(np.asarray(bn.moving_variance, np.float64) + bn.epsilon)
    if bn.scale:
        scale = scale * np.asarray(bn.gamma, np.float64)
    shift = -mean * scale
    if bn.center:
        shift = shift + np.asarray(bn.beta, np.float64)
    return scale, shift


def _fold(layer: Any, affine: _Affine) -> list[np.ndarray]:
    kernel = np.asarray(layer.kernel, np.float64) * affine.scale
    bias = np.asarray(layer.bias, np.float64) if layer.use_bias else 0.0
    return [kernel, bias * affine.scale + affine.shift]


def _is_one_pixel_pool(layer: Any) -> bool:
    return type(layer) in _POOLS and set(layer.pool_size) == {1} and layer.data_format == "channels_last"


class _Subsample(keras.layers.Layer):
    """`x[:, ::stride, ::stride, :]`; of a network that is written into a graph and never saved as Keras'."""

    def __init__(self, strides: tuple[int, ...], **options: Any) -> None:
        super().__init__(**options)
        self._slices = (slice(None), *(slice(None, None, stride) for stride in strides))

    def call(self, inputs: Any) -> Any:
        """(batch, *sides, channels) to (batch, *ceil(sides / strides), channels)."""
        return inputs[self._slices]


def _is_narrow(layer: Any) -> bool:
    """Whether a grouped convolution's groups are to be paired."""
    return type(layer) in (*_GROUPED, *_GROUPED.values()) and layer.groups % 2 == 0 and layer.kernel.shape[-2] < _NARROW


def _pair(kernel: np.ndarray, groups: int) -> np.ndarray:
    """(..., channels of a group, filters) of `groups` as twice as many channels of half as many groups."""
    *window, channels, filters = kernel.shape
    parts = kernel.reshape(*window, channels, groups // 2, 2, filters // groups)
    paired = np.zeros((*window, 2, channels, groups // 2, 2, filters // groups), kernel.dtype)
    for half in (0, 1):
        paired[..., half, :, :, half, :] = parts[..., half, :]
    return paired.reshape(*window, 2 * channels, filters)
