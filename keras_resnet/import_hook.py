"""Runs something as soon as a package is imported, whoever imports it.

`wrapt` can do this too, but brings asyncio with it, which takes longer to load than this whole package.
"""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any


def when_imported(name: str, action: Callable[[], object]) -> None:
    """Calls `action` once the package `name` is imported: now, if it is there already."""
    if name in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _Hook(name, action))


class _Hook(importlib.abc.MetaPathFinder):
    """Finds nothing itself: has the loader that the others find call the action after the package."""

    def __init__(self, name: str, action: Callable[[], object]) -> None:
        self._name, self._action = name, action

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        """The spec of the package as the other finders give it; None for everything else."""
        if fullname != self._name:
            return None
        others = (finder for finder in list(sys.meta_path) if finder is not self and hasattr(finder, "find_spec"))
        spec = next((spec for finder in others if (spec := finder.find_spec(fullname, path, target))), None)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_act(module: ModuleType) -> None:
            load(module)  # where this fails the hook stays, for the next try
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                self._action()

        spec.loader.exec_module = load_and_act  # type: ignore[method-assign]
        return spec
