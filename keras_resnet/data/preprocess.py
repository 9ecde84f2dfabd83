"""Decode, resize with pad, normalize: the same graph in training, prediction and serving."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.errors import InputError
from keras_resnet.inputs import Preprocessing

MAX_PIXELS = 64_000_000  # of an encoded image: what it takes in memory when decoded is three times as many bytes

# Enlarging by matrix products: from this many times the area on, by one channel and by several, they are faster than
# `tf.image.resize` (measured from 28 to 32 pixels and from 32 to 96; those for several channels multiply zeros too).
_PRODUCT_ENLARGEMENT, _PRODUCT_ENLARGEMENT_COLOUR = 1.0, 6.0
_PRODUCT_VALUES = 2**22  # of the larger matrix, at most: 16 MiB
# From this many times the height on, new rows are made in bands (measured: 1.2 times as fast from 28 or 32 to 224 pixels,
# 1.07 times from 28 to 64, no gain from 28 to 32).
_BAND_ENLARGEMENT = 2

_PNG_START, _JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


def decode(encoded: Any, channels: int, *, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """`uint8 pixels` of one PNG or JPEG: a scalar string to (height, width, channels).

    Colour becomes gray where `channels` is 1 and gray becomes colour where it is 3; an alpha channel is dropped.

    Args:
        encoded: the bytes of the file.
        channels: 1 or 3.
        max_pixels: height times width above which an image is refused.

    Raises:
        tf.errors.InvalidArgumentError: not a PNG or JPEG (a GIF would lose all pictures but one), a JPEG in CMYK, whose
            colours TensorFlow can only guess, too large, or broken.
    """
    contents = check_encoded(encoded, max_pixels=max_pixels)
    return tf.io.decode_image(contents, channels=channels, dtype=tf.uint8, expand_animations=False)


def is_jpeg(encoded: Any) -> tf.Tensor:
    """Tells whether the bytes of a file begin as a JPEG's."""
    return tf.equal(tf.strings.substr(encoded, 0, len(_JPEG_START)), _JPEG_START)


def check_encoded(encoded: Any, *, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Returns the same bytes, once their first bytes and header are found to be of an image that `decode` takes.

    Raises:
        tf.errors.InvalidArgumentError: they are not, as `decode`.
    """
    jpeg = is_jpeg(encoded)
    png = tf.equal(tf.strings.substr(encoded, 0, len(_PNG_START)), _PNG_START)
    known = tf.debugging.Assert(jpeg | png, ["An image must be a PNG or JPEG. Received bytes of neither."])
    with tf.control_dependencies([] if known is None else [known]):  # None outside a graph
        return check_shape(encoded, read_shape(encoded), max_pixels=max_pixels)  # before anything is decoded


def check_shape(encoded: Any, shape: Any, *, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Returns the same bytes, once the image's shape is found to be one that `decode` takes.

    Args:
        encoded: the bytes of a PNG or JPEG.
        shape: its (height, width, components). On int32 an `Assert` is one operation, on int64 a branch.
        max_pixels: height times width above which an image is refused.

    Raises:
        tf.errors.InvalidArgumentError: too large, or a JPEG in CMYK.
    """
    height, width, components = tf.unstack(shape)
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    checks = (
        tf.debugging.Assert(components <= 3, ["A JPEG must be in gray or RGB colours. Received: CMYK."]),
        tf.debugging.Assert(
            pixels <= max_pixels,
            [f"An image must have at most {max_pixels:,} pixels. Received, height and width:", height, width],
        ),
    )
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tf.identity(encoded)


def read_shape(encoded: Any) -> tf.Tensor:
    """Reads (height, width, components), int64, from the header of a PNG or JPEG; for other bytes it is meaningless.

    Of a PNG, components are 1, whatever it has.
    """
    return tf.cond(
        is_jpeg(encoded),
        lambda: tf.cast(tf.image.extract_jpeg_shape(encoded), tf.int64),
        lambda: _png_shape(encoded),
    )


def _png_shape(encoded: Any) -> tf.Tensor:
    """Reads (height, width, 1), int64, from where a PNG has them; for other bytes it is meaningless."""
    start = tf.strings.join([tf.strings.substr(encoded, 0, 24), b"\0" * 24])  # bytes that end too early get zeros
    numbers = tf.cast(tf.io.decode_raw(tf.strings.substr(start, 16, 8), tf.uint8), tf.int64)
    width, height = tf.unstack(tf.reduce_sum(tf.reshape(numbers, (2, 4)) * [1 << 24, 1 << 16, 1 << 8, 1], axis=1))
    return tf.stack([height, width, tf.constant(1, tf.int64)])


def fitted_size(sides: Any, targets: Any) -> tuple[Any, Any]:
    """`max(1, floor(sides * min(targets / sides)))`, and how many pixels go in front of each side to centre it.

    In integers, for (height, width) as a NumPy array or an int64 tensor: `tf.image.resize_with_pad` divides in float32 and
    loses a pixel where the quotient falls just below an integer (32 to 224 comes out as 223 and a black line). On vectors,
    because at batch 1 a small network's time is that of the operations around it.
    """
    xp = tf if tf.is_tensor(sides) else np
    # Not sides[::-1], whose shape TensorFlow's graph optimizer cannot infer: it would leave the whole graph unfused.
    others, scaled = tf.reverse(sides, [0]) if xp is tf else sides[::-1], sides * targets[::-1]
    # The scaled side, where the other one decides the scale; else this is at least the target.
    new = xp.minimum(targets, xp.maximum(scaled // others, 1))
    return new, xp.maximum((targets * others - scaled) // (2 * others), 0)


def resize_with_pad(images: Any, height: int, width: int) -> tf.Tensor:
    """`pad(bilinear(images))`: scales to the largest size that fits, keeps the shape, centres it on zeros.

    Equal to `tf.image.resize_with_pad`, except where that loses a pixel to float rounding (see `fitted_size`).

    Args:
        images: (height, width, channels) or (batch, height, width, channels), any real type, any size.
        height: of the result, in pixels.
        width: of the result, in pixels.

    Returns:
        float32 of the same rank, in the units of the input.
    """
    if height < 1 or width < 1:
        raise InputError(
            f"resize_with_pad needs a height and a width of at least 1 pixel. Received: {height}, {width}."
        )
    images = tf.convert_to_tensor(images)
    if images.shape.rank not in (3, 4):
        raise InputError(
            "resize_with_pad takes (height, width, channels) or (batch, height, width, channels). "
            f"Received: shape {tuple(images.shape)}."
        )
    spatial = images.shape[-3:-1]
    is_known = spatial.is_fully_defined()
    if is_known:
        if 0 in spatial:
            raise InputError(
                f"resize_with_pad needs images of at least 1x1 pixel. Received: shape {tuple(images.shape)}."
            )
        if tuple(spatial) == (height, width):
            return tf.cast(images, tf.float32)
    sides = np.array(spatial, np.int64) if is_known else tf.shape(images, out_type=tf.int64)[-3:-1]
    targets = np.array([height, width], np.int64)
    new, before = fitted_size(sides, targets)
    resized = tf.image.resize(images, tf.cast(new, tf.int32), method="bilinear")
    margins = tf.stack([before, targets - new - before], axis=1)
    padded = tf.pad(tf.cast(resized, tf.float32), tf.pad(margins, [[images.shape.rank - 3, 1], [0, 0]]))
    return tf.ensure_shape(padded, [*images.shape[:-3], height, width, images.shape[-1]])


def normalize(images: Any, preprocessing: Preprocessing) -> tf.Tensor:
    """`(images / 255 - mean) / std` per channel, float32: (..., channels) of pixel values 0-255 to the same shape."""
    # One multiply-add per value: the constants are folded in float64.
    scale, offset = tf.constant(preprocessing.scale, tf.float32), tf.constant(preprocessing.offset, tf.float32)
    return tf.cast(images, tf.float32) * scale + offset


def normalize_lines(image: Any, preprocessing: Preprocessing) -> tf.Tensor:
    """`normalize(image)` of one float32 (height, width, channels), static: the same numbers, twice as fast.

    Works on whole lines: to spread constants over a last axis of three takes as long as two more passes.
    """
    height, width, channels = image.shape
    scale, offset = (np.tile(values, width) for values in (preprocessing.scale, preprocessing.offset))
    lines = tf.reshape(image, (height, width * channels))
    lines = lines * tf.constant(scale, tf.float32) + tf.constant(offset, tf.float32)
    return tf.reshape(lines, (height, width, channels))


def preprocess(images: Any, preprocessing: Preprocessing) -> tf.Tensor:
    """`normalize(resize_with_pad(images))`: one image or a batch of pixels 0-255 to the network's input.

    Batches of one static size that are enlarged go through two matrix products, which do all of it at once: the same
    values up to float32 rounding (at most 4e-5 of 255 for pixels).
    """
    images = tf.convert_to_tensor(images)
    height, width = preprocessing.image_size_pixels
    if (
        images.shape.rank == 4
        and images.shape[-1] == preprocessing.channels
        and enlarges_by_products(images.shape[1:], height, width)
    ):
        return _apply_products(images, *make_products(images.shape[1:], preprocessing))
    return normalize(resize_with_pad(images, height, width), preprocessing)


def enlarges_by_products(shape: Any, height: int, width: int) -> bool:
    """Tells whether images of this static (height, width, channels) are resized by two matrix products."""
    if None in tuple(shape) or 0 in tuple(shape):
        return False
    old_height, old_width, channels = shape
    (new_height, new_width), _ = fitted_size(np.array([old_height, old_width]), np.array([height, width]))
    old_area, new_area = old_height * old_width, new_height * new_width
    least = _PRODUCT_ENLARGEMENT if channels == 1 else _PRODUCT_ENLARGEMENT_COLOUR
    return (
        new_height >= old_height
        and new_width >= old_width
        and new_area > old_area
        and new_area >= least * old_area
        and old_width * width * channels**2 <= _PRODUCT_VALUES
    )


def make_products(shape: Any, preprocessing: Preprocessing) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`(indices, rows, columns, offset)`: `preprocess(image) = rows @ (image[indices] @ columns + offset)`.

    For enlargements of `shape`. The new rows are made in bands, each from those of the image that it needs: few of a
    large enlargement's weights are not zero. Weights of a row sum to 1, so that the offset, like the scale, goes where
    the image is small.

    Args:
        shape: (height, width, channels) of the stored images.
        preprocessing: size and normalization of the network's input.

    Returns:
        int32 (bands, k), rows of the image, `height` for a black one beneath it, which padding is made of;
        float32 (bands, new height / bands, k), bilinear weights; (width * channels, new width * channels), the same
        with the scale of each channel and zeros as padding; (new width * channels,).
    """
    (old_height, old_width, _), (height, width) = shape, preprocessing.image_size_pixels
    new, before = fitted_size(np.array([old_height, old_width]), np.array([height, width]))
    (new_height, new_width), (top, left) = new.tolist(), before.tolist()
    weights = np.zeros((height, old_height + 1), np.float32)
    weights[top : top + new_height, :-1] = _bilinear(old_height, new_height)
    weights[:top, -1] = weights[top + new_height :, -1] = 1.0
    bands = 1
    if new_height >= _BAND_ENLARGEMENT * old_height:
        bands = next((number for number in (2, 3) if height % number == 0), 1)
    used = [np.flatnonzero(band.any(axis=0)) for band in np.split(weights, bands)]
    indices = np.zeros((bands, max(map(len, used))), np.int32)
    rows = np.zeros((bands, height // bands, indices.shape[1]), np.float32)
    for number, (band, own) in enumerate(zip(np.split(weights, bands), used, strict=True)):
        indices[number, : len(own)] = own
        rows[number, :, : len(own)] = band[:, own]
    columns = np.zeros((old_width, width))
    columns[:, left : left + new_width] = _bilinear(old_width, new_width).T
    # Channels lie innermost: a matrix that treats each alike spares two transpositions of the batch.
    columns = np.kron(columns, np.diag(preprocessing.scale)).astype(np.float32)
    return indices, rows, columns, np.tile(preprocessing.offset, width).astype(np.float32)


def bilinear_taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(lower, upper, fraction)` of each new pixel, by the float32 arithmetic of TensorFlow's bilinear resize.

    int32, int32, float32 (new,): the pixel is `(1 - fraction) * x[lower] + fraction * x[upper]`.
    """
    half = np.float32(0.5)
    positions = (np.arange(new, dtype=np.float32) + half) * (np.float32(old) / np.float32(new)) - half
    floor = np.floor(positions)
    lower, upper = np.maximum(floor, 0), np.minimum(np.ceil(positions), old - 1)
    return lower.astype(np.int32), upper.astype(np.int32), positions - floor


def _bilinear(old: int, new: int) -> np.ndarray:
    """Returns the weights of `bilinear_taps` as a matrix, float32 (new, old)."""
    lower, upper, fraction = bilinear_taps(old, new)
    weights, index = np.zeros((new, old), np.float32), np.arange(new)
    np.add.at(weights, (index, lower), np.float32(1) - fraction)
    np.add.at(weights, (index, upper), fraction)
    return weights


def _apply_products(
    images: tf.Tensor, indices: np.ndarray, rows: np.ndarray, columns: np.ndarray, offset: np.ndarray
) -> tf.Tensor:
    """`rows @ (images[indices] @ columns + offset)`, as `make_products` has them, in bands of rows."""
    old_height, channels = images.shape[1], images.shape[-1]
    (bands, height, taken), width = rows.shape, len(offset) // channels
    if old_height in indices:
        images = tf.pad(images, [[0, 0], [0, 1], [0, 0], [0, 0]])
    order = indices.reshape(-1)
    if not np.array_equal(order, np.arange(images.shape[1])):  # while images are small
        images = tf.gather(images, order, axis=1)
    x = tf.reshape(tf.cast(images, tf.float32), (-1, len(columns)))
    x = tf.reshape(tf.nn.bias_add(tf.matmul(x, columns), offset), (-1, bands, taken, len(offset)))
    x = tf.reshape(tf.matmul(tf.constant(rows), x), (-1, bands * height, width, channels))
    return tf.ensure_shape(x, [images.shape[0], bands * height, width, channels])
