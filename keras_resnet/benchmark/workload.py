"""What a step of a benchmark computes, and who computes it. It loads neither TensorFlow nor PyTorch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from keras_resnet import specs
from keras_resnet.errors import InputError
from keras_resnet.records import Record, check_types

TASKS = ("train", "infer")
OURS, STOCK, APPLICATIONS, TORCH, TORCH_COMPILE = "ours", "stock", "keras.applications", "torch", "torch-compile"
SIDES = (OURS, STOCK, APPLICATIONS, TORCH, TORCH_COMPILE)
MATRIX_PRODUCT = "matrix product"  # takes part as a side does: its speed is the peak that shares are of
DTYPES = ("float32", "mixed_bfloat16")
# A training step multiplies about three times what a forward pass does: for the outputs, for the gradients of the
# inputs, and for the gradients of the kernels.
PASSES = {"train": 3, "infer": 1}
LEARNING_RATE, MOMENTUM = 0.01, 0.9  # SGD with Nesterov's momentum, on every side
PRODUCT_SIZE = 2048  # rows and columns of the matrix product: 16 MiB each in float32


@dataclass(frozen=True)
class Workload(Record):
    """A network, a task and a batch, and the type and threads it is computed with: the same for every side."""

    network: str
    task: str  # "train": a step of forward pass, gradients and optimizer; "infer": a forward pass
    batch_size: int
    input_shape: tuple[int, ...]  # (height, width, channels) or (steps, channels)
    classes: int
    dtype: str  # one of DTYPES
    threads: int

    def __post_init__(self) -> None:
        check_types(self)

    @property
    def title(self) -> str:
        """For messages: `resnet50 train, batch 16, 224x224x3`."""
        return f"{self.network} {self.task}, batch {self.batch_size}, {self.input_text}"

    @property
    def input_text(self) -> str:
        """The input's shape as `224x224x3`."""
        return "x".join(map(str, self.input_shape))

    def count_flops(self, side: str) -> int:
        """`2 * multiply-adds * batch`, three times that for a training step, of the network that `side` runs."""
        network = find_counterpart(self.network)[1] if side == APPLICATIONS else self.network
        multiply_adds = specs.count_macs(network, self.input_shape, self.classes)
        return 2 * multiply_adds * self.batch_size * PASSES[self.task]


def find_counterpart(network: str) -> tuple[str, str]:
    """The function of `keras.applications` that builds this network, and our row that is the same layer by layer.

    Raises:
        InputError: there is none.
    """
    match = re.fullmatch(r"resnet(v2_)?(50|101|152)|resnet(50|101|152)(v2)?_keras", network)
    if not match:
        raise InputError(f"keras.applications has ResNet-50, -101 and -152 and their v2. Received: {network!r}.")
    depth, version = match[2] or match[3], "V2" if match[1] or match[4] else ""
    return f"ResNet{depth}{version}", f"resnet{depth}{version.lower()}_keras"
