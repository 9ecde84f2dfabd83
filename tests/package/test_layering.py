"""Imports point downward only, and the light modules load nothing heavy."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import keras_resnet

PACKAGE = Path(keras_resnet.__file__).parent
MAP = Path(__file__).parents[2] / "docs" / "architecture.md"
# What a row of the module map looks like: | `data` | 1 | what it is for | `numpy`, `tensorflow` |
_ROW = re.compile(r"^\| `(?P<module>\w+)` \| (?P<level>\d) \| [^|]+ \| (?P<outside>[^|]+) \|$", re.MULTILINE)
_ROWS = list(_ROW.finditer(MAP.read_text("utf-8")))
LEVELS = {row["module"]: int(row["level"]) for row in _ROWS}
# What a module may take from outside, beyond the standard library.
ALLOWED = {row["module"]: set(re.findall(r"`(\w+)`", row["outside"])) for row in _ROWS}
STDLIB_ONLY = tuple(module for module, names in ALLOWED.items() if not names)


def _modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path


def _imports(path):
    yield from _imports_in(ast.parse(path.read_text("utf-8")), path)


def _imports_in(tree, path=None):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            if node.module == "keras_resnet":
                yield from ((f"keras_resnet.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield node.module, node.lineno


def test_the_module_map_names_every_module_once_and_no_other():
    assert len(_ROWS) == len(LEVELS) > 20
    assert {module for module, _ in _modules()} == set(LEVELS)


def test_imports_point_downward():
    seen = 0
    for module, path in _modules():
        for name, line in _imports(path):
            if not name.startswith("keras_resnet."):
                continue
            target = name.split(".")[1]
            below = LEVELS[target] < LEVELS[module] or target == module
            same_shelf = LEVELS[target] == LEVELS[module] == 0  # errors and specs are the floor for each other
            blocks_need_layers = (module, target) == ("blocks", "layers")
            assert below or same_shelf or blocks_need_layers, f"{path}:{line}: {module} must not import {target}"
            seen += 1
    assert seen > 20


def test_third_party_imports_are_those_agreed():
    for module, path in _modules():
        for name, line in _imports(path):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top == "keras_resnet":
                continue
            assert top in ALLOWED[module], f"{path}:{line}: {module} must not import {top}"
    assert set(STDLIB_ONLY) > {"errors", "files", "records", "specs", "recipes", "inputs"}


def test_models_needs_no_tensorflow():
    """Building works on any Keras backend: what it takes names TensorFlow only inside the function that needs it."""
    for module, path in _modules():
        if module in ("models", "blocks", "fused", "layers", "weights", "growth", *STDLIB_ONLY):
            at_import = [
                node for node in ast.parse(path.read_text("utf-8")).body if not isinstance(node, ast.FunctionDef)
            ]
            names = {name.split(".")[0] for node in at_import for name, _ in _imports_in(node)}
            assert "tensorflow" not in names, path


def _run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_import_loads_neither_keras_nor_tensorflow():
    code = (
        "import sys, keras_resnet; keras_resnet.count_params('resnet50'); keras_resnet.Recipe();"
        "print([m for m in ('tensorflow', 'keras', 'numpy', 'matplotlib', 'click') if m in sys.modules])"
    )
    assert _run(code) == "[]"


def test_what_plans_and_supervises_a_search_loads_neither_keras_nor_kerastuner():
    code = (
        "import sys; from keras_resnet.{module} import {name}; from keras_resnet.search import Budget, Candidates;"
        "Candidates((32, 32, 3), 10, budget=Budget(max_params=10**6));"
        "print([m for m in ('tensorflow', 'keras', 'keras_tuner', 'sklearn') if m in sys.modules])"
    )
    for module, name in (("search", "parse_space"), ("jobs.searches.job", "search"), ("jobs", "search")):
        assert _run(code.format(module=module, name=name)) == "[]", module


def test_commands_that_list_load_no_tensorflow():
    for arguments in (
        "['--help']",
        "['train', '--help']",
        "['search', '--help']",
        "['models']",
        "['models', 'resnet5*']",
        "['show', 'resnet50']",
    ):
        code = (
            f"import sys; from keras_resnet.cli import cli; cli({arguments}, standalone_mode=False);"
            "print('heavy:', [m for m in ('tensorflow', 'keras', 'keras_tuner', 'numpy') if m in sys.modules])"
        )
        assert _run(code).endswith("heavy: []")


def test_every_public_name_is_there():
    for name in keras_resnet.__all__:
        assert getattr(keras_resnet, name).__doc__, name
    assert set(keras_resnet.__all__) <= set(dir(keras_resnet))
