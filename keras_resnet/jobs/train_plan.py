"""What a training is of: images, network, preprocessing and recipe, decided before anything is built or written."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

from keras_resnet import data as data_module
from keras_resnet import training
from keras_resnet.data import ImageData, Split
from keras_resnet.data.encoded import check_decodable
from keras_resnet.errors import InputError
from keras_resnet.inputs import Preprocessing
from keras_resnet.recipes import Recipe, default_model
from keras_resnet.specs import ResNetSpec, check_input_shape, count_macs, count_params, final_feature_map, get_spec

log = logging.getLogger(__name__)

# Streams of random numbers drawn from one seed, so that changing one draw leaves the others.
_TRAIN_SUBSET, _TEST_SUBSET, _VALIDATION = 1, 2, 3


@dataclass(frozen=True)
class DataOptions:
    """How the data is read, as it was asked for; stored in the record."""

    data_dir: str | None
    memory_limit_bytes: int | None
    on_error: str
    normalize: str
    prepare_on: str


@dataclass(frozen=True)
class Plan:
    """All that is decided before anything is built or written."""

    data_name: str
    images: ImageData
    train_size: int | None
    test_size: int | None
    train: Split
    validation: Split | None
    test: Split
    spec: ResNetSpec
    preprocessing: Preprocessing
    recipe: Recipe
    options: DataOptions

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.images.class_names)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return data_module.count_batches(len(self.train), self.recipe.batch_size)

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return training.count_steps(self.recipe, self.steps_per_epoch)

    @property
    def multiply_adds(self) -> int:
        """Of one image, forward."""
        return count_macs(self.spec, self.preprocessing.input_shape, self.classes)

    @property
    def validation_images(self) -> int:
        """How many there are, 0 without a validation."""
        return len(self.validation) if self.validation is not None else 0

    def make_eval_dataset(self, split: Split, prepare_on: str = "host") -> Any:
        """Batches of every image once."""
        return data_module.make_eval_dataset(
            split, self.preprocessing, batch_size=self.recipe.batch_size, prepare_on=prepare_on
        )

    def make_train_dataset(self) -> Any:
        """Batches for training, by the recipe."""
        return data_module.make_train_dataset(
            self.train,
            self.preprocessing,
            batch_size=self.recipe.batch_size,
            seed=self.recipe.seed,
            augmentation=self.recipe.augmentation,
            classes=self.classes,
            sampling=self.recipe.sampling,
            prepare_on=self.options.prepare_on,
        )


def make_plan(
    data_name: str,
    options: DataOptions,
    images: ImageData,
    spec: ResNetSpec | None,
    image_size_pixels: tuple[int, int] | None,
    train_size: int | None,
    test_size: int | None,
    recipe: Recipe,
) -> Plan:
    """Draws the images, finds the preprocessing and the network; what cannot be used shows here."""
    train_split, validation = draw_training(images, train_size, recipe)
    test = draw_test(images, test_size, recipe.seed)
    preprocessing = data_module.compute_preprocessing(
        images, train_split, image_size_pixels, normalize=options.normalize
    )
    spec = spec or get_spec(default_model(preprocessing.image_size_pixels))
    check_input_shape(spec, preprocessing.input_shape)
    for part in (validation, test):  # before hours of training; broken training images show in the first epoch
        if part is not None and options.on_error == "stop":
            check_decodable(part)
    images = replace(images, train=train_split, test=test)  # images that were not drawn need no memory
    return Plan(
        *(data_name, images, train_size, test_size, train_split, validation, test),
        *(spec, preprocessing, recipe, options),
    )


def draw_training(images: ImageData, train_size: int | None, recipe: Recipe) -> tuple[Split, Split | None]:
    """The training and the validation images: the seed's draw of `train_size`, divided by the recipe."""
    drawn = data_module.draw_subset(images.train, train_size, [recipe.seed, _TRAIN_SUBSET], what="train-size")
    if not recipe.validation_split:
        return drawn, None
    if len(drawn) < 2:
        raise InputError(
            f"A validation split needs at least 2 training images. Received: {len(drawn)}; set validation_split to 0."
        )
    rest, held_out = data_module.split_stratified(drawn.labels, recipe.validation_split, [recipe.seed, _VALIDATION])
    return drawn.take(rest), drawn.take(held_out)


def get_class_weights(train: Split, classes: int, recipe: Recipe) -> dict[int, float] | None:
    """`class_weight` of `model.fit` where the recipe asks for it."""
    return data_module.class_weights(train.labels, classes) if recipe.class_balance == "weights" else None


def draw_test(images: ImageData, test_size: int | None, seed: int) -> Split:
    """The test images of a run: the whole split, or the seed's draw of `test_size`."""
    return data_module.draw_subset(images.test, test_size, [seed, _TEST_SUBSET], what="test-size")


def log_plan(plan: Plan) -> None:
    """Logs what a training is about to do, and warns where the network leaves one pixel."""
    height, width = plan.preprocessing.image_size_pixels
    log.info(
        "%s (%s parameters) on %s: %d training, %d validation, %d test images at %dx%d, %d classes; %d steps",
        plan.spec.name,
        f"{count_params(plan.spec, plan.preprocessing.input_shape, plan.classes):,}",
        plan.images.name,
        len(plan.train),
        plan.validation_images,
        len(plan.test),
        height,
        width,
        plan.classes,
        plan.steps,
    )
    if max(final_feature_map(plan.spec, plan.preprocessing.input_shape)[:2]) == 1 < max(height, width):
        log.warning(
            "%s divides each side by %d, which leaves one pixel of %dx%d: a larger image size or a CIFAR form keeps more",
            plan.spec.name,
            plan.spec.total_stride,
            height,
            width,
        )
