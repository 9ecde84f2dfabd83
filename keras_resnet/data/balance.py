"""Classes of uneven size: weights for the loss, or an order in which each class comes equally often."""

from __future__ import annotations

import numpy as np

from keras_resnet import seeds
from keras_resnet.errors import InputError


def class_weights(labels: np.ndarray, classes: int) -> dict[int, float]:
    """`images / (classes that occur * images of the class)`: for `class_weight` of `model.fit`.

    The mean weight over all images is 1, so that the learning rate keeps its meaning. Classes without images get 0.

    Args:
        labels: integers from 0 to `classes` - 1.
        classes: how many there are.
    """
    labels = np.asarray(labels)
    if not len(labels):
        raise InputError("Class weights need at least 1 label. Received: none.")
    counts = np.bincount(labels, minlength=classes)
    occurring = np.count_nonzero(counts)
    return {
        label: float(len(labels) / (occurring * count)) if count else 0.0 for label, count in enumerate(counts.tolist())
    }


def draw_balanced(labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Draws as many indices as there are images, each class equally often (to one image), in a random order.

    Of a large class other images come in the next epoch, of a small one all come again: each class is gone through in
    shuffled rounds that go on over epochs, so that no image comes a second time before all others of its class
    did. A function of (labels, seed, epoch) alone.

    Returns:
        int64 (number of images,).
    """
    number, present = len(labels), np.unique(labels)
    least, extra = divmod(number, len(present))
    chosen = []
    for place, label in enumerate(present):
        members = np.flatnonzero(labels == label)
        # Which classes get the images that are left over moves on from epoch to epoch.
        before, now = (_count_before(least, extra, place, len(present), e) for e in (epoch, epoch + 1))
        first, last = before // len(members), (now - 1) // len(members)
        if now == before:
            continue
        rounds = [
            members[np.random.default_rng([seeds.BALANCE, seed, int(label), turn]).permutation(len(members))]
            for turn in range(first, last + 1)
        ]
        chosen.append(np.concatenate(rounds)[before - first * len(members) : now - first * len(members)])
    indices = np.concatenate(chosen)
    return indices[np.random.default_rng([seeds.BALANCE, seed, epoch]).permutation(number)].astype(np.int64)


def _count_before(least: int, extra: int, place: int, classes: int, epoch: int) -> int:
    """Returns how many images of the class at `place` come in the epochs before `epoch`."""
    # In epoch e the classes at (e * extra + k) % classes, k < extra, get one image more.
    given = epoch * extra  # images handed out in turns so far, one class after the other
    return epoch * least + given // classes + (place < given % classes)
