"""Timings of our networks beside Keras' own and PyTorch's, each in a process of its own, in alternating rounds."""

from keras_resnet.benchmark.plan import DTYPES, SIDES, TASKS, Case, Plan, make_plan
from keras_resnet.benchmark.runner import Row, measure

__all__ = ["DTYPES", "SIDES", "TASKS", "Case", "Plan", "Row", "make_plan", "measure"]
