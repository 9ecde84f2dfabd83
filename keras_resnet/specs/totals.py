"""Sums over a whole network from its spec alone: parameters, multiply-adds, activations, memory of a training step."""

from __future__ import annotations

import math
import operator
from typing import NamedTuple

from keras_resnet.records import check_count
from keras_resnet.specs.counting import complete_arguments
from keras_resnet.specs.layout import iter_runs
from keras_resnet.specs.spec import ResNetSpec
from keras_resnet.specs.table import resolve
from keras_resnet.specs.walk import Walk

_BYTES_PER_VALUE = 4  # float32
# Bytes of activations that a step holds at its peak, per byte that all layers put out. ReLU and dropout often work in
# place and gradients are freed as they are used, but those in flight and the convolutions' workspace come on top:
# measured from 0.6 to 1.0 between two batch sizes of one network; the rest is margin.
_KEPT_SHARE = 1.25
# Whatever the batch, tracing a training step costs 11 to 22 MiB for each block, with convolutions side by side for each
# of them; stem and head take what a block does.
_GRAPH_BYTES_PER_BLOCK = 24 * 2**20


class Totals(NamedTuple):
    """What a network holds and what it costs for one input."""

    parameters: int  # all, BN's moving statistics included
    trainable: int
    multiply_adds: int  # of a forward pass
    activations: int  # values that the layers put out, see `count_totals`


def count_totals(
    spec_or_name: ResNetSpec | str,
    input_shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    *,
    include_top: bool = True,
) -> Totals:
    """`sum(iter_layers(...))` in one walk that looks once at blocks that repeat: for a search over many specs.

    Activations are the output sizes, in values for one input, of all layers of the built model that ends in logits,
    but for its input and padding layers: about what training keeps for the backward pass.

    Arguments and errors as `iter_layers`.
    """
    spec, input_shape, classes = complete_arguments(spec_or_name, input_shape, classes)
    walk = Walk(spec, input_shape, record=False)
    walk.stem()
    for block, times in iter_runs(spec):
        walk.run(block, times)
    walk.head(classes if include_top else None)
    return Totals(walk.parameters, walk.trainable, walk.multiply_adds, walk.activations)


def count_params(
    spec: ResNetSpec | str,
    input_shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    *,
    include_top: bool = True,
    trainable_only: bool = False,
) -> int:
    """Counts all parameters as `model.count_params()` would (BN statistics included), without building.

    Arguments and errors as `iter_layers`; `trainable_only` leaves out BN's moving mean and variance, as
    PyTorch libraries count.
    """
    totals = count_totals(spec, input_shape, classes, include_top=include_top)
    return totals.trainable if trainable_only else totals.parameters


def count_macs(
    spec: ResNetSpec | str,
    input_shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    *,
    include_top: bool = True,
) -> int:
    """Counts the multiply-adds of one forward pass of one image: convolutions and the dense head.

    Half of what is often printed as "FLOPs". Arguments and errors as `iter_layers`.
    """
    return count_totals(spec, input_shape, classes, include_top=include_top).multiply_adds


def estimate_memory(
    spec_or_name: ResNetSpec | str,
    input_shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    *,
    batch_size: int,
    optimizer_slots: int = 1,
) -> int:
    """`4 (1.25 activations * batch + parameters (2 + slots)) + 24 MiB (blocks + 1)`: bytes that a training step needs.

    In float32 with TensorFlow on a CPU, beyond what the process holds before its first step. In 28 settings (CIFAR forms
    at 8 to 128 images, ImageNet forms at 64 to 224 pixels; SGD and Adam) it was 1.0 to 1.9 times what was measured.

    Args:
        spec_or_name: as in `iter_layers`, as are `input_shape` and `classes`.
        input_shape: (height, width, channels), or (steps, channels).
        classes: outputs of the head.
        batch_size: images in a step.
        optimizer_slots: values the optimizer keeps for each weight: 1 for SGD with momentum, 2 for Adam, 0 for plain SGD.

    Raises:
        InputError: as `iter_layers`; a batch size below 1, a number of slots below 0.
    """
    check_count("batch_size", batch_size)
    check_count("optimizer_slots", optimizer_slots, least=0)
    spec = resolve(spec_or_name).spec
    totals = count_totals(spec_or_name, input_shape, classes)
    kept = math.ceil(_KEPT_SHARE * totals.activations) * operator.index(batch_size)
    held = totals.parameters * (2 + operator.index(optimizer_slots))  # weights, their gradients, the slots
    graph = _GRAPH_BYTES_PER_BLOCK * (sum(spec.depths) + 1) * len(spec.kernel_sizes)
    return _BYTES_PER_VALUE * (kept + held) + graph
