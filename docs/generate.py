"""Writes the parts of these pages that are made from the package itself; a test checks that they are current.

    python docs/generate.py

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import keras_resnet
from keras_resnet.cli import cli
from keras_resnet.specs import TABLE, count_macs, count_params, list_families

DOCS = Path(__file__).parent
PACKAGE = Path(keras_resnet.__file__).parent


def list_networks() -> Iterator[str]:
    """The table of every network: parameters, multiply-adds and the input that they are counted at."""
    yield "| name | parameters | trainable | multiply-adds | at |"
    yield "|---|---:|---:|---:|---|"
    above = ""
    for name, row in TABLE.items():
        at = f"{'x'.join(map(str, row.input_shape))}, {row.classes} classes"
        counts = count_params(name), count_params(name, trainable_only=True), count_macs(name)
        yield f"| `{name}` | {' | '.join(f'{count:,}' for count in counts)} | {'same' if at == above else at} |"
        above = at


def name_families() -> Iterator[str]:
    """The formulas of the families, of which any member can be built."""
    yield from (f"* `{label}`" for label in list_families())


def list_recipe_fields() -> Iterator[str]:
    """The fields of `Recipe` that `Augmentation` lacks, with their options."""
    augmentation = {field.name for field in dataclasses.fields(keras_resnet.Augmentation)}
    yield from _list_options(name for name in _field_names(keras_resnet.Recipe) if name not in augmentation)


def list_augmentation_fields() -> Iterator[str]:
    """The fields of `Augmentation`, in the order in which they act, with their options."""
    yield from _list_options(_field_names(keras_resnet.Augmentation))


def _field_names(record: type) -> Iterator[str]:
    return (field.name for field in dataclasses.fields(record))


def _list_options(names: Iterator[str]) -> Iterator[str]:
    """What `keras-resnet train --help` says of fields, which is what the fields say of themselves."""
    options = {option.name: option for option in cli.commands["train"].params}
    yield "| field | option | default | what it does |"
    yield "|---|---|---|---|"
    for name in names:
        option = options[name]
        text, default = re.fullmatch(r"(.+)  \[default: (.+)\]", option.help).groups()
        yield f"| `{name}` | `{'/'.join((*option.opts, *option.secondary_opts))}` | {default} | {text} |"


def list_spec_fields() -> Iterator[str]:
    """What a spec can say beyond its name, block, depths, filters and strides."""
    yield "| field | default | what it is |"
    yield "|---|---|---|"
    for field in dataclasses.fields(keras_resnet.ResNetSpec):
        if "help" in field.metadata:
            default = getattr(field.default, "name", field.default)  # a dialect by its name
            yield f"| `{field.name}` | {default} | {field.metadata['help']} |"


def list_files() -> Iterator[str]:
    """Every file of the packages within the package, by the first line of its docstring."""
    yield "| file | what it is |"
    yield "|---|---|"
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda path: (path.parent, path.name != "__init__.py", path.name)):
        if path.parent == PACKAGE:
            continue
        line = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").splitlines()[0].replace("|", "\\|")
        yield f"| `{path.relative_to(PACKAGE).as_posix().removesuffix('__init__.py')}` | {line} |"


PARTS: dict[str, dict[str, Callable[[], Iterator[str]]]] = {
    "networks.md": {"networks": list_networks, "families": name_families},
    "training.md": {"recipe": list_recipe_fields},
    "data.md": {"augmentation": list_augmentation_fields},
    "own_networks.md": {"spec": list_spec_fields},
    "architecture.md": {"files": list_files},
}


def fill(page: str, text: str) -> str:
    """Returns the text of a page with its generated parts as they are now."""
    for name, make in PARTS[page].items():
        pattern = rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)"
        part = "\n".join(make())
        text, found = re.subn(pattern, lambda match, part=part: f"{match[1]}{part}\n{match[2]}", text, flags=re.DOTALL)
        if found != 1:
            raise ValueError(f"docs/{page} must have one part '{name}'. Received: {found}.")
    return text


if __name__ == "__main__":
    for each in PARTS:
        path = DOCS / each
        path.write_text(fill(each, path.read_text("utf-8")), "utf-8")
