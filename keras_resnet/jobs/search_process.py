"""The processes of a search: one that plans it, KerasTuner's chief, and its workers. Run as a module by `search_job`."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_resnet.errors import InputError
from keras_resnet.files import write_beside
from keras_resnet.recipes import Recipe, default_recipe

# Exit codes, by which the supervisor decides what to do.
DONE, INPUT_ERROR, BUG, REPLACE = 0, 2, 70, 75
SEARCH_VALIDATION_SPLIT = 0.2  # twice that of a training: here it has to tell networks apart


def plan(request_path: str, plan_path: str) -> int:
    """Loads the data once and decides all that trials share."""
    from keras_resnet import data as data_module
    from keras_resnet.environment import RESULT_PACKAGES, describe_machine, describe_versions
    from keras_resnet.jobs.run_folder import describe_data
    from keras_resnet.jobs.search_folder import get_data_options, make_candidates
    from keras_resnet.jobs.train_plan import draw_training

    request = json.loads(Path(request_path).read_text("utf-8"))
    memory = request.pop("default_memory")
    how = get_data_options({"request": request})
    normalize = how.pop("normalize")
    images = data_module.load_data(request["data"], **how)
    train_size = request["train_size"]
    default = default_recipe(images.name, train_size or len(images.train))
    recipe = Recipe.from_dict({**default.to_dict(), "validation_split": SEARCH_VALIDATION_SPLIT, **request["recipe"]})
    if not recipe.validation_split:
        raise InputError(
            "A search compares trials on validation images: validation_split must be above 0. Received: 0."
        )
    train, validation = draw_training(images, train_size, recipe)
    size = request["image_size_pixels"]
    preprocessing = data_module.compute_preprocessing(images, train, tuple(size) if size else None, normalize=normalize)
    record = {
        "request": request,
        "plan": {
            **describe_data(images, request["data"]),
            "input_shape": list(preprocessing.input_shape),
            "preprocessing": preprocessing.to_dict(),
            "recipe": recipe.to_dict(),
            "budget": {**request["budget"], "max_memory": request["budget"]["max_memory"] or memory},
            "skipped_images": list(images.skipped),
            "train_images": len(train),
            "validation_images": len(validation) if validation is not None else 0,
            "versions": describe_versions(*RESULT_PACKAGES),
            "machine": describe_machine().to_dict(),
        },
    }
    record["plan"]["space"] = make_candidates(record).space.to_dict()  # a budget that cannot be met is an error here
    write_beside(plan_path, lambda path: path.write_text(json.dumps(record), "utf-8"))
    return DONE


def chief(folder: str) -> int:
    """KerasTuner's chief: hands out trials over gRPC until all are done."""
    from keras_resnet.jobs.search_folder import TRIALS_FOLDER
    from keras_resnet.search import make_oracle
    from keras_resnet.search.oracles import WholeTuner

    candidates, request = _read(folder)
    oracle = make_oracle(
        request["tuner"],
        candidates,
        objective=request["objective"],
        max_trials=request["trials"],
        seed=candidates.recipe.seed,
    )
    tuner = WholeTuner(oracle, directory=folder, project_name=TRIALS_FOLDER)
    oracle.max_trials = request["trials"]  # a search gone on with may have been given more
    tuner.search(verbose=0)
    return DONE


def worker(folder: str, index: int, threads: int, memory_limit: int, rpc_timeout: float) -> int:
    """Trains trials until the chief has no more, or until this process has grown too large."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:  # one for each worker, in turns
        tf.config.set_visible_devices(gpus[index % len(gpus)], "GPU")
        tf.config.experimental.set_memory_growth(gpus[index % len(gpus)], True)

    from keras_resnet import data as data_module
    from keras_resnet.data import ImageData, Split
    from keras_resnet.data.encoded import naming_undecodable
    from keras_resnet.jobs.search_folder import TRIALS_FOLDER, SearchFolder, get_data_options, get_preprocessing
    from keras_resnet.jobs.train_plan import draw_training, get_class_weights
    from keras_resnet.search import HyperResNet, Tuner, make_oracle

    candidates, request = _read(folder)
    record = SearchFolder(folder).read()
    assert record is not None
    preprocessing, recipe = get_preprocessing(record), candidates.recipe
    how = get_data_options(record)
    del how["normalize"]  # what came of it is in `preprocessing`
    images: ImageData = data_module.load_data(request["data"], **how)
    train, validation = draw_training(images, request["train_size"], recipe)
    assert validation is not None
    held_out: Split = validation
    del images  # its test split is never looked at

    def make_data(recipe: Recipe, first_epoch: int = 0) -> tuple[Any, Any]:
        return (
            data_module.make_train_dataset(
                train,
                preprocessing,
                batch_size=recipe.batch_size,
                seed=recipe.seed,
                augmentation=recipe.augmentation,
                classes=candidates.classes,
                sampling=recipe.sampling,
                first_epoch=first_epoch,
            ),
            data_module.make_eval_dataset(held_out, preprocessing, batch_size=recipe.batch_size),
        )

    budget = candidates.budget
    hypermodel = HyperResNet(
        candidates.input_shape,
        candidates.classes,
        space=candidates.space,
        max_params=budget.max_params,
        max_macs=budget.max_macs,
        max_memory=budget.max_memory,
        recipe=recipe,
        make_data=make_data,
    )
    oracle = make_oracle(request["tuner"], hypermodel.candidates, objective=request["objective"])
    tuner = Tuner(
        oracle,
        hypermodel,
        memory_limit=memory_limit,
        rpc_timeout=rpc_timeout,
        directory=folder,
        project_name=TRIALS_FOLDER,
    )
    with naming_undecodable(train, validation):
        tuner.search(verbose=0, class_weight=get_class_weights(train, candidates.classes, recipe))
    return REPLACE if tuner.out_of_memory else DONE


def _read(folder: str) -> tuple[Any, dict[str, Any]]:
    from keras_resnet.jobs.search_folder import SearchFolder, make_candidates

    record = SearchFolder(folder).read()
    if record is None:
        raise InputError(f"A search folder must hold a search. Received: {folder}.")
    return make_candidates(record), record["request"]


def _end_with(parent: int) -> None:
    """Ends this process when the supervisor is gone, however that ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str]) -> int:
    """`PARENT ROLE ERROR_FILE ARGUMENT...`: runs a role; what goes wrong is left in the error file as JSON."""
    parent, role, error_path, *rest = arguments
    roles: dict[str, Callable[..., int]] = {
        "plan": plan,
        "chief": chief,
        "worker": lambda folder, *numbers: worker(
            folder, int(numbers[0]), int(numbers[1]), int(numbers[2]), float(numbers[3])
        ),
    }
    _end_with(int(parent))
    try:
        return roles[role](*rest)
    except InputError as error:
        problem, code = {"kind": "input", "message": str(error)}, INPUT_ERROR
    except Exception as error:
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}"
        problem, code = {"kind": "bug", "message": text, "traceback": traceback.format_exc()}, BUG
    write_beside(error_path, lambda path: path.write_text(json.dumps(problem), "utf-8"))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
