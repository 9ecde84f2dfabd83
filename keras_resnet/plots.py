"""Every picture: curves, the confusion matrix, a network by stages, a contact sheet; drawn without a display."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TRAIN, _VALIDATION, _BEST = "#4477aa", "#cc6677", "#888888"
_CONTACT_PIXELS = 192  # at least, of the longer side of an image on a contact sheet, where whole pixels fit
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


def plot_contact_sheet(
    columns: Sequence[tuple[str, Sequence[tuple[np.ndarray, str] | None]]],
    row_names: Sequence[str],
    *,
    title: str,
    subtitle: str = "",
) -> Figure:
    """Images in rows and columns, as they are: each pixel is a square, no value is stretched.

    Args:
        columns: of each its heading, and for each row (image, caption), or None for no image. Images are uint8
            (height, width, channels), all of one shape; of other than 1 or 3 channels their mean is shown.
        row_names: to the left of the rows.
        title: above the picture.
        subtitle: below the title, smaller.
    """
    first = next(cell[0] for _, cells in columns for cell in cells if cell is not None)
    zoom = max(_CONTACT_PIXELS // max(first.shape[:2]), 1)
    height, width = first.shape[0] * zoom, first.shape[1] * zoom
    captioned = any(cell is not None and cell[1] for _, cells in columns for cell in cells)
    side = max(height, width)
    down, across = height + side * (0.32 if captioned else 0.07), width + side * 0.07
    inches = 1.05 / side
    left = 0.09 * max(map(len, row_names)) / inches + 0.25 * side
    lines = textwrap.wrap(subtitle, int(13 * across * len(columns) * inches))
    margin = 0.75 + 0.16 * len(lines)
    total_width = (left + across * len(columns)) * inches + 0.1
    total_height = down * len(row_names) * inches + margin
    figure = _new_figure(total_width, total_height)
    figure.set_layout_engine("none")
    bottom = 1 - margin / total_height
    axes: Any = figure.add_axes((0.0, 0.0, 1.0, bottom))
    axes.set_xlim(-left, total_width / inches - left)
    axes.set_ylim(down * len(row_names), 0)
    axes.axis("off")
    for column, (heading, cells) in enumerate(columns):
        x = column * across
        axes.text(x + width / 2, -0.05 * side, heading, ha="center", va="bottom", fontsize=8)
        for row, cell in enumerate(cells):
            if cell is None:
                continue
            image, caption = cell
            y = row * down
            shown = image if image.shape[-1] == 3 else image.mean(-1)
            axes.imshow(
                shown.repeat(zoom, 0).repeat(zoom, 1),
                extent=(x, x + width, y + height, y),
                aspect="auto",
                **({} if shown.ndim == 3 else {"cmap": "gray", "vmin": 0, "vmax": 255}),
            )
            axes.text(x + width / 2, y + height + 0.02 * side, caption, ha="center", va="top", fontsize=6)
    for row, name in enumerate(row_names):
        axes.text(-0.08 * side, row * down + height / 2, name, ha="right", va="center", fontsize=9)
    figure.text(0.5, 1 - 0.12 / total_height, title, ha="center", va="top", fontsize=11)
    figure.text(0.5, 1 - 0.36 / total_height, "\n".join(lines), ha="center", va="top", fontsize=8, color="#555555")
    return figure


def plot_pareto(trials: Sequence[Mapping[str, Any]], *, title: str) -> Figure:
    """Validation accuracy against parameters and against multiply-adds; a line joins what nothing smaller reaches.

    Args:
        trials: the best first: each with `trial`, `network`, `parameters`, `multiply_adds`, `epochs`, `val_accuracy`.
        title: above the picture.
    """
    from matplotlib.ticker import MaxNLocator

    figure = _new_figure(11, 4.8)
    accuracies = np.array([trial["val_accuracy"] for trial in trials], float)
    epochs = np.array([trial["epochs"] for trial in trials], float)
    for axes, key, label in zip(
        figure.subplots(1, 2, sharey=True),
        ("parameters", "multiply_adds"),
        ("parameters", "multiply-adds"),
        strict=True,
    ):
        sizes = np.array([trial[key] for trial in trials], float)
        front, best = [], -np.inf
        for index in np.lexsort((-accuracies, sizes)):
            if accuracies[index] > best:
                front.append(index)
                best = accuracies[index]
        axes.plot(sizes[front], accuracies[front], color=_VALIDATION, drawstyle="steps-post", label="Pareto front")
        shades = axes.scatter(sizes, accuracies, c=epochs, cmap="Blues", vmin=0, edgecolors=_TRAIN, s=40, zorder=3)
        axes.scatter(sizes[:1], accuracies[:1], s=170, facecolors="none", edgecolors=_VALIDATION, lw=2, label="winner")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: _short(value))
        axes.xaxis.set_minor_formatter(lambda value, _: _short(value) if f"{value:e}"[0] in "25" else "")
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("validation accuracy")
    figure.axes[0].legend(frameon=False, loc="lower right")
    figure.colorbar(shades, ax=figure.axes, label="epochs", ticks=MaxNLocator(integer=True))
    figure.suptitle(f"{title}\nwinner: {trials[0]['network']}, {trials[0]['val_accuracy']:.4f}", fontsize=11)
    return figure


def plot_network(sections: Sequence[Any], input_shape: Sequence[int], *, title: str, subtitle: str = "") -> Figure:
    """A network from left to right: a slab per block, as high as its feature map; below, where weights and work are.

    Args:
        sections: of `specs.summarize`: each with name, text, blocks, output_shape, parameters, multiply_adds.
        input_shape: (height, width, channels) or (steps, channels).
        title: above the picture.
        subtitle: below the title, smaller.
    """
    width = 2.1 * (len(sections) + 1) + 1
    figure = _new_figure(width, 7.4)
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 2), sharex=True)
    tallest = np.log2(max(input_shape[0], 1) + 1)
    columns = [("input", "", 0, tuple(input_shape)), *((s.name, s.text, s.blocks, s.output_shape) for s in sections)]
    for column, (name, text, blocks, shape) in enumerate(columns):
        side = shape[0] if len(shape) > 1 else 1  # the head puts out one vector
        height = max(np.log2(side + 1) / tallest, 0.08)
        _draw_slabs(top, column, height, max(blocks, 1), name)
        label = "x".join(map(str, shape)) + (f"\n{_wrap(text)}" if text else "")
        top.text(column, -0.06, label, ha="center", va="top", fontsize=8)
        top.text(column, height + 0.03, name, ha="center", va="bottom", fontsize=10)
    top.text(
        0, -0.75, "one slab per block, as high\nas the logarithm of its side", fontsize=7, color=_BEST, ha="center"
    )
    top.set_ylim(-0.78, 1.15)
    top.axis("off")
    positions = np.arange(1, len(columns))
    for offset, key, label, color in (
        (-0.2, "parameters", "parameters", _TRAIN),
        (0.2, "multiply_adds", "multiply-adds", _VALIDATION),
    ):
        values = np.array([getattr(section, key) for section in sections], float)
        bars = bottom.bar(positions + offset, values / max(values.sum(), 1), 0.38, color=color, label=label)
        bottom.bar_label(bars, [_short(value) for value in values], fontsize=8)
    bottom.set_xticks(positions, [section.name for section in sections])
    bottom.set_ylabel("share of the network")
    bottom.margins(y=0.15)
    bottom.legend(frameon=False, loc="upper left")
    for side in ("top", "right"):
        bottom.spines[side].set_visible(False)
    lines = [line for text in (title, subtitle) for line in textwrap.wrap(text, int(width * 9))]
    figure.suptitle("\n".join(lines), fontsize=11)
    return figure


def _draw_slabs(axes: Any, column: int, height: float, slabs: int, name: str) -> None:
    from matplotlib.patches import Rectangle

    width = 0.7 / slabs
    for slab in range(slabs):
        gap = 0.15 * width if slabs > 1 else 0.0
        axes.add_patch(
            Rectangle(
                (column - 0.35 + slab * width + gap / 2, 0),
                width - gap,
                height,
                facecolor="#dddddd" if name in ("input", "head") else _TRAIN,
                edgecolor="none",
                alpha=0.9,
                snap=False,  # snapped to pixels, many thin slabs would run together
            )
        )


def _wrap(text: str) -> str:
    """Breaks a stage's description where a reader would: after each comma, and before the block's own list."""
    return text.replace(", ", ",\n").replace(" x [", " x\n[")


def _short(value: float) -> str:
    """1_234_567 as "1.2 M"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"
