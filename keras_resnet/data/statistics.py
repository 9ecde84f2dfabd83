"""`compute_preprocessing`: the network's input size, and mean and std of each channel, measured or a preset."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_resnet.data.encoded import check_decodable
from keras_resnet.data.preprocess import decode
from keras_resnet.data.splits import ImageData, Split
from keras_resnet.data.stores import EncodedStore
from keras_resnet.errors import InputError
from keras_resnet.inputs import NORMALIZATIONS, Preprocessing
from keras_resnet.records import check_choice

_STATISTICS_SAMPLE = 1000  # encoded images that are decoded to estimate mean and std

# Mean and std per channel, of pixel / 255.
PRESETS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    # torchvision's pretrained weights (references/classification/presets.py), and most others'
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # over all pixels of the 50,000 training images, as most published CIFAR code has them
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    # over all pixels of the 60,000 training images (pytorch/examples, mnist/main.py); a test measures them
    "mnist": ((0.1307,), (0.3081,)),
}


def compute_preprocessing(
    data: ImageData, split: Split, image_size_pixels: tuple[int, int] | None = None, *, normalize: str = "dataset"
) -> Preprocessing:
    """Chooses the input size, and the mean and std of each channel.

    The size is the images' own where they all have the same, up to 224 pixels, otherwise 224x224. Statistics of the
    data set are exact for arrays; for files they are estimated on up to 1,000 of them.

    Args:
        data: for its channels and sizes.
        split: the training images.
        image_size_pixels: (height, width) of the network's input, instead of the default.
        normalize: "dataset" measures on the images of `split`; "imagenet", "cifar10" and "mnist" are the usual
            constants of these sets, as weights from elsewhere expect them.

    Raises:
        InputError: a size below 1, a preset for another number of channels, or a file that cannot be decoded (its
            path).
    """
    check_choice("normalize", normalize, NORMALIZATIONS)
    size = image_size_pixels or data.image_size_pixels
    if size is None or (image_size_pixels is None and max(size) > 224):
        size = (224, 224)
    if normalize == "dataset":
        mean, std = _measure(split, data.channels)
    else:
        mean, std = PRESETS[normalize]
        if len(mean) != data.channels:
            raise InputError(
                f"normalize={normalize!r} is for images of {len(mean)} channels. Received: {data.name}, which has "
                f"{data.channels}; take 'dataset'."
            )
    return Preprocessing((int(size[0]), int(size[1])), data.channels, mean, std)


def _measure(split: Split, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    levels = np.arange(256) / 255
    counts = np.zeros((channels, 256))
    for pixels in _pixel_chunks(split, channels):
        for channel in range(channels):
            counts[channel] += np.bincount(pixels[..., channel].ravel(), minlength=256)
    weights = counts / counts.sum(1, keepdims=True)
    mean = weights @ levels
    variance = weights @ levels**2 - mean**2
    # A constant channel has no spread to divide by.
    std = np.where(variance > 1e-8, np.sqrt(np.maximum(variance, 1e-8)), 1.0)
    return tuple(round(float(value), 6) for value in mean), tuple(round(float(value), 6) for value in std)


def _pixel_chunks(split: Split, channels: int) -> Iterator[np.ndarray]:
    """Yields uint8 pixels (..., channels): all of an array, those of a sample of encoded images."""
    store = split.store
    if not isinstance(store, EncodedStore):
        for start in range(0, len(split), 1024):
            yield store.images[start : start + 1024]
        return
    dataset = store.read_sample(_STATISTICS_SAMPLE)
    try:
        yield from dataset.map(lambda image: decode(image, channels), tf.data.AUTOTUNE).as_numpy_iterator()
    except tf.errors.OpError:
        for part in (store.sample(_STATISTICS_SAMPLE), store):  # the sample first, which is quicker
            check_decodable(Split(part, split.labels[: len(part)]))
        raise
