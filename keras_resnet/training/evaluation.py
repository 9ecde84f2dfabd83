"""The figures of a trained model on labelled images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_resnet.errors import InputError
from keras_resnet.probabilities import log_softmax


@dataclass(frozen=True)
class Evaluation:
    """The figures of a model on labelled images."""

    accuracy: float
    loss: float  # mean cross-entropy, in nats
    num_examples: int
    confusion: np.ndarray  # [true class, predicted class] counts

    def to_dict(self) -> dict[str, float | int]:
        """Returns accuracy, loss and number as JSON values."""
        return {"accuracy": self.accuracy, "loss": self.loss, "num_examples": self.num_examples}


def evaluate(model: keras.Model, dataset: Any, labels: np.ndarray, *, verbose: int | str = "auto") -> Evaluation:
    """Runs a model that ends in logits over a dataset in order, once.

    Args:
        model: ends in logits.
        dataset: batches of (images, labels) or images, in the order of `labels`.
        labels: the true classes.
        verbose: of `model.predict`.

    Returns:
        Accuracy, mean cross-entropy, number of images, and the confusion matrix.

    Raises:
        InputError: the dataset has more or fewer images than there are labels.
    """
    from sklearn.metrics import confusion_matrix

    logits = np.asarray(model.predict(dataset, verbose=verbose), np.float64)
    if len(logits) != len(labels):
        raise InputError(f"There must be one label per image. Received: {len(logits)} images, {len(labels)} labels.")
    predicted = logits.argmax(-1)
    return Evaluation(
        accuracy=float((predicted == labels).mean()),
        loss=float(-log_softmax(logits)[np.arange(len(labels)), labels].mean()),
        num_examples=len(labels),
        confusion=confusion_matrix(labels, predicted, labels=np.arange(logits.shape[-1])),
    )
