"""Pictures are drawn for any number of epochs and classes, without a display."""

import numpy as np
import pytest
from PIL import Image

from keras_resnet import ResNetSpec, count_params, plots
from keras_resnet.specs import get_row, summarize


def _size(figure, path):
    plots.save_figure(figure, path)
    with Image.open(path) as picture:
        return picture.size


@pytest.mark.parametrize("epochs", [1, 50])
def test_curves(tmp_path, epochs):
    records = [
        {"epoch": e, "loss": 1 / e, "accuracy": 1 - 1 / (e + 1), "val_loss": 1.1 / e, "val_accuracy": 0.9}
        for e in range(1, epochs + 1)
    ]
    figure = plots.plot_curves(records, title="resnet20_cifar on digits", best_epoch=epochs)
    loss, accuracy = figure.axes
    assert [line.get_label() for line in loss.lines] == ["training", "validation", f"kept: epoch {epochs}"]
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [record["loss"] for record in records])
    np.testing.assert_allclose(accuracy.lines[1].get_ydata(), 0.9)
    assert _size(figure, tmp_path / "curves.png")[0] > 800


def test_curves_without_validation(tmp_path):
    figure = plots.plot_curves([{"epoch": 1, "loss": 1.0, "accuracy": 0.5}], title="t")
    assert [line.get_label() for line in figure.axes[0].lines] == ["training"]


@pytest.mark.parametrize("classes", [2, 25, 26, 100])
def test_confusion(tmp_path, classes):
    confusion = np.eye(classes, dtype=int) * 30
    confusion[0, 1], confusion[1] = 3, 0  # a confusion, and a class without images
    figure = plots.plot_confusion(confusion, [f"class {i}" for i in range(classes)], title="t")
    axes = figure.axes[0]
    assert len(axes.texts) == ((confusion > 0).sum() if classes <= 25 else 0)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert np.nanmax(axes.images[0].get_array()) <= 1
    width, height = _size(figure, tmp_path / "confusion.png")
    assert 400 < width < 3000
    assert 400 < height < 3000


@pytest.mark.parametrize("name", ["resnext29_8x64d_cifar", "resnetv2_152", "resnet50_1d"])
def test_network(tmp_path, name):
    sections = summarize(name)
    figure = plots.plot_network(sections, get_row(name).input_shape, title=name, subtitle="how")
    top, bottom = figure.axes
    assert len(top.patches) == 3 + sum(section.blocks for section in sections)  # input, stem, every block, head
    parameters = [bar.get_height() for bar in bottom.containers[0]]
    np.testing.assert_allclose(parameters, [s.parameters / count_params(name) for s in sections])
    assert [label.get_text() for label in bottom.get_xticklabels()] == [section.name for section in sections]
    assert list(bottom.get_xticks()) == list(range(1, len(sections) + 1))  # under their columns
    assert _size(figure, tmp_path / "network.png")[0] > 800


def test_a_long_title_stays_inside(tmp_path):
    sections = summarize(ResNetSpec("one", "basic", (1,), (4,), (1,)))
    figure = plots.plot_network(sections, (224, 224, 3), title="a title of many words " * 8, subtitle="and more " * 20)
    plots.save_figure(figure, tmp_path / "network.png")
    extent = figure._suptitle.get_window_extent()
    assert extent.x0 >= 0
    assert extent.x1 <= figure.bbox.x1


def _make_trials(*figures):
    return [
        {
            "trial": str(index),
            "network": f"net{index}",
            "parameters": size,
            "multiply_adds": 100 * size,
            "epochs": epochs,
            "val_accuracy": accuracy,
        }
        for index, (accuracy, size, epochs) in enumerate(figures)
    ]


def test_pareto(tmp_path):
    """In the order of the ranking: the second is as good as the winner and smaller, the third is worse and larger."""
    trials = _make_trials((0.9, 4000, 9), (0.9, 3000, 3), (0.8, 5000, 3), (0.7, 500, 1), (0.6, 500, 3))
    figure = plots.plot_pareto(trials, title="digits: 5 trials")
    for axes, key in zip(figure.axes[:2], ("parameters", "multiply_adds"), strict=True):
        sizes = [trial[key] for trial in trials]
        points, winner = axes.collections
        np.testing.assert_allclose(points.get_offsets(), list(zip(sizes, (0.9, 0.9, 0.8, 0.7, 0.6), strict=True)))
        np.testing.assert_array_equal(points.get_array(), [9, 3, 3, 1, 3])
        np.testing.assert_allclose(winner.get_offsets(), [(sizes[0], 0.9)])
        (front,) = axes.lines
        np.testing.assert_allclose(front.get_xdata(), [sizes[3], sizes[1]])
        np.testing.assert_allclose(front.get_ydata(), [0.7, 0.9])
        assert axes.get_xlabel() == key.replace("_", "-")
        assert axes.get_xscale() == "log"
    assert figure._suptitle.get_text() == "digits: 5 trials\nwinner: net0, 0.9000"
    assert {text.get_text() for text in figure.axes[0].get_legend().get_texts()} == {"Pareto front", "winner"}
    assert _size(figure, tmp_path / "pareto.png")[0] > 800


def test_pareto_of_one_trial(tmp_path):
    figure = plots.plot_pareto(_make_trials((0.5, 1391, 1)), title="one")
    (front,) = figure.axes[0].lines
    np.testing.assert_allclose((front.get_xdata(), front.get_ydata()), [[1391], [0.5]])
    assert _size(figure, tmp_path / "pareto.png")[0] > 800
