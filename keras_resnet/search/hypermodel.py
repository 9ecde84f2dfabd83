"""`HyperResNet`: the space as a KerasTuner HyperModel, for any KerasTuner tuner."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import keras
import keras_tuner
import numpy as np
from keras_tuner.errors import FailedTrialError

from keras_resnet import training
from keras_resnet.errors import InputError
from keras_resnet.models import build
from keras_resnet.recipes import Recipe
from keras_resnet.search.candidates import Budget, Candidates
from keras_resnet.search.space import Space
from keras_resnet.specs import ResNetSpec, count_macs

BUILT = "built"  # hyperparameter that names the network where values were moved into the budget

log = logging.getLogger(__name__)


class HyperResNet(keras_tuner.HyperModel):
    """`hp -> (spec, recipe) -> compiled network`: blocks, depths, widths, groups, stem, learning rate, weight decay.

    Usable by itself with any KerasTuner tuner; `make_tuner` has tuners that never propose a network over the budget.
    Under others `build` moves such values to the nearest ones inside (`Candidates.move`), logs it and records the
    network's name as the value of `built`; `sample` gives the same network for the same values ever after.

    Args:
        input_shape: (height, width, channels) of the network's input, or (steps, channels) for sequences.
        classes: outputs of the head; the network ends in logits.
        space: what may be chosen, a `Space`; by default `Space()`.
        max_params: most parameters, BN's statistics included as Keras counts.
        max_macs: most multiply-adds of one forward pass of one input.
        max_memory: most bytes of a training step, by estimate.
        recipe: everything of the training that is not searched; a `Recipe`.
        make_data: called with a recipe (and with `first_epoch`, if it takes that) where `tuner.search` is given no
            data; returns (training batches of one epoch per iteration, validation batches). With it the strength of
            the augmentation, `shift_fraction`, is searched too.
        name: of the hypermodel.
        tunable: as for any HyperModel.

    Raises:
        InputError: a shape without sizes, an empty space, a budget that no network of the space meets.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        space: Space | None = None,
        max_params: int | None = None,
        max_macs: int | None = None,
        max_memory: int | None = None,
        recipe: Recipe | None = None,
        make_data: Callable[..., tuple[Any, Any]] | None = None,
        name: str | None = None,
        tunable: bool = True,
    ) -> None:
        super().__init__(name=name, tunable=tunable)
        self.make_data = make_data
        self.candidates = Candidates(
            input_shape,
            classes,
            space=space,
            recipe=recipe,
            budget=Budget(max_params, max_macs, max_memory),
            augment=make_data is not None,
        )

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Declares every hyperparameter; KerasTuner calls this once."""
        self.candidates.declare(hp)

    def sample(self, hp: keras_tuner.HyperParameters) -> tuple[ResNetSpec, Recipe]:
        """Returns the spec and the recipe that `hp` stands for, inside the budget; nothing is built."""
        self.candidates.declare(hp)
        return self.candidates.make(self.candidates.move(hp.values))

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Builds the network of `hp`, compiled at a constant learning rate; `fit` sets the recipe's schedule."""
        spec, recipe = self.sample(hp)
        hp.values.pop(BUILT, None)  # grid search copies the values of one trial to the next
        if not self.candidates.admits(hp.values):
            hp.values[BUILT] = spec.name
            log.info("moved into the budget: %s", spec.name)
        model = build(
            spec,
            self.candidates.input_shape,
            self.candidates.classes,
            classifier_activation=None,
            name=spec.name,
            dtype=recipe.dtype,
        )
        training.compile_model(model, recipe)
        # A tuner's checkpoint has the optimizer's variables, and loads without a warning where they are made already.
        model.optimizer.build(model.trainable_variables)
        return model

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: keras.Model,
        *args: Any,
        validation_data: Any = None,
        validation_split: float = 0.0,
        epochs: int | None = None,
        initial_epoch: int = 0,
        batch_size: int | None = None,
        steps_per_epoch: int | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        checkpoint: training.Checkpoint | None = None,
        **fit_options: Any,
    ) -> keras.callbacks.History:
        """Trains by the recipe of `hp`: its schedule, over the epochs from `initial_epoch` to `epochs`.

        Args:
            hp: of the network.
            model: from `build`.
            args: as for `model.fit`: a dataset of batches, or arrays of images and labels; without any, `make_data`.
            validation_data: a dataset of batches or (images, labels).
            validation_split: the last part of the arrays, instead of `validation_data`.
            epochs: by default the recipe's.
            initial_epoch: epochs that an earlier training has done (Hyperband's rungs); the schedule starts anew.
            batch_size: of arrays; by default the recipe's.
            steps_per_epoch: of a dataset that does not know how many batches it has.
            callbacks: as for `model.fit`.
            checkpoint: as for `training.fit`.
            fit_options: further arguments of `model.fit`.

        Raises:
            InputError: no data, or a dataset of unknown length.
            FailedTrialError: no epoch ended with a finite loss.
            KeyboardInterrupt: Ctrl-C, after the current step.
        """
        spec, recipe = self.sample(hp)
        recipe = replace(recipe, epochs=epochs or recipe.epochs, batch_size=batch_size or recipe.batch_size)
        train, bn_data = fit_options.pop("x", None), None
        labels = fit_options.pop("y", None)
        if args:
            train, labels = args[0], (args[1] if len(args) > 1 else labels)
        if train is None and self.make_data is None:
            raise InputError(
                "A HyperResNet trains on what tuner.search(...) is given, or on make_data(recipe). Received: neither."
            )
        if train is None:
            earlier = () if checkpoint is None else checkpoint.epochs
            start = earlier[-1].number if earlier else initial_epoch
            train, made_validation = self._make_data(recipe, start)
            bn_data = self._make_data(recipe, start)[0]  # of its own: what it reads must not move `train`'s epochs
            validation_data = made_validation if validation_data is None else validation_data
        elif labels is not None:
            train, labels = np.asarray(train), np.asarray(labels)
            if validation_split:
                cut = len(train) - int(len(train) * validation_split)
                validation_data = (train[cut:], labels[cut:])
                train, labels = train[:cut], labels[:cut]
            train = _ArrayBatches(train, labels, recipe.batch_size, recipe.seed)
        if isinstance(validation_data, tuple):
            fit_options.setdefault("validation_batch_size", recipe.batch_size)
        try:
            trained = training.fit(
                model,
                training.Batches(train, steps_per_epoch or _count_batches(train), validation_data, bn_data),
                recipe,
                checkpoint=checkpoint,
                first_epoch=initial_epoch,
                multiply_adds=count_macs(spec, self.candidates.input_shape, self.candidates.classes),
                # A network that has trained before, such as the one that a trial of Hyperband goes on from, gets an
                # optimizer without a memory, as the schedule that begins anew expects.
                compiled=not int(keras.ops.convert_to_numpy(model.optimizer.iterations)),
                callbacks=callbacks,
                **fit_options,
            )
        except training.Diverged as error:
            raise FailedTrialError("no epoch ended with a finite loss") from error
        if trained.interrupted:
            raise KeyboardInterrupt
        return model.history

    def _make_data(self, recipe: Recipe, first_epoch: int) -> tuple[Any, Any]:
        assert self.make_data is not None
        parameters = inspect.signature(self.make_data).parameters
        if "first_epoch" in parameters:
            return self.make_data(recipe, first_epoch=first_epoch)
        return self.make_data(recipe)


class _ArrayBatches(keras.utils.PyDataset):
    """Batches of arrays, each epoch in an order of its own."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, batch_size: int, seed: int) -> None:
        super().__init__()
        if len(images) != len(labels) or not len(images):
            raise InputError(
                f"There must be one label per image, at least one. Received: {len(images)} images, {len(labels)} labels."
            )
        self._images, self._labels, self._batch_size = images, labels, batch_size
        self._random = np.random.default_rng(seed)
        self._order = self._random.permutation(len(images))

    def __len__(self) -> int:
        return math.ceil(len(self._images) / self._batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        return self._images[chosen], self._labels[chosen]

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self[index] for index in range(len(self)))

    def on_epoch_end(self) -> None:
        """Draws the order of the next epoch."""
        self._order = self._random.permutation(len(self._images))


def _count_batches(dataset: Any) -> int:
    try:
        return len(dataset)
    except TypeError:  # a tf.data.Dataset that does not know
        raise InputError(
            "The schedule needs the number of batches of an epoch: give tuner.search(...) steps_per_epoch, or a "
            f"dataset with a length. Received: {dataset!r}."
        ) from None
