"""The hook that registers our layers as soon as Keras is there, in every order of imports."""

import importlib
import sys
import types

import pytest

from keras_resnet.import_hook import when_imported


def test_the_import_hook_acts_once_and_outlives_a_failed_import(tmp_path, monkeypatch):
    module, seen = tmp_path / "hooked_here.py", []
    monkeypatch.syspath_prepend(tmp_path)
    when_imported("hooked_here", lambda: seen.append(sys.modules["hooked_here"].VALUE))
    finders = list(sys.meta_path)
    module.write_text("raise ImportError('not yet')")
    with pytest.raises(ImportError, match="not yet"):
        importlib.import_module("hooked_here")
    assert sys.meta_path == finders
    module.write_text("VALUE = 1  # of another length than before")
    importlib.invalidate_caches()
    importlib.import_module("hooked_here")
    importlib.reload(sys.modules["hooked_here"])
    assert seen == [1]
    assert sys.meta_path == finders[1:]
    when_imported("hooked_here", lambda: seen.append(2))  # there already
    assert seen == [1, 2]
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("hooked_nowhere")


# Keras itself takes seconds to load; tests of saved models load it before and after this package. Here another package
# stands in for it.
WAYS = {
    "as a whole": "import stand_in",
    "a name of it": "from stand_in import VALUE",
    "a submodule": "import stand_in.part",
    "a name of a submodule": "from stand_in.part import OTHER",
    "by importlib": "import importlib; importlib.import_module('stand_in.part')",
    "by another package": "import brings_it",
}


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A package `stand_in` with a submodule, and a module that imports it."""
    (tmp_path / "stand_in").mkdir()
    (tmp_path / "stand_in" / "__init__.py").write_text("VALUE = 1\n")
    (tmp_path / "stand_in" / "part.py").write_text("OTHER = 2\n")
    (tmp_path / "brings_it.py").write_text("import stand_in.part\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("stand_in", "stand_in.part", "brings_it"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_import_a_package_is_seen(packages, way):
    finders, seen = list(sys.meta_path), []
    when_imported("stand_in", lambda: seen.append(sys.modules["stand_in"].VALUE))
    exec(WAYS[way], {})
    assert seen == [1]
    exec("import stand_in, stand_in.part, brings_it", {})
    assert seen == [1]
    assert sys.meta_path == finders
    when_imported("stand_in", lambda: seen.append("at once"))
    assert seen == [1, "at once"]


def test_a_package_in_the_middle_of_its_own_import_is_left_alone(packages):
    """As when a file of the user's has the name of a module that Keras imports, and imports this package."""
    seen = []
    sys.modules["ask"] = types.ModuleType("ask")
    sys.modules["ask"].ask = lambda: when_imported("stand_in", lambda: seen.append("too early"))
    (packages / "stand_in" / "__init__.py").write_text("import ask\nask.ask()\nVALUE = 1\n")
    try:
        exec("import stand_in", {})
    finally:
        del sys.modules["ask"]
    assert seen == []
