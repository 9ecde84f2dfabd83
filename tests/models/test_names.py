"""Layer names: what writes them and what reads them agree, over every layer that is built."""

from dataclasses import replace

import keras
import pytest

from keras_resnet import build, get_spec, names
from keras_resnet.names import LayerName, read_layer
from keras_resnet.specs import TABLE, iter_layers

FORMS = [  # between them every layer that `build` makes
    *("resnet8_cifar", "resnetv2_18", "resnet18_d", "resnet50v2_keras", "resnet18_multiscale_1d", "plain8_cifar"),
    replace(get_spec("seresnet18"), dropout=0.1, block_dropout=0.1, stochastic_depth=0.1),
]


@pytest.mark.parametrize("name", TABLE)
def test_every_layer_with_weights_is_read_and_written_back(name):
    sections = set()
    for cost in iter_layers(name):
        read = read_layer(cost.name)
        assert str(read) == cost.name
        sections.add(read.section)
    stages = [names.stage_name(stage + 1) for stage in range(len(TABLE[name].spec.depths))]
    assert sections == {names.STEM, *stages, names.HEAD}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: getattr(form, "name", form))
def test_every_layer_is_read_and_written_back(form):
    for layer in build(form, classes=3).layers:
        read = read_layer(layer.name)
        if layer.name == names.INPUT:
            assert read is None
            continue
        assert str(read) == layer.name
        assert layer.name.startswith(f"{read.place}_{read.part}")
        assert not read.part[-1].isdigit(), layer.name
    keras.utils.clear_session()


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("stem_conv", LayerName("stem", None, "conv")),
        ("stem_bn3", LayerName("stem", None, "bn", 3)),
        ("stem_pool_stride", LayerName("stem", None, "pool_stride")),
        ("stage1_block2_conv3", LayerName("stage1", 2, "conv", 3)),
        ("stage12_block34_conv1_k5", LayerName("stage12", 34, "conv", 1, 5)),
        ("stage2_block1_shortcut_conv", LayerName("stage2", 1, "shortcut_conv")),
        ("stage2_block1_se_reduce", LayerName("stage2", 1, "se_reduce")),
        ("stage2_block1_my-2nd.part07", LayerName("stage2", 1, "my-2nd.part0", 7)),
        ("head_logits", LayerName("head", None, "logits")),
        ("images", None),
        ("stage1_conv1", None),
        ("stage0_block1_conv1", None),
        ("stage1_block01_conv1", None),
        ("stage1_block1_", None),
        ("mystem_conv", None),
        ("conv2d", None),
    ],
)
def test_names_by_hand(name, read):
    assert read_layer(name) == read
    if read is not None:
        assert str(read) == name
        assert name == names.layer_name(read.place, read.part, read.index, read.kernel_size)


def test_places():
    read = read_layer("stage3_block4_out")
    assert (read.stage, read.place) == (3, "stage3_block4")
    assert read.place == names.block_name(3, 4)
    assert read_layer("stem_pool").place == "stem"
