"""Search over depths, widths and recipes with KerasTuner: the space, the budget, the HyperModel, the tuners."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from keras_resnet.search.candidates import Budget, Candidates
from keras_resnet.search.progress import PROGRESS_FILE, Progress
from keras_resnet.search.space import TUNERS, Space, parse_space

# KerasTuner and Keras take seconds to load; the space and its arithmetic need neither.
_HOMES = {
    "HyperResNet": "hypermodel",
    "make_oracle": "oracles",
    "Tuner": "tuner",
    "make_tuner": "tuner",
}
__all__ = [
    "PROGRESS_FILE",
    "TUNERS",
    "Budget",
    "Candidates",
    "HyperResNet",
    "Progress",
    "Space",
    "Tuner",
    "make_oracle",
    "make_tuner",
    "parse_space",
]

if TYPE_CHECKING:
    from keras_resnet.search.hypermodel import HyperResNet
    from keras_resnet.search.oracles import make_oracle
    from keras_resnet.search.tuner import Tuner, make_tuner


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'keras_resnet.search' has no attribute {name!r}")
    return getattr(importlib.import_module(f"keras_resnet.search.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
