"""What a training is of: images, network, preprocessing and recipe, decided before anything is built or written."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from keras_resnet import data as data_module
from keras_resnet import seeds, training
from keras_resnet.data import ImageData, Split
from keras_resnet.data.encoded import check_decodable
from keras_resnet.errors import InputError
from keras_resnet.inputs import DataSource, InputOptions, Preprocessing
from keras_resnet.jobs.stored import DataFacts
from keras_resnet.recipes import Recipe, default_model, default_recipe
from keras_resnet.specs import ResNetSpec, check_input_shape, count_macs, count_params, final_feature_map, get_spec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """The images that a training or the trials of a search learn from, and how a recipe makes batches of them."""

    facts: DataFacts
    train: Split
    validation: Split | None
    preprocessing: Preprocessing

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.facts.class_names)

    def count_steps_per_epoch(self, recipe: Recipe) -> int:
        """Returns the number of batches in an epoch."""
        return data_module.count_batches(len(self.train), recipe.batch_size)

    def make_train_dataset(self, recipe: Recipe, *, prepare_on: str = "host", first_epoch: int = 0) -> Any:
        """Batches for training, by the recipe."""
        return data_module.make_train_dataset(
            self.train,
            self.preprocessing,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            augmentation=recipe.augmentation,
            classes=self.classes,
            sampling=recipe.sampling,
            prepare_on=prepare_on,
            first_epoch=first_epoch,
        )

    def make_eval_dataset(self, split: Split, recipe: Recipe, *, prepare_on: str = "host") -> Any:
        """Batches of every image of a split once."""
        return data_module.make_eval_dataset(
            split, self.preprocessing, batch_size=recipe.batch_size, prepare_on=prepare_on
        )

    def make_batches(self, recipe: Recipe, *, prepare_on: str = "host") -> training.Batches:
        """What `training.fit` reads."""
        held_out = self.validation
        return training.Batches(
            self.make_train_dataset(recipe, prepare_on=prepare_on),
            self.count_steps_per_epoch(recipe),
            None if held_out is None else self.make_eval_dataset(held_out, recipe, prepare_on=prepare_on),
        )

    def get_class_weights(self, recipe: Recipe) -> dict[int, float] | None:
        """`class_weight` of `model.fit` where the recipe asks for it."""
        if recipe.class_balance != "weights":
            return None
        return data_module.class_weights(self.train.labels, self.classes)


@dataclass(frozen=True)
class TrainingPlan:
    """All that is decided of a training before anything is built or written."""

    name: str  # of the data, as it was asked for
    source: DataSource
    options: InputOptions
    data: TrainingData
    test: Split
    spec: ResNetSpec
    recipe: Recipe

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the network's input."""
        return self.data.preprocessing.input_shape

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return training.count_steps(self.recipe, self.data.count_steps_per_epoch(self.recipe))

    @property
    def parameters(self) -> int:
        """Of the network, BN's statistics included."""
        return count_params(self.spec, self.input_shape, self.data.classes)

    @property
    def multiply_adds(self) -> int:
        """Of one image, forward."""
        return count_macs(self.spec, self.input_shape, self.data.classes)


def complete_recipe(
    images: ImageData, options: InputOptions, given: Recipe | Mapping[str, Any] | None, **defaults: Any
) -> Recipe:
    """Returns a whole recipe as it is; of a mapping, the default for this data with `defaults` and then the mapping."""
    if isinstance(given, Recipe):
        return given
    default = default_recipe(images.name, options.train_size or len(images.train))
    return Recipe.from_dict({**default.to_dict(), **defaults, **(given or {})})


def prepare_data(images: ImageData, options: InputOptions, recipe: Recipe) -> TrainingData:
    """Draws and divides the training images and finds the preprocessing; the test images are left alone."""
    train, validation = draw_training(images, options.train_size, recipe)
    facts = DataFacts(
        images.origin,
        images.class_names,
        images.channels,
        streamed=train.streamed,
        skipped_images=images.skipped,
        train_images=len(train),
        validation_images=0 if validation is None else len(validation),
        test_images=0,
    )
    preprocessing = data_module.compute_preprocessing(
        images, train, options.image_size_pixels, normalize=options.normalize
    )
    return TrainingData(facts, train, validation, preprocessing)


def make_plan(
    source: DataSource, images: ImageData, options: InputOptions, spec: ResNetSpec | None, recipe: Recipe
) -> TrainingPlan:
    """Prepares the data and finds the network; what cannot be used shows here."""
    data, test = prepare_data(images, options, recipe), draw_test(images, options.test_size, recipe.seed)
    data = replace(data, facts=replace(data.facts, test_images=len(test)))
    spec = spec or get_spec(default_model(data.preprocessing.image_size_pixels))
    check_input_shape(spec, data.preprocessing.input_shape)
    for part in (data.validation, test):  # before hours of training; broken training images show in an epoch
        if part is not None and source.on_error == "stop":
            check_decodable(part)
    return TrainingPlan(images.name, source, options, data, test, spec, recipe)


def draw_training(images: ImageData, train_size: int | None, recipe: Recipe) -> tuple[Split, Split | None]:
    """Returns the training and the validation images: the seed's draw of `train_size`, divided by the recipe."""
    drawn = data_module.draw_subset(images.train, train_size, [recipe.seed, seeds.TRAIN_SUBSET], what="train-size")
    if not recipe.validation_split:
        return drawn, None
    if len(drawn) < 2:
        raise InputError(
            f"A validation split needs at least 2 training images. Received: {len(drawn)}; set validation_split to 0."
        )
    held_out_seed = [recipe.seed, seeds.VALIDATION]
    rest, held_out = data_module.split_stratified(drawn.labels, recipe.validation_split, held_out_seed)
    return drawn.take(rest), drawn.take(held_out)


def draw_test(images: ImageData, test_size: int | None, seed: int) -> Split:
    """Returns the test images of a run: the whole split, or the seed's draw of `test_size`."""
    return data_module.draw_subset(images.test, test_size, [seed, seeds.TEST_SUBSET], what="test-size")


def log_plan(plan: TrainingPlan) -> None:
    """Logs what a training is about to do, and warns where the network leaves one pixel."""
    facts = plan.data.facts
    height, width, _ = plan.input_shape
    log.info(
        "%s (%s parameters) on %s: %d training, %d validation, %d test images at %dx%d, %d classes; %d steps",
        plan.spec.name,
        f"{plan.parameters:,}",
        plan.name,
        facts.train_images,
        facts.validation_images,
        facts.test_images,
        height,
        width,
        plan.data.classes,
        plan.steps,
    )
    if max(final_feature_map(plan.spec, plan.input_shape)[:2]) == 1 < max(height, width):
        log.warning(
            "%s divides each side by %d, which leaves one pixel of %dx%d: a larger image size or a CIFAR form keeps more",
            plan.spec.name,
            plan.spec.total_stride,
            height,
            width,
        )
