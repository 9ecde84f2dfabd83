"""Small made-up data for the `--smoke` mode of the examples: images whose brightness tells the class."""

import tempfile
from pathlib import Path

import numpy as np


def make_smoke_data(height: int, width: int, channels: int, classes: int = 10, per_class: int = 8) -> Path:
    """Writes an .npz of noisy gray levels to a temporary folder and returns its path."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(classes), per_class)
    levels = 255 * (labels + 0.5) / classes
    images = levels[:, None, None, None] + rng.normal(0, 5, (len(labels), height, width, channels))
    path = Path(tempfile.mkdtemp(prefix="keras_resnet_smoke_")) / "smoke.npz"
    np.savez(path, images=np.clip(images, 0, 255).astype(np.uint8), labels=labels)
    return path
