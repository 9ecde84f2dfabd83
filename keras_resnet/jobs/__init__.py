"""Whole jobs over a run folder or a search folder; only here does data meet model."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Loaded on first use: the supervisor of a search needs no TensorFlow.
_HOMES = {
    "DataReport": "data_job",
    "inspect_data": "data_job",
    "export_run": "export_job",
    "Prediction": "inference",
    "evaluate": "inference",
    "predict": "inference",
    "Run": "run_folder",
    "load_run": "run_folder",
    "Search": "search_folder",
    "load_search": "search_folder",
    "search": "search_job",
    "train": "train_job",
}
__all__ = [
    "DataReport",
    "Prediction",
    "Run",
    "Search",
    "evaluate",
    "export_run",
    "inspect_data",
    "load_run",
    "load_search",
    "predict",
    "search",
    "train",
]

if TYPE_CHECKING:
    from keras_resnet.jobs.data_job import DataReport, inspect_data
    from keras_resnet.jobs.export_job import export_run
    from keras_resnet.jobs.inference import Prediction, evaluate, predict
    from keras_resnet.jobs.run_folder import Run, load_run
    from keras_resnet.jobs.search_folder import Search, load_search
    from keras_resnet.jobs.search_job import search
    from keras_resnet.jobs.train_job import train


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'keras_resnet.jobs' has no attribute {name!r}")
    return getattr(importlib.import_module(f"keras_resnet.jobs.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
