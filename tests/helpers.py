"""What tests of several folders share: small images, the command line in this process, random weights."""

import sys
from pathlib import Path

import numpy as np

from keras_resnet import ResNetSpec

# Two blocks of a few filters, for every test that has to train: most of what a training takes is tracing its step. With
# fewer than 8 channels oneDNN's gradient of a strided 1x1 convolution writes outside of its memory in a process of one thread.
TINY = ResNetSpec("tiny", "basic", depths=(1, 1), filters=(8, 16), strides=(1, 2), stem="cifar", stem_filters=8)


def draw_images(number, height, width, channels, classes, seed=0):
    """Images of noise whose mean brightness tells the class, so that a network can learn them in a few steps."""
    rng = np.random.default_rng(seed)
    labels = np.arange(number) % classes
    base = 255 * (labels + 0.5) / classes
    noise = rng.normal(0, 12, (number, height, width, channels))
    return np.clip(base[:, None, None, None] + noise, 0, 255).astype(np.uint8), labels.astype(np.int64)


def write_folder(root, images, labels, names, suffix=".png"):
    """Writes images as files into one sub-folder per class."""
    from PIL import Image

    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = Path(root) / names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(folder / f"{index:04d}{suffix}")
    return Path(root)


def run_main(monkeypatch, capsys, *arguments):
    """Runs the console script in this process; returns (exit status, stdout, stderr)."""
    from keras_resnet import cli

    monkeypatch.setattr(sys, "argv", ["keras-resnet", *map(str, arguments)])
    try:
        cli.main()
        status = 0
    except SystemExit as stop:
        status = stop.code or 0
    out, err = capsys.readouterr()
    return status, out, err


def perturb_logits(monkeypatch, module):
    """Has `module`, of the export, fold a network with one weight of the last layer off by 1 %."""
    real = module.rewrite

    def perturb(model, **options):
        folded = real(model, **options)
        kernel, bias = folded.get_layer("head_logits").get_weights()
        kernel[0, 0] *= 1.01
        folded.get_layer("head_logits").set_weights([kernel, bias])
        return folded

    monkeypatch.setattr(module, "rewrite", perturb)


def randomise(model):
    """Every weight random, none at a 0 or 1 that would hide where it goes; activations keep their scale."""
    generator = np.random.default_rng(0)
    for layer in model.layers:
        for weight in layer.weights:
            if weight.name == "kernel":
                value = generator.normal(size=weight.shape) * (2 / np.prod(weight.shape[:-1])) ** 0.5
            elif weight.name == "moving_variance":
                value = generator.uniform(0.5, 1.5, weight.shape)
            elif weight.name == "gamma":
                value = generator.uniform(0.4, 0.8, weight.shape)
            else:
                value = generator.normal(size=weight.shape) * 0.2
            weight.assign(value)
