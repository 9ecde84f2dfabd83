"""keras.applications' networks: the same weights give the same outputs at every stage."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from helpers import randomise

from keras_resnet import InputError, build, count_params, get_spec, load_keras_applications, stage_outputs
from keras_resnet.weights import keras_applications_name

PAIRS = {
    "resnet50_keras": keras.applications.ResNet50,
    "resnet101_keras": keras.applications.ResNet101,
    "resnet152_keras": keras.applications.ResNet152,
    "resnet50v2_keras": keras.applications.ResNet50V2,
    "resnet101v2_keras": keras.applications.ResNet101V2,
    "resnet152v2_keras": keras.applications.ResNet152V2,
}


@pytest.fixture(autouse=True)
def _clear():
    yield
    keras.utils.clear_session()


def their_stages(model):
    names = [layer.name for layer in model.layers]
    last = [
        max((n for n in names if n.startswith(f"conv{s}_") and n.endswith("_out")), key=_block) for s in (2, 3, 4, 5)
    ]
    stages = {f"stage{number}": model.get_layer(name).output for number, name in enumerate(last, 1)}
    return {"stem": model.get_layer("pool1_pool").output, **stages, "output": model.output}


def _block(name):
    return int(name.split("_block")[1].split("_")[0])


def largest_differences(ours, theirs, images):
    a = keras.Model(ours.input, {**stage_outputs(ours), "output": ours.output})(images)
    b = keras.Model(theirs.input, their_stages(theirs))(images)
    assert set(a) == set(b)
    return {name: float(np.abs(a[name] - b[name]).max() / np.abs(b[name]).max()) for name in b}


@pytest.mark.parametrize("name", PAIRS)
def test_every_stage_agrees(name):
    theirs = PAIRS[name](weights=None, input_shape=(97, 97, 3), classes=7)
    randomise(theirs)
    ours = build(name, (97, 97, 3), 7)
    load_keras_applications(ours, theirs)
    images = np.random.default_rng(1).normal(size=(2, 97, 97, 3)).astype("float32")
    differences = largest_differences(ours, theirs, images)
    assert max(differences.values()) < 1e-4, differences
    assert ours.count_params() == theirs.count_params() == count_params(name, (97, 97, 3), 7)
    assert np.ptp(ours(images), axis=-1).min() > 1e-3  # the probabilities are not all alike


@pytest.mark.parametrize("name", ["resnet50_keras", "resnet50v2_keras"])
@pytest.mark.parametrize("shape", [(33, 33), (225, 225), (65, 48)], ids=str)
def test_every_stage_agrees_at_odd_sizes(name, shape):
    theirs = PAIRS[name](weights=None, input_shape=(*shape, 3), include_top=False, pooling="avg")
    randomise(theirs)
    ours = build(name, (*shape, 3), include_top=False, pooling="avg")
    load_keras_applications(ours, theirs)
    images = np.random.default_rng(1).normal(size=(1, *shape, 3)).astype("float32")
    differences = largest_differences(ours, theirs, images)
    assert max(differences.values()) < 1e-4, differences


def test_the_head_may_stay():
    theirs = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(33, 33, 3))
    ours = build("resnet50_keras", (33, 33, 3), 5)
    head = ours.get_layer("head_logits").get_weights()
    load_keras_applications(ours, theirs, head=False)
    np.testing.assert_array_equal(ours.get_layer("head_logits").get_weights()[0], head[0])
    stem = theirs.get_layer("conv1_conv").get_weights()[0]
    np.testing.assert_array_equal(ours.get_layer("stem_conv").get_weights()[0], stem)


def test_what_does_not_fit_is_refused_and_nothing_copied():
    theirs = keras.applications.ResNet50(weights=None, classes=7, input_shape=(33, 33, 3))
    other = build("resnet50", (33, 33, 3), 7)
    before = other.get_weights()
    with pytest.raises(
        InputError, match=r"Received: stem_conv with weights \[\(7, 7, 3, 64\)\], .*there conv1_conv .*\(64,\)\]"
    ):
        load_keras_applications(other, theirs)
    classes = build("resnet50_keras", (33, 33, 3), 8)
    with pytest.raises(InputError, match=r"head_logits with .*there predictions .*head=False leaves the head out"):
        load_keras_applications(classes, theirs)
    for a, b in zip(before, other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match=r"there conv1_conv with no weights"):
        load_keras_applications(other, keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))
    with pytest.raises(InputError, match=r"source must be a Keras model. Received: 'imagenet'"):
        load_keras_applications(other, "imagenet")


def test_a_deeper_source_is_refused():
    deeper = keras.applications.ResNet101(weights=None, include_top=False, input_shape=(33, 33, 3))
    ours = build("resnet50_keras", (33, 33, 3), include_top=False)
    with pytest.raises(InputError, match=r"must have a counterpart in resnet50_keras. Received: conv4_block7_.*deeper"):
        load_keras_applications(ours, deeper)


@pytest.mark.parametrize("changes", [{"bottleneck_stride": "3x3"}, {"bn_epsilon": 1e-5}], ids=str)
def test_a_look_alike_is_refused(changes):
    """The shapes are the same, the function is another."""
    spec = get_spec("resnet50_keras")
    ours = build(replace(spec, dialect=replace(spec.dialect, **changes)), (33, 33, 3), include_top=False)
    theirs = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(33, 33, 3))
    with pytest.raises(InputError, match=r"strides \(1, 1\), .*strides \(2, 2\)|epsilon 1e-05, .*epsilon 1.001e-05"):
        load_keras_applications(ours, theirs)


def test_names():
    assert keras_applications_name("stage2_block1_conv3", preactivation=False) == "conv3_block1_3_conv"
    assert keras_applications_name("stage4_block12_shortcut_bn", preactivation=False) == "conv5_block12_0_bn"
    assert keras_applications_name("stage1_block2_bn1", preactivation=True) == "conv2_block2_preact_bn"
    assert keras_applications_name("stage1_block2_bn3", preactivation=True) == "conv2_block2_2_bn"
    with pytest.raises(InputError, match=r"A layer must be one of stem_conv, .* Received: 'dense'"):
        keras_applications_name("dense", preactivation=False)
