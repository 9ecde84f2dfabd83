"""Every picture: training curves and the confusion matrix, drawn without a display."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TRAIN, _VALIDATION, _BEST = "#4477aa", "#cc6677", "#888888"
_MOST_ANNOTATED_CLASSES = 25  # above this, numbers in cells and class names on axes would overlap


def _new_figure(width: float, height: float) -> Figure:
    # A Figure of its own needs no display and no pyplot state, and is freed with its last reference.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=120)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure as PNG to `path`."""
    figure.savefig(path, format="png")


def plot_curves(records: Sequence[Mapping[str, float]], *, title: str, best_epoch: int | None = None) -> Figure:
    """Loss and accuracy by epoch, of training and validation; the epoch that was kept is marked.

    Args:
        records: one mapping per epoch with `epoch`, `loss`, `accuracy` and, with validation, `val_loss`, `val_accuracy`.
        title: above the picture.
        best_epoch: the epoch that was kept.
    """
    from matplotlib.ticker import MaxNLocator

    figure = _new_figure(9, 3.8)
    epochs = [record["epoch"] for record in records]
    marker = "o" if len(epochs) < 30 else None
    for axes, key, label in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), ("cross-entropy (nats)", "accuracy"), strict=True
    ):
        for prefix, name, color in (("", "training", _TRAIN), ("val_", "validation", _VALIDATION)):
            if all(prefix + key in record for record in records):
                axes.plot(
                    epochs, [record[prefix + key] for record in records], color=color, marker=marker, ms=4, label=name
                )
        if best_epoch is not None:
            axes.axvline(best_epoch, color=_BEST, linestyle=":", label=f"kept: epoch {best_epoch}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.suptitle(title)
    return figure


def plot_confusion(confusion: np.ndarray, class_names: Sequence[str], *, title: str) -> Figure:
    """The confusion matrix: rows are true classes, columns predicted ones, colour is the share of the row.

    Args:
        confusion: counts [true class, predicted class].
        class_names: one per row.
        title: above the picture.
    """
    classes = len(class_names)
    annotated = classes <= _MOST_ANNOTATED_CLASSES
    side = max(4.5, 0.45 * classes + 1.5) if annotated else 8.0
    figure = _new_figure(side + 0.8, side)
    axes: Any = figure.subplots()
    totals = confusion.sum(1, keepdims=True)
    share = np.divide(confusion, totals, out=np.zeros(confusion.shape), where=totals > 0)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.85)
    if annotated:
        axes.set_xticks(
            range(classes),
            class_names,
            rotation=45 if max(map(len, class_names)) > 2 else 0,
            ha="right" if max(map(len, class_names)) > 2 else "center",
        )
        axes.set_yticks(range(classes), class_names)
        for true, predicted in np.argwhere(confusion):
            axes.text(
                predicted,
                true,
                str(confusion[true, predicted]),
                ha="center",
                va="center",
                fontsize=7 if confusion.max() >= 1000 else 9,
                color="white" if share[true, predicted] > 0.5 else "black",
            )
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(title)
    return figure
