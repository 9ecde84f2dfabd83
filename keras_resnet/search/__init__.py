"""Search over depths, widths and recipes with KerasTuner: the space, the budget, the HyperModel, the tuners."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_resnet import lazy

# KerasTuner and Keras take seconds to load; the space and its arithmetic need neither.
__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "candidates": ("Budget", "Candidates"),
        "hypermodel": ("HyperResNet",),
        "oracles": ("make_oracle",),
        "progress": ("PROGRESS_FILE", "Progress"),
        "space": ("TUNERS", "Space", "parse_space"),
        "tuner": ("Tuner", "make_tuner"),
    },
)

if TYPE_CHECKING:
    from keras_resnet.search.candidates import Budget, Candidates
    from keras_resnet.search.hypermodel import HyperResNet
    from keras_resnet.search.oracles import make_oracle
    from keras_resnet.search.progress import PROGRESS_FILE, Progress
    from keras_resnet.search.space import TUNERS, Space, parse_space
    from keras_resnet.search.tuner import Tuner, make_tuner
