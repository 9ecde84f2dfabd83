"""From a model and batches to a trained model and its figures: compile, fit, re-estimate BN, evaluate."""

from keras_resnet.training.batchnorm import BatchNormEstimator, reestimate_batchnorm, reestimation_batches
from keras_resnet.training.callbacks import needs_each_step
from keras_resnet.training.checkpoints import Checkpoint, MemoryCheckpoint
from keras_resnet.training.compiling import (
    choose_steps_per_execution,
    compile_for_integer_labels,
    compile_model,
    schedule_steps,
)
from keras_resnet.training.evaluation import Evaluation, evaluate
from keras_resnet.training.fitting import Batches, Diverged, Trained, fit
from keras_resnet.training.optimizers import count_steps, make_optimizer, make_schedule

__all__ = [
    "BatchNormEstimator",
    "Batches",
    "Checkpoint",
    "Diverged",
    "Evaluation",
    "MemoryCheckpoint",
    "Trained",
    "choose_steps_per_execution",
    "compile_for_integer_labels",
    "compile_model",
    "count_steps",
    "evaluate",
    "fit",
    "make_optimizer",
    "make_schedule",
    "needs_each_step",
    "reestimate_batchnorm",
    "reestimation_batches",
    "schedule_steps",
]
