"""The main job: images to a trained, evaluated, saved network in a run folder."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras

from keras_resnet import data as data_module
from keras_resnet import plots, training
from keras_resnet.data.encoded import naming_undecodable
from keras_resnet.device import wrap_for_device
from keras_resnet.environment import RESULT_PACKAGES, describe_machine, describe_versions
from keras_resnet.epochs import Epoch, EpochLog
from keras_resnet.errors import InputError
from keras_resnet.files import make_slug
from keras_resnet.inputs import DataSource, InputOptions
from keras_resnet.jobs.options import RunOptions
from keras_resnet.jobs.run_folder import (
    CHECKPOINT_FILE,
    CONFUSION_FILE,
    CURVES_FILE,
    HISTORY_FILE,
    MODEL_FILE,
    Run,
    RunFolder,
    load_run,
)
from keras_resnet.jobs.run_record import Figures, NetworkRecord, RunRecord, Winner
from keras_resnet.jobs.searches.folder import load_search
from keras_resnet.jobs.searches.results import Search
from keras_resnet.jobs.train_plan import TrainingPlan, complete_recipe, log_plan, make_plan
from keras_resnet.models import build, load_weights
from keras_resnet.recipes import Recipe
from keras_resnet.specs import ResNetSpec, get_spec

log = logging.getLogger(__name__)


def train(
    data: str | os.PathLike[str] | DataSource,
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
        prepare_on: "host", or "device": training images travel as uint8 and are finished beside the network, on its
            device: arrays as they are stored, files decoded to the network's size. The saved network is the same.
        recipe: a whole `Recipe`, or a mapping of the fields that differ from the default for this data.
        verbose: of Keras' progress bars.

    Returns:
        The finished run; `run.record.test` has accuracy, loss and number of images.

    Raises:
        InputError: whatever cannot be used, before anything is written.
        SaveError: a file could not be written; the best checkpoint before it is left in the folder.
    """
    flat = {"data_dir": data_dir, "memory_limit_bytes": memory_limit_bytes, "on_error": on_error}
    read_as = {name: value for name, value in flat.items() if value is not None}
    source = DataSource.of(data, **read_as)
    options = InputOptions(image_size_pixels, normalize or "dataset", train_size, test_size, prepare_on)
    run = RunOptions(None if run_dir is None else os.fspath(run_dir), verbose=verbose)
    if search_dir is None:
        return _train(source, options, run, model, recipe)
    found = load_search(search_dir)
    if model is not None:
        raise InputError(f"A search brings its own network, so model must be left out. Received: {model!r}.")
    source, options = _take_inputs(found, source, options, (*read_as, *(["normalize"] if normalize else [])))
    return _train(source, options, run, found.best.spec, _take_recipe(found, recipe), found)


def _take_inputs(
    found: Search, source: DataSource, options: InputOptions, given: Sequence[str]
) -> tuple[DataSource, InputOptions]:
    """How a search's winner reads its images; the fields whose names are in `given` stay as the training has them."""
    request, size = found.record.request, found.record.plan.preprocessing.image_size_pixels
    if request.source.name != source.absolute().name:
        raise InputError(
            f"The winner of {found.path} is for {request.source.name}. Received: {source.name}. For other data pass its "
            "spec: train(data, model=load_search(path).best.spec)."
        )
    if options.image_size_pixels not in (None, size):
        raise InputError(
            f"The winner of {found.path} was found at {size} pixels. Received: {options.image_size_pixels}."
        )
    searched = {name: value for name, value in request.source.to_dict().items() if name not in given}
    normalize = options.normalize if "normalize" in given else request.input.normalize
    return replace(source, **searched), replace(options, image_size_pixels=size, normalize=normalize)


def _take_recipe(found: Search, given: Recipe | Mapping[str, Any] | None) -> dict[str, Any]:
    """The recipe of a search's winner, as far as the training was not given another."""
    chosen = found.best.recipe.to_dict()
    if "validation_split" not in found.record.request.recipe:
        # A search holds out more than a training, to tell networks apart.
        chosen["validation_split"] = Recipe().validation_split
    return {**chosen, **(given.to_dict() if isinstance(given, Recipe) else given or {})}


def _train(
    source: DataSource,
    options: InputOptions,
    run: RunOptions,
    model: ResNetSpec | str | None,
    recipe: Recipe | Mapping[str, Any] | None,
    found: Search | None = None,
) -> Run:
    watch = _Stopwatch()
    spec = get_spec(model) if isinstance(model, str) else model
    if spec is not None and (spec.rank != 2 or spec.block == "custom"):
        raise InputError(
            "A training run takes images and a network that its spec describes whole: rank 2 and a built-in block. "
            f"Received: {spec.name} with rank={spec.rank}, block={spec.block!r}. For others use build and model.fit."
        )
    if run.folder is not None:  # before minutes go into reading data
        RunFolder(run.folder).check_free()
    with watch("load_data"):
        images = data_module.load_data(source)
    recipe = complete_recipe(images, options, recipe)
    recipe = replace(recipe, learning_rate=recipe.peak_learning_rate)  # the record says what was used
    with watch("prepare_data"):
        plan = make_plan(source.absolute(), images, options, spec, recipe)
        del images
        batches = plan.data.make_batches(recipe, prepare_on=options.prepare_on)  # shows here what it cannot do
    folder = RunFolder(run.folder or f"runs/{plan.spec.name}_{make_slug(plan.name)}_seed{recipe.seed}")
    folder.open()
    finished = False
    try:
        log_plan(plan)
        with watch("build"):
            keras.utils.set_random_seed(recipe.seed)
            network = build(
                plan.spec, plan.input_shape, plan.data.classes, classifier_activation=None, dtype=recipe.dtype
            )
        trained = _fit(network, batches, plan, folder, watch, run.verbose)
        with watch("save"):
            training.compile_for_integer_labels(network)
            folder.write(MODEL_FILE, network.save)
        with watch("evaluate"), naming_undecodable(plan.test):
            evaluation = training.evaluate(
                network, plan.data.make_eval_dataset(plan.test, recipe), plan.test.labels, verbose=run.verbose
            )
        with watch("plot"):
            _draw(plan, trained, evaluation, folder)
        folder.write_record(_describe(plan, trained, evaluation, watch.seconds(), found))
        finished = True
    finally:
        folder.close(finished=finished)
    return load_run(folder.path)


class _RunCheckpoint:
    """A run folder as the place that keeps a training's epochs: its history, and the best epoch's weights."""

    epochs: Sequence[Epoch] = ()

    def __init__(self, folder: RunFolder, network: keras.Model) -> None:
        self._folder, self._network = folder, network

    def resume(self, model: keras.Model) -> None:
        """There is nothing to resume."""

    def save_epoch(self, model: keras.Model, log: EpochLog, *, whole: bool) -> None:
        """Writes the history, and the network's weights if the epoch is the best so far."""
        self._folder.write_csv(HISTORY_FILE, [epoch.to_row() for epoch in log.epochs])
        if log.latest_is_best:
            self._folder.write(CHECKPOINT_FILE, self._network.save_weights)

    def load_best(self, model: keras.Model) -> bool:
        """Loads these weights into the network."""
        load_weights(self._network, self._folder.path / CHECKPOINT_FILE)
        return True


def _fit(
    network: keras.Model,
    batches: training.Batches,
    plan: TrainingPlan,
    folder: RunFolder,
    watch: _Stopwatch,
    verbose: int | str,
) -> training.Trained:
    data, trained = plan.data, network
    if plan.options.prepare_on == "device":
        trained = wrap_for_device(network, data.train.image_shape or plan.input_shape, data.preprocessing)
    with watch("train"), naming_undecodable(data.train, data.validation):
        outcome = training.fit(
            trained,
            batches,
            plan.recipe,
            checkpoint=_RunCheckpoint(folder, network),
            multiply_adds=plan.multiply_adds,
            class_weight=data.get_class_weights(plan.recipe),
            verbose=verbose,
        )
    watch.move("train", "reestimate_bn", outcome.bn_seconds)
    if outcome.bn_images:
        log.info("BN statistics re-estimated on %d training images, after %d steps", outcome.bn_images, outcome.steps)
    return outcome


def _draw(plan: TrainingPlan, trained: training.Trained, evaluation: training.Evaluation, folder: RunFolder) -> None:
    title = f"{plan.spec.name} on {plan.name}"
    curves = plots.plot_curves([epoch.to_row() for epoch in trained.epochs], title=title, best_epoch=trained.best_epoch)
    folder.write(CURVES_FILE, lambda path: plots.save_figure(curves, path))
    confusion = plots.plot_confusion(
        evaluation.confusion,
        plan.data.facts.class_names,
        title=f"{title}: accuracy {evaluation.accuracy:.4f} on {evaluation.num_examples} test images",
    )
    folder.write(CONFUSION_FILE, lambda path: plots.save_figure(confusion, path))


def _describe(
    plan: TrainingPlan,
    trained: training.Trained,
    evaluation: training.Evaluation,
    seconds: dict[str, float],
    found: Search | None,
) -> RunRecord:
    data, kept = plan.data, trained.epochs[trained.best_epoch - 1]
    return RunRecord(
        created=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        interrupted=trained.interrupted,
        model=NetworkRecord(plan.spec, plan.input_shape, data.classes, plan.parameters, plan.multiply_adds),
        source=plan.source,
        input=plan.options,
        data=data.facts,
        preprocessing=data.preprocessing,
        recipe=plan.recipe,
        steps=trained.steps,
        best_epoch=trained.best_epoch,
        bn_reestimated_on_images=trained.bn_images,
        validation=None if kept.val_loss is None else Figures(kept.val_accuracy or 0.0, kept.val_loss),
        test=Figures(evaluation.accuracy, evaluation.loss, evaluation.num_examples),
        seconds=seconds,
        versions=describe_versions(*RESULT_PACKAGES),
        machine=describe_machine(),
        search=None if found is None else Winner(os.path.abspath(found.path), found.best.trial_id),
    )


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

    def move(self, phase: str, other: str, seconds: float) -> None:
        """Counts a part of one phase to another."""
        self._phases[phase] -= seconds
        self._phases[other] = seconds

    def seconds(self) -> dict[str, float]:
        """Returns the seconds of each phase, and in all."""
        phases = {**self._phases, "total": time.monotonic() - self._start}
        return {phase: round(seconds, 2) for phase, seconds in phases.items()}
