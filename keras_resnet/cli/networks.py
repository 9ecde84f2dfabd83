"""Commands about networks: models, show."""

from __future__ import annotations

from dataclasses import replace

import click

from keras_resnet import specs
from keras_resnet.cli.options import InputShape, PngPath
from keras_resnet.cli.tables import make_table, print_all
from keras_resnet.files import write_beside


@click.command()
@click.argument("pattern", default="*")
def models(pattern: str) -> None:
    """List the networks whose name matches PATTERN, such as 'resnet*_cifar'."""
    names = specs.list_models(pattern)
    if not names:
        specs.get_row(pattern)  # a member of a family that is not listed, or an error that names the nearest
        names = [pattern]
    table = make_table("name", "parameters", "trainable", "multiply-adds", "input", last="paper")
    for name in names:
        row = specs.get_row(name)
        table.add_row(
            name,
            f"{specs.count_params(name):,}",
            f"{specs.count_params(name, trainable_only=True):,}",
            f"{specs.count_macs(name):,}",
            "x".join(map(str, row.input_shape)) + f" -> {row.classes}",
            row.reference,
        )
    print_all(table)
    print_all(f"and {', '.join(specs.list_families())}, for any n >= 1, groups and width")


@click.command()
@click.argument("name")
@click.option("--input-shape", type=InputShape(), help="Of images or sequences.  [default: of the network's source]")
@click.option("--classes", type=click.IntRange(min=1), help="Outputs.  [default: of the network's source]")
@click.option("--output-stride", type=int, help="8 or 16: strides beyond it become dilations.")
@click.option("--plot", type=PngPath(), help="Draw the network into this PNG file.")
def show(
    name: str, input_shape: tuple[int, ...] | None, classes: int | None, output_stride: int | None, plot: str | None
) -> None:
    """Show the network NAME by stages, as a table and as a picture."""
    row = specs.get_row(name)
    spec = replace(row.spec, output_stride=output_stride)
    shape, classes = input_shape or row.input_shape, classes or row.classes
    sections = specs.summarize(spec, shape, classes)
    parameters, multiply_adds = (sum(getattr(s, key) for s in sections) for key in ("parameters", "multiply_adds"))
    heading = f"{name}: {parameters:,} parameters, {multiply_adds:,} multiply-adds at {'x'.join(map(str, shape))}"
    conventions = specs.describe_conventions(spec)
    if plot is not None:
        from keras_resnet import plots

        figure = plots.plot_network(sections, shape, title=heading, subtitle=conventions)
        write_beside(plot, lambda path: plots.save_figure(figure, path))
    table = make_table("section", "output", "parameters", "multiply-adds", last="what")
    for section in sections:
        output = "x".join(map(str, section.output_shape))
        table.add_row(section.name, output, f"{section.parameters:,}", f"{section.multiply_adds:,}", section.text)
    print_all(heading, f"{conventions}; {row.reference}", "", table)
