"""Networks that tests of folding and of heads rewrite."""

import keras
import numpy as np
from keras import layers

from keras_resnet import ResNetSpec

SMALL = ResNetSpec("small", "basic", depths=(2, 1), filters=(4, 6), strides=(1, 2), stem="cifar", stem_filters=4)


def draw_weights(model, seed=0):
    """Biases and BN as after a training: nothing is 0 or 1, and some scales are negative."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.moving_mean.shape
            if layer.scale:
                layer.gamma.assign(rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape))
            if layer.center:
                layer.beta.assign(rng.normal(size=shape))
            layer.moving_mean.assign(rng.normal(size=shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, shape))
        elif getattr(layer, "use_bias", False) and layer.built:
            layer.bias.assign(rng.normal(size=layer.bias.shape))
    return model


def draw_input(model, seed=1):
    rng = np.random.default_rng(seed)
    draws = [rng.normal(size=(3, *(side or 8 for side in x.shape[1:]))).astype(np.float32) for x in model.inputs]
    return draws[0] if len(draws) == 1 else draws


def measure(model, folded, x):
    """The largest difference as a share of the scale, over all outputs."""
    wanted, found = (keras.tree.flatten(m(x, training=False)) for m in (model, folded))
    assert len(wanted) == len(found)
    assert all(np.isfinite(np.asarray(y)).all() and np.ptp(np.asarray(y)) > 0 for y in wanted)
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(wanted, found, strict=True))


def names_of(model, kind=layers.BatchNormalization):
    return [layer.name for layer in model._flatten_layers() if isinstance(layer, kind)]


def make_network(body, *shapes):
    """`body` of one input or more as a functional model."""
    inputs = [keras.Input(shape) for shape in shapes or [(8, 8, 3)]]
    return keras.Model(inputs[0] if len(inputs) == 1 else inputs, body(*inputs))


def make_conv(x, filters=4, **options):
    return layers.Conv2D(filters, 3, **{"padding": "same", **options})(x)


def make_bn(x, **options):
    return layers.BatchNormalization(**options)(x)
