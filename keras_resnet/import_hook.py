"""Runs something as soon as a package is imported, whoever imports it.

It is here for one promise: `import keras_resnet` before `import keras` is enough for Keras' own loader to read a saved network
with our grouped convolutions. Keras finds a class of another package only where that package has registered it, which takes
Keras; importing Keras ourselves would make `import keras_resnet` take seconds and fix its backend before the script could
choose one. So our layers are registered in the moment in which the script's own `import keras` is done.

`wrapt` can do this too, but brings asyncio with it, which takes longer to load than this whole package.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any


def when_imported(name: str, action: Callable[[], object]) -> None:
    """Calls `action` once the package `name` is imported: now, if it is there already.

    Where the package is in the middle of its own import, which then has led here, nothing is done: it could not be used yet.
    """
    if name not in sys.modules:
        sys.meta_path.insert(0, _Hook(name, action))  # type: ignore[arg-type]
    elif not getattr(getattr(sys.modules[name], "__spec__", None), "_initializing", False):
        action()


class _Hook:
    """Finds nothing itself: has the loader that the other finders give call the action after the package.

    It is a finder by its method; `importlib.abc`, which has a base class for finders, takes longer to load than all else here.
    """

    def __init__(self, name: str, action: Callable[[], object]) -> None:
        self._name, self._action = name, action

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        """Returns the spec of the package as the other finders give it; None for everything else."""
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
