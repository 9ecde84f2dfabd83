"""The processes of a search: one that plans it, KerasTuner's chief, and its workers. The supervisor runs it as a module."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_resnet.errors import InputError
from keras_resnet.files import write_beside
from keras_resnet.jobs.searches.folder import TRIALS_FOLDER, SearchFolder
from keras_resnet.jobs.searches.record import SearchPlan, SearchRecord
from keras_resnet.jobs.searches.tasks import (
    BUG,
    DONE,
    INPUT_ERROR,
    REPLACE,
    ChiefTask,
    PlanTask,
    Problem,
    Task,
    WorkerTask,
)
from keras_resnet.recipes import Recipe

if TYPE_CHECKING:
    from keras_resnet.data import Split

SEARCH_VALIDATION_SPLIT = 0.2  # twice that of a training: here it has to tell networks apart


def plan(task: PlanTask) -> int:
    """Loads the data once and decides all that trials share."""
    from keras_resnet import data as data_module
    from keras_resnet.environment import RESULT_PACKAGES, describe_machine, describe_versions
    from keras_resnet.jobs.train_plan import complete_recipe, prepare_data
    from keras_resnet.search import Budget, Candidates

    request = task.request
    images = data_module.load_data(request.source)
    recipe = complete_recipe(images, request.input, request.recipe, validation_split=SEARCH_VALIDATION_SPLIT)
    if not recipe.validation_split:
        raise InputError(
            "A search compares trials on validation images: validation_split must be above 0. Received: 0."
        )
    data = prepare_data(images, request.input, recipe)
    asked = request.budget
    candidates = Candidates(  # a budget that cannot be met is an error here
        data.preprocessing.input_shape,
        data.classes,
        space=request.space,
        recipe=recipe,
        budget=Budget(asked.max_params, asked.max_macs, asked.max_memory or task.memory_limit_bytes),
        augment=True,
    )
    found = SearchPlan(
        data=data.facts,
        preprocessing=data.preprocessing,
        recipe=recipe,
        budget=candidates.budget,
        space=candidates.space,
        versions=describe_versions(*RESULT_PACKAGES),
        machine=describe_machine(),
    )
    write_beside(task.plan_path, lambda path: path.write_text(json.dumps(found.to_dict()), "utf-8"))
    return DONE


def chief(task: ChiefTask) -> int:
    """KerasTuner's chief: hands out trials over gRPC until all are done."""
    from keras_resnet.search import make_oracle
    from keras_resnet.search.oracles import WholeTuner

    record = _read_record(task.folder)
    request, candidates = record.request, record.plan.make_candidates()
    oracle = make_oracle(
        request.tuner,
        candidates,
        objective=request.objective,
        max_trials=request.trials,
        seed=candidates.recipe.seed,
    )
    tuner = WholeTuner(oracle, directory=task.folder, project_name=TRIALS_FOLDER)
    oracle.max_trials = request.trials  # a search gone on with may have been given more
    tuner.search(verbose=0)
    return DONE


def worker(task: WorkerTask) -> int:
    """Trains trials until the chief has no more, or until this process has grown too large."""
    _limit_devices(task)
    from keras_resnet import data as data_module
    from keras_resnet.data.encoded import naming_undecodable
    from keras_resnet.jobs.train_plan import TrainingData, draw_training
    from keras_resnet.search import HyperResNet, Tuner, make_oracle

    record = _read_record(task.folder)
    request, plan = record.request, record.plan
    images = data_module.load_data(request.source)
    train, held_out = draw_training(images, request.input.train_size, plan.recipe)
    assert held_out is not None
    validation: Split = held_out
    del images  # its test split is never looked at
    data = TrainingData(plan.data, train, validation, plan.preprocessing)

    def make_data(recipe: Recipe, first_epoch: int = 0) -> tuple[Any, Any]:
        return data.make_train_dataset(recipe, first_epoch=first_epoch), data.make_eval_dataset(validation, recipe)

    hypermodel = HyperResNet(
        plan.preprocessing.input_shape,
        data.classes,
        space=plan.space,
        recipe=plan.recipe,
        make_data=make_data,
        **plan.budget.to_dict(),
    )
    oracle = make_oracle(request.tuner, hypermodel.candidates, objective=request.objective)
    tuner = Tuner(
        oracle,
        hypermodel,
        memory_limit=task.memory_limit_bytes,
        rpc_timeout=task.chief_timeout_seconds,
        directory=task.folder,
        project_name=TRIALS_FOLDER,
    )
    with naming_undecodable(train, validation):
        tuner.search(verbose=0, class_weight=data.get_class_weights(plan.recipe))
    return REPLACE if tuner.out_of_memory else DONE


def _limit_devices(task: WorkerTask) -> None:
    """Gives TensorFlow the worker's threads, and one GPU, in turns; before anything else uses TensorFlow."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(task.threads)
    tf.config.threading.set_inter_op_parallelism_threads(task.threads)
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        own = gpus[task.index % len(gpus)]
        tf.config.set_visible_devices(own, "GPU")
        tf.config.experimental.set_memory_growth(own, True)


def _read_record(folder: str) -> SearchRecord:
    record = SearchFolder(folder).read()
    if record is None:
        raise InputError(f"A search folder must hold a search. Received: {folder}.")
    return record


def _end_with(parent: int) -> None:
    """Ends this process when the supervisor is gone, however that ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


_ROLES: dict[str, tuple[type[Task], Callable[[Any], int]]] = {
    "plan": (PlanTask, plan),
    "chief": (ChiefTask, chief),
    "worker": (WorkerTask, worker),
}


def main(role: str, task_json: str) -> int:
    """Runs a role for a task; what goes wrong is left in the task's error file."""
    kind, do = _ROLES[role]
    task = kind.from_dict(json.loads(task_json))
    _end_with(task.parent)
    try:
        return do(task)
    except InputError as error:
        problem, code = Problem("input", str(error)), INPUT_ERROR
    except Exception as error:
        traceback.print_exc()
        problem, code = Problem("bug", f"{type(error).__name__}: {error}", traceback.format_exc()), BUG
    write_beside(task.error_path, lambda path: path.write_text(json.dumps(problem.to_dict()), "utf-8"))
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
