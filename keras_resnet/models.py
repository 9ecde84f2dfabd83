"""Specs become functional Keras models: `build`, the named builder functions, and `load_model`."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_resnet import blocks
from keras_resnet.errors import InputError
from keras_resnet.fused import fuse_model, warn_without_onednn
from keras_resnet.names import INPUT, STEM, read_layer
from keras_resnet.specs import (
    DEFAULT_CLASSES,
    TABLE,
    Block,
    ResNetSpec,
    check_classes,
    check_input_shape,
    iter_blocks,
    resolve,
)

# Keras walks a functional graph recursively: a frame or two for each layer on the longest path, and a block has up to
# twenty layers. The rest is room for the caller's own frames.
_FRAMES_PER_BLOCK = 64
_ANY_DEPTH = 1_000_000  # recursion limit for a graph of unknown depth


@contextlib.contextmanager
def deep_graph(frames: int = _ANY_DEPTH) -> Iterator[None]:
    """Raises Python's recursion limit while Keras walks a graph, by default for one of unknown depth."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, frames))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


@contextlib.contextmanager
def _dtype_policy(dtype: str | keras.DTypePolicy | None) -> Iterator[None]:
    """Makes `dtype` the global policy for as long as layers are made; None changes nothing."""
    before = keras.config.dtype_policy()
    if dtype is not None:
        try:
            policy = keras.dtype_policies.get(dtype)
        except (ValueError, TypeError) as error:
            raise InputError(
                "dtype must be None or a Keras dtype policy such as 'float32', 'mixed_bfloat16' or 'mixed_float16'. "
                f"Received: {dtype!r}."
            ) from error
        keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def build(
    spec_or_name: ResNetSpec | str,
    input_shape: tuple[int | None, ...] | None = None,
    classes: int = DEFAULT_CLASSES,
    *,
    include_top: bool = True,
    input_tensor: Any = None,
    pooling: str | None = None,
    classifier_activation: str | None = "softmax",
    block: Callable[[Any, Block], Any] | None = None,
    name: str | None = None,
    dtype: str | keras.DTypePolicy | None = None,
) -> keras.Model:
    """`head(stages(stem(x)))`: builds the network of a spec as a functional Keras model.

    Args:
        spec_or_name: a `ResNetSpec`, or a name from the table such as "resnet50" or "resnet20_cifar".
        input_shape: (height, width, channels), or (steps, channels) for sequences; channels last; sides may be None.
            By default the input of the network's source: (224, 224, 3), (32, 32, 3) for the CIFAR forms, (1024, 1)
            for sequences; without the top, sides of None, as in `keras.applications`.
        classes: number of outputs.
        include_top: whether to end in the pooled, dense head; without it the last stage's output (in pre-activation
            after BN and ReLU), or its `pooling`.
        input_tensor: a Keras tensor to build on, instead of a new input. Layer names repeat from one network to the
            next, so two that are joined in one model are called as layers instead: `build(...)(tensor)`.
        pooling: "avg", "max" or None; only without the top.
        classifier_activation: of the head; None ends in logits.
        block: a function of your own in place of the spec's block, called as `blocks.basic_block` is: `block(x, block)`
            with a `Block`, of whose fields it uses what it will. What it builds is not in the spec (`block="custom"` says
            so), and cannot be counted from it.
        name: of the model; by default the spec's, or with a block in place of the spec's own `{spec.name}_custom`.
        dtype: Keras' dtype policy of the layers, such as "mixed_bfloat16", in which weights, BN's statistics and the
            head stay in float32; by default the global policy.

    Returns:
        A model from (batch, height, width, channels) float32 to (batch, classes) float32; without the top to the
        last stage's (batch, height, width, channels), or pooled to (batch, channels).

    Raises:
        InputError: unknown name, an input that leaves no pixel, classes below 1, unknown pooling or activation, a
            "custom" block that is not given, a block that returns no feature map.
    """
    row = resolve(spec_or_name)
    spec = row.spec
    default_shape: tuple[int | None, ...] = row.input_shape
    if not include_top:  # as keras.applications: any size
        default_shape = (None,) * spec.rank + default_shape[-1:]
    if pooling not in (None, "avg", "max"):
        raise InputError(f"pooling must be 'avg', 'max' or None. Received: {pooling!r}.")
    if include_top and pooling is not None:
        raise InputError(f"pooling is for include_top=False; the head pools by itself. Received: pooling={pooling!r}.")
    classes = check_classes(classes)
    if spec.block == "custom" and block is None:
        raise InputError(
            f"{spec.name}: a spec with block='custom' is built with a block function of your own, "
            "build(spec, block=my_block). Received: block=None."
        )
    if block is not None:
        _check_block_function(block)
    if name is not None and (not isinstance(name, str) or not name or "/" in name):
        raise InputError(f"name must be a string without '/', or None. Received: {name!r}.")
    if classifier_activation is not None:
        try:
            keras.activations.get(classifier_activation)
        except ValueError as error:
            raise InputError(
                f"classifier_activation must be None or a Keras activation such as 'softmax' or 'sigmoid'. "
                f"Received: {classifier_activation!r}."
            ) from error

    if input_tensor is not None:
        if not keras.backend.is_keras_tensor(input_tensor):
            raise InputError(f"input_tensor must be a Keras tensor, as keras.Input gives. Received: {input_tensor!r}.")
        if input_shape is not None and tuple(input_tensor.shape[1:]) != check_input_shape(spec, input_shape):
            raise InputError(
                f"input_shape must be that of input_tensor, {tuple(input_tensor.shape[1:])}, or left out. "
                f"Received: {tuple(input_shape)}."
            )
        check_input_shape(spec, input_tensor.shape[1:])
        inputs = input_tensor
    else:
        inputs = keras.Input(check_input_shape(spec, default_shape if input_shape is None else input_shape), name=INPUT)

    warn_without_onednn()
    with _dtype_policy(dtype), deep_graph(_FRAMES_PER_BLOCK * (sum(spec.depths) + 16)):
        x = blocks.stem(inputs, spec.stem, spec.stem_filters, dialect=spec.dialect)
        block_function = block or blocks.BLOCK_FUNCTIONS[spec.block]
        for described in iter_blocks(spec):
            x = block_function(x, described)
            _check_block_output(x, spec, described.name)
        x = blocks.head_activation(x, dialect=spec.dialect)
        if include_top:
            x = blocks.pool(x, "avg")
            x = blocks.classifier(
                x, classes, dropout=spec.dropout, activation=classifier_activation, dialect=spec.dialect
            )
        elif pooling:
            x = blocks.pool(x, pooling)
        # As keras.applications: a model over what input_tensor was itself computed from, if anything.
        if input_tensor is not None:
            inputs = keras.utils.get_source_inputs(input_tensor)
        default_name = spec.name if block is None or spec.block == "custom" else f"{spec.name}_custom"
        try:
            model = keras.Model(inputs, x, name=name or default_name)
        except ValueError as error:
            if "should be unique" not in str(error):
                raise
            raise InputError(
                f"{spec.name}: layer names must be unique in one model, and input_tensor comes from a model with the "
                "same ones. Call this network as a layer instead: build(...)(tensor). Received: input_tensor="
                f"{input_tensor!r}."
            ) from error
    fuse_model(model, relu_may_join=_find_joins(spec, own_block=block is not None))
    return model


def _find_joins(spec: ResNetSpec, *, own_block: bool) -> Callable[[keras.Layer], bool]:
    """Which BN layers a ReLU may join, so that NaN in an input or a weight still shows in the loss.

    Those in a branch, around which the shortcut carries it. Not in pre-activation, where a projection comes behind the
    first BN and ReLU, and not in the first block, since oneDNN's max pool makes the lowest number of NaN.
    """
    if own_block or spec.shortcut == "none" or spec.dialect.preactivation:
        return lambda layer: False
    first = next(iter_blocks(spec)).name

    def may_join(layer: keras.Layer) -> bool:
        name = read_layer(layer.name)
        return name is not None and name.block is not None and name.place != first

    return may_join


def _check_block_function(block: object) -> None:
    """Raises InputError unless `block` can be called as `block(x, block)`."""
    if not callable(block):
        raise InputError(f"block must be a function such as blocks.basic_block, or None. Received: {block!r}.")
    try:
        signature = inspect.signature(block)
    except ValueError:  # of a function that is written in C
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise InputError(
            "block must be a function that is called as block(x, block), with a tensor and a keras_resnet.Block. "
            f"Received: one with the arguments {signature}."
        ) from error


def _check_block_output(x: Any, spec: ResNetSpec, block_name: str) -> None:
    """Raises InputError where a block function of the user's returned anything but a feature map."""
    if not keras.backend.is_keras_tensor(x) or len(x.shape) != spec.rank + 2:
        raise InputError(
            f"{spec.name}: a block function must return a Keras tensor of rank {spec.rank + 2}, batch and channels "
            f"included. Received from {block_name}: {x!r}."
        )


def stage_outputs(model: keras.Model) -> dict[str, Any]:
    """Returns `{"stem": x0, "stage1": x1, ...}`: the Keras tensors that stem (if any) and stages put out, in order.

    For a feature pyramid, `keras.Model(model.input, stage_outputs(model))`. In pre-activation they come before the next
    block's BN and ReLU; with an output stride, `output_stride` in the spec, the last ones share a size.

    Args:
        model: from `build` or loaded, with or without the top; not nested in another model.

    Raises:
        InputError: the model has no layers named as `build` names them.
    """
    if not isinstance(model, keras.Model):
        raise InputError(f"stage_outputs needs a Keras model. Received: {model!r}.")
    outputs: dict[str, Any] = {}
    for layer in model.layers:  # in the order of a forward pass, so that the last of a stage is its output
        name = read_layer(layer.name)
        if name is not None and (name.section == STEM or name.block is not None):
            outputs[name.section] = layer.output
    if not set(outputs) - {STEM}:
        raise InputError(
            "stage_outputs needs a model of keras_resnet.build, whose layers are called stem_*, stage1_block1_*, and so "
            f"on. Received: {model.name!r} with layers {', '.join(layer.name for layer in model.layers[:5])}, ..."
        )
    return outputs


def load_model(path: str | os.PathLike[str], *, compile: bool = True) -> keras.Model:
    """Loads a `.keras` file; `keras.saving.load_model` in safe mode, also for graphs beyond its recursion limit.

    Raises:
        InputError: there is no such file, or it is not a Keras model.
    """
    if not isinstance(path, (str, os.PathLike)) or not os.path.isfile(path):
        raise InputError(f"A saved model must be a .keras file. Received: {path!r}, which is not a file.")
    with deep_graph():
        try:
            return keras.saving.load_model(path, compile=compile, safe_mode=True)
        except (ValueError, KeyError, OSError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(f"{os.fspath(path)} could not be read as a Keras model: {error}") from error


def load_weights(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Loads the weights of a `.weights.h5` or `.keras` file into a model of the same network, of any depth.

    Raises:
        InputError: the file holds no weights, or those of another network.
    """
    try:
        with deep_graph():
            model.load_weights(path)
    except (ValueError, KeyError, OSError) as error:
        raise InputError(f"{os.fspath(path)} does not hold weights of {model.name}: {error}") from error


def _named_builder(network: str) -> Callable[..., keras.Model]:
    row = TABLE[network]

    def builder(
        include_top: bool = True,
        weights: str | os.PathLike[str] | None = None,
        input_tensor: Any = None,
        input_shape: tuple[int | None, ...] | None = None,
        pooling: str | None = None,
        classes: int = DEFAULT_CLASSES,
        classifier_activation: str | None = "softmax",
        name: str = network,
    ) -> keras.Model:
        if weights == "imagenet":
            raise InputError(
                f"weights must be None or the path of a .weights.h5 or .keras file: {network} ships no weights, so "
                "'imagenet' cannot be loaded. For pretrained ImageNet weights use keras.applications, or save "
                "weights of your own with model.save_weights(...)."
            )
        if weights is not None and (not isinstance(weights, (str, os.PathLike)) or not os.path.isfile(weights)):
            raise InputError(f"weights must be None or the path of an existing file. Received: {weights!r}.")
        model = build(
            network,
            input_shape,
            classes,
            include_top=include_top,
            input_tensor=input_tensor,
            pooling=pooling,
            classifier_activation=classifier_activation,
            name=name,
        )
        if weights is not None:
            load_weights(model, weights)
        return model

    shape = " x ".join(map(str, row.input_shape))
    builder.__name__ = builder.__qualname__ = network
    builder.__doc__ = f"""Builds {network}: {row.spec.block} blocks {list(row.spec.depths)}, {row.reference}.

    Arguments as `keras.applications.ResNet50`, except that `weights` is None (random) or the path of a weights
    file; `input_shape` is {shape} by default. Returns a functional `keras.Model`. Errors as `build`.
    """
    return builder


# One function per row, `resnet18(...)`, `resnet20_cifar(...)`, ..., found by name in this module.
NAMED_BUILDERS: dict[str, Callable[..., keras.Model]] = {network: _named_builder(network) for network in TABLE}
globals().update(NAMED_BUILDERS)
