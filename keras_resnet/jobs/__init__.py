"""Whole jobs over a run folder or a search folder; only here does data meet model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_resnet import lazy

# The supervisor of a search needs no TensorFlow.
__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "data_job": ("DataReport", "inspect_data"),
        "export_job": ("export_run",),
        "inference": ("Prediction", "evaluate", "predict"),
        "run_folder": ("Run", "load_run"),
        "keras_resnet.jobs.searches.folder": ("load_search",),
        "keras_resnet.jobs.searches.job": ("search",),
        "keras_resnet.jobs.searches.results": ("Search",),
        "train_job": ("train",),
    },
)

if TYPE_CHECKING:
    from keras_resnet.jobs.data_job import DataReport, inspect_data
    from keras_resnet.jobs.export_job import export_run
    from keras_resnet.jobs.inference import Prediction, evaluate, predict
    from keras_resnet.jobs.run_folder import Run, load_run
    from keras_resnet.jobs.searches.folder import load_search
    from keras_resnet.jobs.searches.job import search
    from keras_resnet.jobs.searches.results import Search
    from keras_resnet.jobs.train_job import train
