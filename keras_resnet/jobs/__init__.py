"""Whole jobs over a run folder; only here does data meet model."""

from keras_resnet.jobs.inference import Prediction, evaluate, predict
from keras_resnet.jobs.run_folder import Run, load_run
from keras_resnet.jobs.train_job import train

__all__ = ["Prediction", "Run", "evaluate", "load_run", "predict", "train"]
