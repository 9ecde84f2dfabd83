"""Timings of our networks beside Keras' own and PyTorch's, each in a process of its own, in alternating rounds."""

from keras_resnet.benchmark.measurements import Figures, Measurement
from keras_resnet.benchmark.plan import BenchmarkPlan, Case, make_plan
from keras_resnet.benchmark.runner import measure
from keras_resnet.benchmark.workload import DTYPES, SIDES, TASKS, Workload

__all__ = [
    "DTYPES",
    "SIDES",
    "TASKS",
    "BenchmarkPlan",
    "Case",
    "Figures",
    "Measurement",
    "Workload",
    "make_plan",
    "measure",
]
