"""What README.md and docs/ show is true: scripts run, commands parse, generated parts are current, links lead somewhere."""

import ast
import importlib.util
import re
import shlex

import click
import numpy as np
import pytest
from helpers import draw_images, write_folder
from shown import EXAMPLES, PAGES, ROOT, blocks_of, collected, run_in_one_process

from keras_resnet.cli import cli

HEAVY = ("keras", "keras_tuner", "tensorflow")
# Functions that need no `import keras_resnet`, with the reason.
LOADS_WITHOUT = {
    "benchmark_export.py": {"measure"},  # runs in a process whose oneDNN is set by its parent, with TensorFlow alone
    "grpc_client.py": {"connect"},  # a client, which computes nothing
}
WITH_PYTHON = [page for page in PAGES if blocks_of(page, "python")]


@pytest.fixture(scope="module")
def outcomes(request, tmp_path_factory):
    """What the scripts of each page came to, in a folder with `photos/` (two classes) and `photo.jpg`."""
    scratch, jobs = tmp_path_factory.mktemp("pages"), []
    for page in collected(request, "page"):
        folder = scratch / page.stem
        images, labels = draw_images(48, 40, 48, 3, 2)
        write_folder(folder / "photos", images, labels, ("cat", "dog"), suffix=".jpg")
        (folder / "photo.jpg").write_bytes((folder / "photos" / "cat" / "0000.jpg").read_bytes())
        np.savez(folder / "mine.npz", images=images, labels=labels)
        jobs.append({"name": page.name, "folder": str(folder), "blocks": blocks_of(page, "python")})
    return run_in_one_process(jobs, scratch)


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_the_scripts_of_a_page_run(page, outcomes):
    assert outcomes[page.name]["error"] is None, outcomes[page.name]["error"]


def test_what_is_not_run_says_why():
    for page in PAGES:
        text = page.read_text("utf-8")
        assert len(re.findall(r"<!-- not run", text)) == len(
            re.findall(r"^<!-- not run: \S.+ -->\n```", text, re.MULTILINE)
        )


def _first_imports(tree):
    """(name of the function or "", top package, line) of each import, functions after what is at the top."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            child.scope = node.name if isinstance(node, ast.FunctionDef) else getattr(node, "scope", "")
            names = [alias.name for alias in child.names] if isinstance(child, ast.Import) else []
            names += [child.module] if isinstance(child, ast.ImportFrom) else []
            yield from ((child.scope, name.split(".")[0], child.lineno) for name in names)


def find_late(source, without=()):
    """The lines that import Keras, KerasTuner or TensorFlow where keras_resnet was not imported before."""
    imports = list(_first_imports(ast.parse(source)))
    for scope, package, line in imports:
        if package in HEAVY and scope not in without:
            early = (where in ("", scope) and name == "keras_resnet" for where, name, above in imports if above < line)
            if not any(early):
                yield line
    for node in ast.walk(ast.parse(source)):  # scripts of processes, kept in strings
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.search(r"^import ", node.value, re.MULTILINE)
        ):
            yield from find_late(node.value)


@pytest.mark.parametrize(
    "script", [*EXAMPLES, *sorted((ROOT / "examples" / "serving").glob("*.py"))], ids=lambda path: path.stem
)
def test_an_example_imports_keras_resnet_first(script):
    assert list(find_late(script.read_text("utf-8"), LOADS_WITHOUT.get(script.name, ()))) == []


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_a_shown_script_imports_keras_resnet_first(page):
    for block in blocks_of(page, "python", also_not_run=True):
        assert list(find_late(block)) == [], block


def test_a_late_import_is_found():
    assert list(find_late("import keras\nimport keras_resnet")) == [1]
    assert list(find_late("import keras_resnet\nimport keras\nfrom tensorflow import nn")) == []
    assert list(find_late("def f():\n  import keras_resnet\ndef g():\n  import keras_tuner")) == [4]
    assert list(find_late("x = '''\nimport tensorflow\n'''")) == [2]


def _commands(page):
    for block in blocks_of(page, "sh", also_not_run=True):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words.pop(0)
                if words and words[0].split("/")[-1] == "keras-resnet":
                    yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_parse(page):
    for name, *arguments in _commands(page):
        command = cli.commands[name]
        try:
            command.make_context(name, arguments)  # parses and checks, runs nothing
        except click.ClickException as error:
            pytest.fail(f"{page.name}: {name} {arguments}: {error.format_message()}")


def test_commands_are_found():
    assert ["train", "digits", "--run-dir", "runs/digits"] in list(_commands(ROOT / "README.md"))


def test_the_readme_names_both_set_up_commands():
    readme = (ROOT / "README.md").read_text("utf-8")
    for name in ("train", "test"):
        assert len(re.findall(rf"<!-- ci: {name} -->\n```sh\n[^\n]+\n```", readme)) == 1


def test_the_generated_parts_are_current():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for page in generate.PARTS:
        text = (ROOT / "docs" / page).read_text("utf-8")
        assert generate.fill(page, text) == text, f"docs/{page} is not current: run 'python docs/generate.py'"


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_links_to_a_heading_find_it():
    for page in PAGES:
        for target, heading in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", page.read_text("utf-8")):
            text = (page.parent / target if target else page).read_text("utf-8")
            headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            assert heading in [re.sub(r"[^\w\- ]", "", each).lower().replace(" ", "-") for each in headings], heading


def test_pages_are_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150
    for page in PAGES:
        assert len(page.read_text("utf-8").splitlines()) <= 250, page.name
