"""The sides on PyTorch: eager, and through `torch.compile`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from keras_resnet.benchmark.messages import MeasureJob
from keras_resnet.benchmark.sides import Side, Unavailable
from keras_resnet.benchmark.torch_networks import build_torch
from keras_resnet.benchmark.workload import LEARNING_RATE, MOMENTUM, TORCH_COMPILE
from keras_resnet.specs import get_spec


def make(job: MeasureJob) -> Side:
    """Training or inference of "torch" or "torch-compile": channels_last, as many threads as every side."""
    work = job.workload
    torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    *sides, channels = work.input_shape
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net: Any = build_torch(get_spec(work.network), channels, work.classes).to(device)
    generator = np.random.default_rng(0)
    images = generator.normal(size=(work.batch_size, channels, *sides)).astype(np.float32)
    labels = torch.from_numpy(generator.integers(0, work.classes, work.batch_size)).to(device)
    x = torch.from_numpy(images).to(device)
    if len(sides) == 2:
        net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    compiles = job.side == TORCH_COMPILE
    run_net = torch.compile(net) if compiles else net
    autocast: Callable[[], Any] = contextlib.nullcontext
    if work.dtype == "mixed_bfloat16":
        autocast = lambda: torch.autocast(device, torch.bfloat16)  # noqa: E731
    make_steps = _train if work.task == "train" else _infer
    run = make_steps(net, run_net, x, labels, autocast)

    def first() -> None:
        try:
            run(1)
        except Exception as error:
            if not compiles:
                raise
            # Whatever is missing, a compiler or a header, is said in the first line that says anything.
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = f"{type(error).__name__}: {' '.join(lines[:2])}"
            raise Unavailable(f"torch.compile failed, it needs a C++ compiler: {reason[:300]}") from error

    return Side(first, run, "gpu" if device == "cuda" else "cpu")


def _train(net: Any, run_net: Any, x: Any, labels: Any, autocast: Callable[[], Any]) -> Callable[[int], None]:
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE, momentum=MOMENTUM, nesterov=True)

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with autocast():
                loss = torch.nn.functional.cross_entropy(run_net(x), labels)
            loss.backward()
            optimizer.step()
        loss.item()  # an accelerator may still be at it

    return run


def _infer(net: Any, run_net: Any, x: Any, labels: Any, autocast: Callable[[], Any]) -> Callable[[int], None]:
    net.eval()

    def run(steps: int) -> None:
        with torch.no_grad():
            for _ in range(steps):
                probabilities = torch.softmax(run_net(x), dim=-1)
                probabilities[0, 0].item()  # each caller gets its answer before the next one asks

    return run
