"""What an export refuses before anything is written, and how its warm-up requests are chosen."""

import importlib.util

import numpy as np
import pytest
from serving import COLOUR, GRAY, LINE, SPEC, draw, network

from keras_resnet import InputError, build
from keras_resnet.data import decode
from keras_resnet.export import export_saved_model
from keras_resnet.export.record import read_export
from keras_resnet.export.reference import Reference
from keras_resnet.export.request import Request


@pytest.mark.parametrize(
    ("names", "received"),
    [
        (["a", "b"], r"2 names"),
        (["a"] * 8, r"8 names"),
        ("abcdefg", r"7 names"),
        ([*"abcdef", "g\nh"], r"'g\\nh'"),
        ([*"abcdef", "g\n"], r"'g\\n'"),
        ([*"abcdef", "g\u2028h"], r"'g\\u2028h'"),
        ([*"abcdef", "\r"], r"'\\r'"),
        ([*"abcdef", ""], r"''"),
        ([*"abcdef", 7], r"7"),
        ([*"abcdef", b"g"], r"b'g'"),
    ],
)
def test_class_names_that_do_not_fit(tmp_path, names, received):
    with pytest.raises(InputError, match=rf"class_names must be 7 strings of one line each. Received: {received}\."):
        export_saved_model(network(), tmp_path / "x", COLOUR, names)
    assert not list(tmp_path.iterdir())


def test_class_names_that_are_no_text(tmp_path):
    """A lone surrogate cannot be written as UTF-8."""
    with pytest.raises(InputError, match=r"class_names must be "):
        export_saved_model(network(), tmp_path / "x", COLOUR, [*"abcdef", "\ud800"])
    with pytest.raises(InputError, match=r"class_names must be "):
        export_saved_model(network(), tmp_path / "x", COLOUR, 7)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_pixels": 0}, r"max_pixels must be a whole number of at least 1. Received: 0\."),
        ({"max_pixels": 1.5}, r"max_pixels must be a whole number of at least 1. Received: 1.5\."),
        ({"preprocessing": GRAY}, r"must give the network's input, \(8, 10, 3\). Received: one that gives \(8, 8, 1\)"),
        ({"preprocessing": {"mean": 0}}, r"must be a keras_resnet.Preprocessing or None. Received: {'mean': 0}"),
        (
            {"images": draw(6, 9, 9)},
            r"images must be uint8, \(at least 7, .*, 3\). Received: uint8, shape \(6, 9, 9",
        ),
        ({"images": draw(7, 9, 9, 1)}, r"images must be uint8, .* Received: uint8, shape \(7, 9, 9, 1\)"),
        ({"images": np.zeros((7, 9, 9, 3))}, r"images must be uint8, .* Received: float64, shape \(7, 9, 9, 3\)"),
        ({"images": "photographs"}, r"images must be uint8, .* Received: str, shape \(\)"),
    ],
)
def test_bad_arguments(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        export_saved_model(network(), tmp_path / "x", **{"preprocessing": COLOUR, **options})
    assert not list(tmp_path.iterdir())


def test_what_is_no_classifier(tmp_path):
    model = build(SPEC, (8, 8, 3), include_top=False)
    with pytest.raises(InputError, match=r"tiny: an exported network must end in a Dense layer on pooled features"):
        export_saved_model(model, tmp_path / "x")
    with pytest.raises(InputError, match=r"A functional Keras model is needed"):
        export_saved_model("model.keras", tmp_path / "x")
    with pytest.raises(InputError, match=r"line: preprocessing must give the network's input, \(16, 2\)"):
        export_saved_model(network((16, 2), 3, spec=LINE), tmp_path / "x", COLOUR)
    assert not list(tmp_path.iterdir())


def test_a_low_limit_of_pixels_does_not_fail_the_proof(tmp_path):
    """The photographs of the proof are larger than 100 pixels, and are cut."""
    request = Request(network(), tmp_path, "saved_model", COLOUR, max_pixels=100)
    cases = Reference(request).make_cases(["serve_bytes"])
    assert [len(case.value) for case in cases] == [1, 7]
    for case in cases:
        for file in case.value.astype(object):
            assert decode(file, 3, max_pixels=100).shape[-1] == 3


# Warm-up requests


def _hide(monkeypatch, *packages):
    """Makes packages look uninstalled."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in packages else real(name, *rest)
    )


def test_without_the_protos_there_are_no_warm_up_requests(tmp_path, monkeypatch, instant):
    _hide(monkeypatch, "tensorflow_serving")
    with pytest.raises(InputError, match=r"pip install 'keras-native-resnet\[serving\]'. Received: an environment"):
        instant(tmp_path / "x", warm_up=True)
    assert not list(tmp_path.iterdir())
    path = instant(tmp_path, warm_up=None)
    assert not (path / "assets.extra").exists()
    assert read_export(path).warm_up_requests == 0


def test_warm_up_requests_can_be_left_out(plain):
    assert not (plain.path / "assets.extra").exists()
