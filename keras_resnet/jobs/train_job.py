"""The main job: images to a trained, evaluated, saved network in a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras

from keras_resnet import data as data_module
from keras_resnet import plots, training
from keras_resnet.callbacks import BestEpoch
from keras_resnet.data.encoded import naming_undecodable
from keras_resnet.device import wrap_for_device
from keras_resnet.environment import RESULT_PACKAGES, describe_machine, describe_versions
from keras_resnet.errors import InputError
from keras_resnet.files import make_slug
from keras_resnet.inputs import DataSource
from keras_resnet.jobs.run_folder import (
    CHECKPOINT_FILE,
    CONFUSION_FILE,
    CURVES_FILE,
    HISTORY_FILE,
    MODEL_FILE,
    RUN_FILE,
    Run,
    RunFolder,
    describe_data,
    load_run,
)
from keras_resnet.jobs.searches.folder import load_search
from keras_resnet.jobs.searches.results import Search
from keras_resnet.jobs.train_plan import DataOptions, Plan, get_class_weights, log_plan, make_plan
from keras_resnet.models import build, load_weights
from keras_resnet.recipes import Recipe, default_recipe
from keras_resnet.specs import ResNetSpec, count_params, get_spec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Outcome:
    """What a training came to: the best epoch's weights are in the network, BN is as it will be used."""

    records: list[dict[str, float]]
    best_epoch: int
    steps: int
    bn_images: int
    interrupted: bool


def train(
    data: str | os.PathLike[str],
    *,
    model: ResNetSpec | str | None = None,
    search_dir: str | os.PathLike[str] | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    image_size_pixels: tuple[int, int] | None = None,
    train_size: int | None = None,
    test_size: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    memory_limit_bytes: int | None = None,
    on_error: str | None = None,
    normalize: str | None = None,
    prepare_on: str = "host",
    recipe: Recipe | Mapping[str, Any] | None = None,
    verbose: int | str = "auto",
) -> Run:
    """Trains a network on a data set and leaves a run folder: model, figures, history, pictures.

    The best epoch by validation loss is restored, BN is re-estimated where training was short, the model is saved,
    and the test split is read, once. Ctrl-C ends the training after the step; the rest is done as ever.

    Args:
        data: as for `load_data`.
        model: a spec or a name; by default `resnet20_cifar` for images up to 64 pixels, `resnet18` above.
        search_dir: a search, whose winner is trained instead, by its recipe, on data read as the search did; what is
            given here comes first.
        run_dir: a new or empty folder; by default `runs/{model}_{data}_seed{seed}`.
        image_size_pixels: (height, width) of the network's input; by default the images' own, 224x224 if they differ.
        train_size: number of training images drawn by the seed; by default all.
        test_size: number of test images drawn by the seed; by default all.
        data_dir: where TFDS sets are.
        memory_limit_bytes: of the images, as for `load_data`.
        on_error: "stop" (the default) or "skip" what cannot be decoded, as for `load_data`.
        normalize: mean and std, as for `compute_preprocessing`; by default "dataset".
        prepare_on: "host", or "device": training images travel as uint8 and are finished beside the network, on its device:
            arrays as they are stored, files decoded to the network's size. The saved network is the same.
        recipe: a whole `Recipe`, or a mapping of the fields that differ from the default for this data.
        verbose: of Keras' progress bars.

    Returns:
        The finished run; `run.record["test"]` has accuracy, loss and number of images.

    Raises:
        InputError: whatever cannot be used, before anything is written.
        SaveError: a file could not be written; the best checkpoint before it is left in the folder.
    """
    watch = _Stopwatch()
    found = load_search(search_dir) if search_dir is not None else None
    if found is not None:
        model, image_size_pixels, recipe = _take_winner(found, data, model, image_size_pixels, recipe)
        request = found.record.request
        data_dir = data_dir if data_dir is not None else request.source.data_dir
        memory_limit_bytes = memory_limit_bytes if memory_limit_bytes is not None else request.source.memory_limit_bytes
        on_error, normalize = on_error or request.source.on_error, normalize or request.input.normalize
    on_error, normalize = on_error or "stop", normalize or "dataset"
    spec = get_spec(model) if isinstance(model, str) else model
    if spec is not None and (spec.rank != 2 or spec.block == "custom"):
        raise InputError(
            "A training run takes images and a network that its spec describes whole: rank 2 and a built-in block. "
            f"Received: {spec.name} with rank={spec.rank}, block={spec.block!r}. For others use build and model.fit."
        )
    if run_dir is not None:  # before minutes go into reading data
        RunFolder(run_dir).check_free()
    with watch("load_data"):
        images = data_module.load_data(
            data, data_dir=data_dir, memory_limit_bytes=memory_limit_bytes, on_error=on_error
        )
    if not isinstance(recipe, Recipe):
        default = default_recipe(images.name, train_size or len(images.train))
        recipe = Recipe.from_dict({**default.to_dict(), **(recipe or {})})
    recipe = replace(recipe, learning_rate=recipe.peak_learning_rate)  # the record says what was used
    with watch("prepare_data"):
        where = os.path.abspath(data_dir) if data_dir is not None else None
        options = DataOptions(where, memory_limit_bytes, on_error, normalize, prepare_on)
        plan = make_plan(os.fspath(data), options, images, spec, image_size_pixels, train_size, test_size, recipe)
        del images
        batches = plan.make_train_dataset()  # what it cannot do shows before anything is written
    folder = RunFolder(run_dir or f"runs/{plan.spec.name}_{make_slug(plan.images.name)}_seed{recipe.seed}")
    folder.open()
    finished = False
    try:
        log_plan(plan)
        with watch("build"):
            keras.utils.set_random_seed(recipe.seed)
            network = build(
                plan.spec,
                plan.preprocessing.input_shape,
                plan.classes,
                classifier_activation=None,
                dtype=recipe.dtype,
            )
        outcome = _fit(network, batches, plan, folder, watch, verbose)
        with watch("save"):
            _save_network(network, folder)
        with watch("evaluate"), naming_undecodable(plan.test):
            evaluation = training.evaluate(
                network, plan.make_eval_dataset(plan.test), plan.test.labels, verbose=verbose
            )
        with watch("plot"):
            _draw(plan, outcome, evaluation, folder)
        record = _describe_run(plan, outcome, evaluation, watch)
        if found is not None:
            record["search"] = {"path": os.path.abspath(found.path), "trial": found.best.trial_id}
        folder.write_json(RUN_FILE, record)
        finished = True
    finally:
        folder.close(finished=finished)
    return load_run(folder.path)


def _take_winner(
    found: Search,
    data: str | os.PathLike[str],
    model: ResNetSpec | str | None,
    image_size_pixels: tuple[int, int] | None,
    recipe: Recipe | Mapping[str, Any] | None,
) -> tuple[ResNetSpec, tuple[int, int], dict[str, Any]]:
    """The network, image size and recipe of a search's winner, for a training of its own."""
    if model is not None:
        raise InputError(f"A search brings its own network, so model must be left out. Received: {model!r}.")
    searched, name = found.record.request.source.name, os.fspath(data)
    if searched != DataSource(name).absolute().name:
        raise InputError(
            f"The winner of {found.path} is for {searched}. Received: {name}. For other data pass its spec: "
            "train(data, model=load_search(path).best.spec)."
        )
    preprocessing = found.record.plan.preprocessing
    if image_size_pixels not in (None, preprocessing.image_size_pixels):
        raise InputError(
            f"The winner of {found.path} was found at {preprocessing.image_size_pixels} pixels. "
            f"Received: {image_size_pixels}."
        )
    best, asked = found.best, found.record.request.recipe
    chosen = best.recipe.to_dict()
    if "validation_split" not in asked:
        # A search holds out more than a training, to tell networks apart.
        chosen["validation_split"] = Recipe().validation_split
    given = recipe.to_dict() if isinstance(recipe, Recipe) else dict(recipe or {})
    return best.spec, preprocessing.image_size_pixels, {**chosen, **given}


def _fit(
    network: keras.Model, batches: Any, plan: Plan, folder: RunFolder, watch: _Stopwatch, verbose: int | str
) -> _Outcome:
    prepare_on, trained = plan.options.prepare_on, network
    if prepare_on == "device":
        shape = plan.preprocessing.input_shape if plan.train.encoded else plan.train.images.shape[1:]
        trained = wrap_for_device(network, shape, plan.preprocessing)
    best = BestEpoch(
        on_epoch=lambda records: folder.write_csv(HISTORY_FILE, records),
        on_best=lambda: folder.write(CHECKPOINT_FILE, network.save_weights),
        load_best=lambda: load_weights(network, folder.path / CHECKPOINT_FILE),
    )
    with watch("train"), naming_undecodable(plan.train, plan.validation):
        training.fit(
            trained,
            batches,
            plan.recipe,
            validation=plan.make_eval_dataset(plan.validation, prepare_on) if plan.validation is not None else None,
            steps_per_epoch=plan.steps_per_epoch,
            verbose=verbose,
            best=best,
            multiply_adds=plan.multiply_adds,
            class_weight=get_class_weights(plan.train, plan.classes, plan.recipe),
        )
    best_epoch = best.restore()
    with watch("reestimate_bn"):
        bn_images = best.reestimate()
        if bn_images:
            log.info("BN statistics re-estimated on %d training images, after %d steps", bn_images, best.steps_taken)
    return _Outcome(best.records, best_epoch, best.steps_taken, bn_images, best.interrupted)


def _save_network(network: keras.Model, folder: RunFolder) -> None:
    training.compile_for_integer_labels(network)
    folder.write(MODEL_FILE, network.save)


def _draw(plan: Plan, outcome: _Outcome, evaluation: training.Evaluation, folder: RunFolder) -> None:
    title = f"{plan.spec.name} on {plan.images.name}"
    curves = plots.plot_curves(outcome.records, title=title, best_epoch=outcome.best_epoch)
    folder.write(CURVES_FILE, lambda path: plots.save_figure(curves, path))
    confusion = plots.plot_confusion(
        evaluation.confusion,
        plan.images.class_names,
        title=f"{title}: accuracy {evaluation.accuracy:.4f} on {evaluation.num_examples} test images",
    )
    folder.write(CONFUSION_FILE, lambda path: plots.save_figure(confusion, path))


def _describe_run(plan: Plan, outcome: _Outcome, evaluation: training.Evaluation, watch: _Stopwatch) -> dict[str, Any]:
    shape, kept = plan.preprocessing.input_shape, outcome.records[outcome.best_epoch - 1]
    return {
        "format": 1,
        "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "interrupted": outcome.interrupted,
        "model": {
            "name": plan.spec.name,
            "spec": plan.spec.to_dict(),
            "input_shape": list(shape),
            "classes": plan.classes,
            "parameters": count_params(plan.spec, shape, plan.classes),
            "multiply_adds": plan.multiply_adds,
        },
        "data": {
            **describe_data(plan.images, plan.data_name),
            **dataclasses.asdict(plan.options),
            "streamed": plan.train.stream is not None,
            "skipped_images": list(plan.images.skipped),
            "train_size": plan.train_size,
            "test_size": plan.test_size,
            "train_images": len(plan.train),
            "validation_images": plan.validation_images,
            "test_images": len(plan.test),
        },
        "preprocessing": plan.preprocessing.to_dict(),
        "recipe": plan.recipe.to_dict(),
        "seed": plan.recipe.seed,
        "steps": outcome.steps,
        "best_epoch": outcome.best_epoch,
        "bn_reestimated_on_images": outcome.bn_images,
        "validation": {"accuracy": kept["val_accuracy"], "loss": kept["val_loss"]} if "val_loss" in kept else None,
        "test": evaluation.to_dict(),
        "seconds": watch.seconds(),
        "versions": describe_versions(*RESULT_PACKAGES),
        "machine": describe_machine().to_dict(),
    }


class _Stopwatch:
    """Seconds by phase, and in all."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._phases: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self._phases[phase] = time.monotonic() - start

    def seconds(self) -> dict[str, float]:
        phases = {**self._phases, "total": time.monotonic() - self._start}
        return {phase: round(seconds, 2) for phase, seconds in phases.items()}
