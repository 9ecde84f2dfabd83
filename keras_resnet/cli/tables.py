"""Tables on a terminal."""

from __future__ import annotations

import sys
from typing import Any


def make_table(*headings: str, last: str) -> Any:
    """A table whose first column is a name, whose last is text, and between them figures."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(headings[0], no_wrap=True)
    for heading in headings[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(last)
    return table


def print_all(*parts: Any) -> None:
    """Prints texts and tables, as wide as the terminal, or 160 columns elsewhere."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160, markup=False)
    for part in parts:
        console.print(part, highlight=False)
