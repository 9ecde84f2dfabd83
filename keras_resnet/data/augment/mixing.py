"""Two images become one, and two labels with them: mixup and cutmix; labels that are a weight for each class."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_resnet.data.augment.erase import centred_boxes, erase


def smooth(labels: Any, smoothing: float) -> tf.Tensor:
    """`(1 - smoothing) * label + smoothing / classes`: float32 (batch, classes) that sum to 1 to the same.

    Szegedy et al. 2016, Rethinking the Inception Architecture, section 7; as Keras' losses do it.
    """
    labels = tf.convert_to_tensor(labels, tf.float32)
    if not smoothing:
        return labels
    return labels * (1.0 - smoothing) + smoothing / labels.shape[-1]


def random_mix(
    images: Any, labels: Any, mixup_alpha: float, cutmix_alpha: float, seed: Any
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixup or cutmix of each image and label with another of the batch; with both, each for half of the images.

    The other image is the one a random number of places further on in the batch, never the image itself unless it
    is alone.

    Args:
        images: (batch, height, width, channels) pixels.
        labels: float32 (batch, classes).
        mixup_alpha: of mixup, or 0.
        cutmix_alpha: of cutmix, or 0.
        seed: int64 (2,).

    Returns:
        Images, float32 with mixup and of the same type without, and labels.
    """
    images, labels = tf.convert_to_tensor(images), tf.convert_to_tensor(labels, tf.float32)
    batch = tf.shape(images)[0]
    distance, of_mixup, of_cutmix, box, coin = tf.unstack(tf.random.split(seed, 5))
    # A permutation without fixed points, the same chance for all other images.
    distance = tf.random.stateless_uniform([], distance, 1, tf.maximum(batch, 2), tf.int32)
    others, other_labels = tf.roll(images, distance, 0), tf.roll(labels, distance, 0)
    if not cutmix_alpha:
        weights = draw_beta([batch], of_mixup, mixup_alpha)
        return mix(images, others, weights), mix(labels, other_labels, weights)
    boxes = cut_boxes(images, draw_beta([batch], of_cutmix, cutmix_alpha), box)
    weights = tf.ones([batch])
    if mixup_alpha:
        mixed = tf.random.stateless_uniform([batch], coin) < 0.5
        boxes = tf.where(mixed[:, None], 0, boxes)
        weights = tf.where(mixed, draw_beta([batch], of_mixup, mixup_alpha), 1.0)
        images = mix(images, others, weights)
        others = tf.cast(others, tf.float32)
    images = erase(images, boxes, others)
    return images, mix(labels, other_labels, weights * kept_share(images, boxes))


def mix(first: Any, second: Any, weights: tf.Tensor) -> tf.Tensor:
    """`weight * first + (1 - weight) * second` for each image: float32.

    Zhang et al. 2018, mixup: Beyond empirical risk minimization.
    """
    first, second = tf.cast(first, tf.float32), tf.cast(second, tf.float32)
    weights = tf.reshape(weights, [-1] + [1] * (first.shape.rank - 1))
    return second + weights * (first - second)


def cut_boxes(images: tf.Tensor, weights: tf.Tensor, seed: Any) -> tf.Tensor:
    """Boxes of the share `1 - weight` of the area and the image's proportions, cut at the border.

    Yun et al. 2019, CutMix, equation 2.
    """
    height, width = images.shape[1:3]
    side = tf.sqrt(1.0 - weights)
    rows, columns = (tf.cast(side * length, tf.int32) for length in (height, width))
    return centred_boxes(images, rows, columns, seed)


def kept_share(images: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """`1 - box area / image area`, float32 (batch,): what of an image is outside of its box."""
    height, width = images.shape[1:3]
    top, bottom, left, right = tf.unstack(boxes, axis=1)
    return 1.0 - tf.cast((bottom - top) * (right - left), tf.float32) / float(height * width)


def draw_beta(shape: Any, seed: Any, alpha: float) -> tf.Tensor:
    """Draws from Beta(alpha, alpha): float32 from 0 to 1, for any alpha above 0."""
    seeds = tf.unstack(tf.random.split(seed, 4))

    def log_gamma(gamma_seed: tf.Tensor, uniform_seed: tf.Tensor) -> tf.Tensor:
        # Gamma(a) = Gamma(a + 1) * U^(1/a): for a small alpha a draw is below all floats, its logarithm is not.
        grown = tf.random.stateless_gamma(shape, gamma_seed, alpha + 1.0, dtype=tf.float32)
        uniform = 1.0 - tf.random.stateless_uniform(shape, uniform_seed)  # above 0
        return tf.math.log(grown) + tf.math.log(uniform) / alpha

    return tf.sigmoid(log_gamma(seeds[0], seeds[1]) - log_gamma(seeds[2], seeds[3]))
