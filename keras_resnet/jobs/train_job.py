"""The main job: images to a trained, evaluated, saved network in a run folder."""

from __future__ import annotations

import contextlib
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
from keras_resnet.data import ImageData, Split
from keras_resnet.data.folders import find_undecodable
from keras_resnet.errors import InputError
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
    describe_machine,
    describe_versions,
    load_run,
)
from keras_resnet.models import build
from keras_resnet.recipes import Preprocessing, Recipe, default_model, default_recipe
from keras_resnet.specs import ResNetSpec, check_input_shape, count_macs, count_params, final_feature_map, get_spec

log = logging.getLogger(__name__)

# Streams of random numbers drawn from one seed, so that changing one draw leaves the others.
_TRAIN_SUBSET, _TEST_SUBSET, _VALIDATION = 1, 2, 3


@dataclass(frozen=True)
class _Parts:
    train: Split
    validation: Split | None
    test: Split


def train(
    data: str | os.PathLike[str],
    *,
    model: ResNetSpec | str | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    image_size_pixels: tuple[int, int] | None = None,
    train_size: int | None = None,
    test_size: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    recipe: Recipe | Mapping[str, Any] | None = None,
    verbose: int | str = "auto",
) -> Run:
    """Trains a network on a data set and leaves a run folder: model, figures, history, pictures.

    The best epoch by validation loss is restored, BN is re-estimated where training was short, the model is saved,
    and the test split is read, once. After Ctrl-C the best epoch so far is finished in the same way.

    Args:
        data: as for `load_data`.
        model: a spec or a name; by default `resnet20_cifar` for images up to 64 pixels, `resnet18` above.
        run_dir: a new or empty folder; by default `runs/{model}_{data}_seed{seed}`.
        image_size_pixels: (height, width) of the network's input; by default the images' own, 224x224 if they differ.
        train_size: number of training images drawn by the seed; by default all.
        test_size: number of test images drawn by the seed; by default all.
        data_dir: where TFDS sets are.
        recipe: a whole `Recipe`, or a mapping of the fields that differ from the default for this data.
        verbose: of Keras' progress bars.

    Returns:
        The finished run; `run.record["test"]` has accuracy, loss and number of images.

    Raises:
        InputError: whatever cannot be used, before anything is written.
        SaveError: a file could not be written; the best checkpoint before it is left in the folder.
    """
    watch = _Stopwatch()
    spec = get_spec(model) if isinstance(model, str) else model
    if run_dir is not None:  # before minutes go into reading data
        RunFolder(run_dir).check_free()
    with watch("load_data"):
        images = data_module.load_data(data, data_dir=data_dir)
    if not isinstance(recipe, Recipe):
        recipe = replace(default_recipe(images.name, len(images.train)), **(recipe or {}))
    recipe = replace(recipe, learning_rate=recipe.peak_learning_rate)  # the record says what was used
    with watch("prepare_data"):
        parts = _divide(images, recipe, train_size, test_size)
        preprocessing = data_module.compute_preprocessing(images, parts.train, image_size_pixels)
    if spec is None:
        spec = get_spec(default_model(preprocessing.image_size_pixels))
    check_input_shape(spec, preprocessing.input_shape)
    folder = RunFolder(run_dir or f"runs/{spec.name}_{_slug(images.name)}_seed{recipe.seed}")
    folder.open()
    finished = False
    try:
        run = _train_in(
            folder, str(data), images, parts, spec, preprocessing, recipe, (train_size, test_size), watch, verbose
        )
        finished = True
    finally:
        folder.close(finished=finished)
    return run


def _train_in(
    folder: RunFolder,
    data_name: str,
    images: ImageData,
    parts: _Parts,
    spec: ResNetSpec,
    preprocessing: Preprocessing,
    recipe: Recipe,
    sizes: tuple[int | None, int | None],
    watch: _Stopwatch,
    verbose: int | str,
) -> Run:
    classes = len(images.class_names)
    steps_per_epoch = data_module.count_batches(len(parts.train), recipe.batch_size)
    steps = training.count_steps(recipe, steps_per_epoch)
    _log_plan(spec, images, parts, preprocessing, recipe, steps)
    with watch("build"):
        keras.utils.set_random_seed(recipe.seed)
        network = build(spec, preprocessing.input_shape, classes, classifier_activation=None)
    train_dataset = data_module.make_train_dataset(
        parts.train,
        preprocessing,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        shift_fraction=recipe.shift_fraction,
        horizontal_flip=recipe.horizontal_flip,
    )
    validation_dataset = None
    if parts.validation is not None:
        validation_dataset = data_module.make_eval_dataset(
            parts.validation, preprocessing, batch_size=recipe.batch_size
        )
    interrupted = False
    with watch("train"), naming_undecodable(parts.train, parts.validation):
        try:
            best = training.fit(
                network,
                train_dataset,
                recipe,
                validation=validation_dataset,
                steps_per_epoch=steps_per_epoch,
                verbose=verbose,
                on_epoch=lambda records: folder.write_csv(HISTORY_FILE, records),
                on_best=lambda: folder.write(CHECKPOINT_FILE, lambda path: _save_model(network, path)),
            )
        except KeyboardInterrupt as interrupt:
            best = interrupt.best  # type: ignore[attr-defined]
            if best.best_epoch is None:
                raise
            interrupted = True
            log.warning("stopped; keeping epoch %d, the best so far (stop again to leave it at that)", best.best_epoch)
    best.restore()
    taken = int(keras.ops.convert_to_numpy(network.optimizer.iterations))
    with watch("reestimate_bn"):
        batches = training.reestimation_batches(recipe, steps)
        bn_images = training.reestimate_batchnorm(network, train_dataset, batches=batches) if batches else 0
        if bn_images:
            log.info("BN statistics re-estimated on %d training images, after %d steps", bn_images, taken)
    with watch("save"):
        # What is saved is the network alone: Keras' own loss and metric, no state of this training's optimizer.
        network.compile(
            optimizer=keras.optimizers.SGD(),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=False,
        )
        folder.write(MODEL_FILE, lambda path: _save_model(network, path))
    with watch("evaluate"), naming_undecodable(parts.test):
        test_dataset = data_module.make_eval_dataset(parts.test, preprocessing, batch_size=recipe.batch_size)
        evaluation = training.evaluate(network, test_dataset, parts.test.labels, verbose=verbose)
    with watch("plot"):
        title = f"{spec.name} on {images.name}"
        curves = plots.plot_curves(best.records, title=title, best_epoch=best.best_epoch)
        folder.write(CURVES_FILE, lambda path: plots.save_figure(curves, path))
        confusion = plots.plot_confusion(
            evaluation.confusion,
            images.class_names,
            title=f"{title}: accuracy {evaluation.accuracy:.4f} on {evaluation.num_examples} test images",
        )
        folder.write(CONFUSION_FILE, lambda path: plots.save_figure(confusion, path))
    kept = best.records[(best.best_epoch or 1) - 1]
    record = {
        "format": 1,
        "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "interrupted": interrupted,
        "model": {
            "name": spec.name,
            "spec": spec.to_dict(),
            "input_shape": list(preprocessing.input_shape),
            "classes": classes,
            "parameters": count_params(spec, preprocessing.input_shape, classes),
            "multiply_adds": count_macs(spec, preprocessing.input_shape, classes),
        },
        "data": {
            **describe_data(images, data_name),
            "train_size": sizes[0],
            "test_size": sizes[1],
            "train_images": len(parts.train),
            "validation_images": len(parts.validation) if parts.validation is not None else 0,
            "test_images": len(parts.test),
        },
        "preprocessing": preprocessing.to_dict(),
        "recipe": recipe.to_dict(),
        "seed": recipe.seed,
        "steps": taken,
        "best_epoch": best.best_epoch,
        "bn_reestimated_on_images": bn_images,
        "validation": {"accuracy": kept["val_accuracy"], "loss": kept["val_loss"]} if "val_loss" in kept else None,
        "test": evaluation.to_dict(),
        "seconds": watch.seconds(),
        "versions": describe_versions(),
        "machine": describe_machine(),
    }
    folder.write_json(RUN_FILE, record)
    (folder.path / CHECKPOINT_FILE).unlink(missing_ok=True)
    return load_run(folder.path)


def _divide(images: ImageData, recipe: Recipe, train_size: int | None, test_size: int | None) -> _Parts:
    everything = data_module.draw_subset(images.train, train_size, [recipe.seed, _TRAIN_SUBSET], what="train-size")
    test = draw_test(images, test_size, recipe.seed)
    if not recipe.validation_split:
        return _Parts(everything, None, test)
    if len(everything) < 2:
        raise InputError(
            f"A validation split needs at least 2 training images. Received: {len(everything)}; set validation_split to 0."
        )
    rest, drawn = data_module.split_stratified(everything.labels, recipe.validation_split, [recipe.seed, _VALIDATION])
    return _Parts(everything.take(rest), everything.take(drawn), test)


def draw_test(images: ImageData, test_size: int | None, seed: int) -> Split:
    """The test images of a run: the whole split, or the seed's draw of `test_size`."""
    return data_module.draw_subset(images.test, test_size, [seed, _TEST_SUBSET], what="test-size")


@contextlib.contextmanager
def naming_undecodable(*splits: Split | None) -> Iterator[None]:
    """Turns TensorFlow's error about an image that cannot be decoded into one that names the file."""
    import tensorflow as tf

    try:
        yield
    except (tf.errors.InvalidArgumentError, tf.errors.UnknownError, tf.errors.NotFoundError) as error:
        for split in splits:
            if split is None or not split.encoded:
                continue
            found = find_undecodable(split.images)
            if found:
                raise InputError(f"{found[0]} could not be decoded as a PNG or JPEG image: {found[1]}") from error
        raise


def _save_model(network: keras.Model, path: Any) -> None:
    # Keras insists on its suffix.
    network.save(path)


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in os.path.basename(os.path.normpath(name)))


def _log_plan(
    spec: ResNetSpec, images: ImageData, parts: _Parts, preprocessing: Preprocessing, recipe: Recipe, steps: int
) -> None:
    height, width = preprocessing.image_size_pixels
    log.info(
        "%s (%s parameters) on %s: %d training, %d validation, %d test images at %dx%d, %d classes; %d steps of %d",
        spec.name,
        f"{count_params(spec, preprocessing.input_shape, len(images.class_names)):,}",
        images.name,
        len(parts.train),
        len(parts.validation) if parts.validation is not None else 0,
        len(parts.test),
        height,
        width,
        len(images.class_names),
        steps,
        min(recipe.batch_size, len(parts.train)),
    )
    last = final_feature_map(spec, preprocessing.input_shape)
    if max(last[:2]) == 1 and max(height, width) > 1:
        log.warning(
            "%s divides each side by %d, which leaves one pixel of %dx%d: a larger --image-size or a CIFAR form keeps more",
            spec.name,
            spec.total_stride,
            height,
            width,
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

    def seconds(self) -> dict[str, float]:
        phases = {**self._phases, "total": time.monotonic() - self._start}
        return {phase: round(seconds, 2) for phase, seconds in phases.items()}
