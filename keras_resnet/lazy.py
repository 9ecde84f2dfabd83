"""Packages whose names are imported from their modules when they are first used, so that importing one costs nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def attach(
    package: str, homes: Mapping[str, Iterable[str]], modules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Returns `__getattr__`, `__dir__` and `__all__` of a package (PEP 562).

    Args:
        package: its `__name__`.
        homes: module of the package -> the names that it is imported from; other packages' modules by their whole name.
        modules: modules of the package that are reached as attributes too.
    """
    home_of = {name: home if "." in home else f"{package}.{home}" for home, names in homes.items() for name in names}
    modules = tuple(modules)

    def get(name: str) -> Any:
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(home_of[name]), name)

    names = sorted((*home_of, *modules))
    return get, lambda: names, names
