"""Specs become functional Keras models: `build`, the named builder functions, and `load_model`."""

from __future__ import annotations

import contextlib
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_resnet import blocks
from keras_resnet.errors import InputError
from keras_resnet.specs import TABLE, ResNetSpec, check_classes, check_input_shape, get_row

# Keras walks a functional graph recursively: a frame or two for each layer on the longest path, and a block has up to
# ten layers. The rest is room for the caller's own frames.
_FRAMES_PER_BLOCK = 64
_LARGE_FILE_LIMIT = 1_000_000  # recursion limit while a file of unknown depth is loaded


@contextlib.contextmanager
def _recursion_limit(frames: int) -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, frames))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def build(
    spec_or_name: ResNetSpec | str,
    input_shape: tuple[int | None, int | None, int] | None = None,
    classes: int = 1000,
    *,
    include_top: bool = True,
    input_tensor: Any = None,
    pooling: str | None = None,
    classifier_activation: str | None = "softmax",
    block: Callable[..., Any] | None = None,
    name: str | None = None,
) -> keras.Model:
    """`head(stages(stem(x)))`: builds the network of a spec as a functional Keras model.

    Args:
        spec_or_name: a `ResNetSpec`, or a name from the table such as "resnet50" or "resnet20_cifar".
        input_shape: (height, width, channels), channels last; sides may be None. By default the input of the
            network's source: (224, 224, 3), or (32, 32, 3) for the CIFAR forms.
        classes: number of outputs.
        include_top: whether to end in the pooled, dense head; without it the last stage's output, or its `pooling`.
        input_tensor: a Keras tensor to build on, instead of a new input.
        pooling: "avg", "max" or None; only without the top.
        classifier_activation: of the head; None ends in logits.
        block: a function of your own in place of the spec's block, called as `blocks.basic_block` is:
            `block(x, filters, stride=, width_per_group=, shortcut_kind=, zero_gamma=, dialect=, name=)`.
        name: of the model; by default the spec's.

    Returns:
        A model from (batch, height, width, channels) float32 to (batch, classes) float32; without the top to the
        last stage's (batch, height, width, channels), or pooled to (batch, channels).

    Raises:
        InputError: unknown name, an input that leaves no pixel, classes below 1, unknown pooling or activation.
    """
    if isinstance(spec_or_name, ResNetSpec):
        spec, default_shape = spec_or_name, (224, 224, 3)
    else:
        row = get_row(spec_or_name)
        spec, default_shape = row.spec, row.input_shape
    if pooling not in (None, "avg", "max"):
        raise InputError(f"pooling must be 'avg', 'max' or None. Received: {pooling!r}.")
    if include_top and pooling is not None:
        raise InputError(f"pooling is for include_top=False; the head pools by itself. Received: pooling={pooling!r}.")
    check_classes(classes)
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
        if input_shape is not None and tuple(input_tensor.shape[1:]) != tuple(input_shape):
            raise InputError(
                f"input_shape must be that of input_tensor, {tuple(input_tensor.shape[1:])}, or left out. "
                f"Received: {tuple(input_shape)}."
            )
        check_input_shape(spec, input_tensor.shape[1:])
        inputs = input_tensor
    else:
        inputs = keras.Input(
            check_input_shape(spec, default_shape if input_shape is None else input_shape), name="images"
        )

    with _recursion_limit(_FRAMES_PER_BLOCK * (sum(spec.depths) + 16)):
        x = blocks.stem(inputs, spec.stem, spec.stem_filters, dialect=spec.dialect)
        block = block or blocks.BLOCK_FUNCTIONS[spec.block]
        for stage, (depth, filters, stride) in enumerate(zip(spec.depths, spec.filters, spec.strides, strict=True), 1):
            for index in range(1, depth + 1):
                x = block(
                    x,
                    filters,
                    stride=stride if index == 1 else 1,
                    width_per_group=spec.width_per_group,
                    shortcut_kind=spec.shortcut,
                    zero_gamma=spec.zero_gamma,
                    dialect=spec.dialect,
                    name=f"stage{stage}_block{index}",
                )
        if include_top:
            x = blocks.pool(x, "avg")
            x = blocks.classifier(x, classes, activation=classifier_activation, dialect=spec.dialect)
        elif pooling:
            x = blocks.pool(x, pooling)
        # As keras.applications: a model over what input_tensor was itself computed from, if anything.
        if input_tensor is not None:
            inputs = keras.utils.get_source_inputs(input_tensor)
        return keras.Model(inputs, x, name=name or spec.name)


def load_model(path: str | os.PathLike[str], *, compile: bool = True) -> keras.Model:
    """Loads a `.keras` file; `keras.saving.load_model` in safe mode, also for graphs beyond its recursion limit.

    Raises:
        InputError: there is no such file, or it is not a Keras model.
    """
    if not os.path.isfile(path):
        raise InputError(f"A saved model must be a .keras file. Received: {os.fspath(path)!r}, which is not a file.")
    with _recursion_limit(_LARGE_FILE_LIMIT):
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
        with _recursion_limit(_LARGE_FILE_LIMIT):
            model.load_weights(path)
    except (ValueError, KeyError, OSError) as error:
        raise InputError(f"{os.fspath(path)} does not hold weights of {model.name}: {error}") from error


def _named_builder(network: str) -> Callable[..., keras.Model]:
    row = TABLE[network]

    def builder(
        include_top: bool = True,
        weights: str | os.PathLike[str] | None = None,
        input_tensor: Any = None,
        input_shape: tuple[int | None, int | None, int] | None = None,
        pooling: str | None = None,
        classes: int = 1000,
        classifier_activation: str | None = "softmax",
        name: str = network,
    ) -> keras.Model:
        if weights == "imagenet":
            raise InputError(
                f"weights must be None or the path of a .weights.h5 or .keras file: {network} ships no weights, so "
                "'imagenet' cannot be loaded. For pretrained ImageNet weights use keras.applications, or save "
                "weights of your own with model.save_weights(...)."
            )
        if weights is not None and not os.path.isfile(weights):
            raise InputError(f"weights must be None or the path of an existing file. Received: {os.fspath(weights)!r}.")
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
    builder.__doc__ = f"""Builds {network}: {row.spec.block} blocks {list(row.spec.depths)}, {row.source}.

    Arguments as `keras.applications.ResNet50`, except that `weights` is None (random) or the path of a weights
    file; `input_shape` is {shape} by default. Returns a functional `keras.Model`. Errors as `build`.
    """
    return builder


# One function per row, `resnet18(...)`, `resnet20_cifar(...)`, ..., found by name in this module.
NAMED_BUILDERS: dict[str, Callable[..., keras.Model]] = {network: _named_builder(network) for network in TABLE}
globals().update(NAMED_BUILDERS)
