"""Exports that many tests look at, each made once, and exports without what a test is not about."""

from types import SimpleNamespace

import pytest
from server import Server
from serving import COLOUR, GRAY, LINE, NAMES, network

from keras_resnet.export import check, export_saved_model, verify
from keras_resnet.export.reference import Reference
from keras_resnet.export.saved_model import SavedModelWriter


def _run_here(folder, arrays):
    """The checks of the fresh processes, in this one."""
    arrays = dict(arrays)
    names = arrays.pop("class_names")
    odd = check.find_odd_nodes(str(folder))
    differences, answered = ({}, 0) if odd else check.run_cases(str(folder), arrays, names)
    return {"onednn": verify.Checked(tuple(odd), differences, answered)}


@pytest.fixture
def proved_here(monkeypatch):
    """Has exports be verified in this process, without fresh ones."""
    monkeypatch.setattr(verify, "run_processes", _run_here)


def _skip_proof(patch):
    patch.setattr(Reference, "make_cases", lambda *_: [])
    patch.setattr(verify, "run_processes", lambda *_: {})


@pytest.fixture(scope="session")
def export():
    """`export_saved_model` without its proof, for tests of something else."""

    def run(*arguments, **options):
        with pytest.MonkeyPatch.context() as patch:
            _skip_proof(patch)
            return export_saved_model(*arguments, **options)

    return run


@pytest.fixture
def no_graph(monkeypatch):
    """Exports of SavedModels write a few bytes and prove nothing, for tests of folders and options."""
    _skip_proof(monkeypatch)
    monkeypatch.setattr(SavedModelWriter, "write", lambda _, folder: (folder / "saved_model.pb").write_bytes(b"graph"))


@pytest.fixture
def instant(no_graph):
    """`export_saved_model` of a tiny network, without a graph."""
    return lambda path, **options: export_saved_model(
        network((8, 8, 1), 2), path, GRAY, **{"warm_up": False, **options}
    )


@pytest.fixture(scope="session")
def colour(tmp_path_factory):
    """The export that every part of the proof is run for; the others go without it."""
    model = network()
    path = export_saved_model(model, tmp_path_factory.mktemp("colour"), COLOUR, NAMES)
    return SimpleNamespace(model=model, preprocessing=COLOUR, names=NAMES, path=path, server=Server(path))


@pytest.fixture(scope="session")
def gray(tmp_path_factory, export):
    model = network((8, 8, 1), 3, activation=None)
    path = export(model, tmp_path_factory.mktemp("gray"), GRAY)
    return SimpleNamespace(model=model, preprocessing=GRAY, names=["0", "1", "2"], path=path, server=Server(path))


@pytest.fixture(scope="session")
def plain(tmp_path_factory, export):
    """Without preprocessing, and of any size."""
    model = network((None, None, 3), 4)
    path = export(model, tmp_path_factory.mktemp("plain"), warm_up=False)
    return SimpleNamespace(model=model, path=path, server=Server(path))


@pytest.fixture(scope="session")
def line(tmp_path_factory, export):
    """Of sequences."""
    model = network((16, 2), 6, spec=LINE)
    path = export(model, tmp_path_factory.mktemp("line"))
    return SimpleNamespace(model=model, path=path, server=Server(path))
