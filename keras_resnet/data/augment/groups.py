"""A batch whose images are of several kinds: each kind is treated as a batch of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf


def in_order(kind: tf.Tensor, function: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """`function(order)`, put back: `order` sorts the images by `kind`, and row k of the result is of image order[k]."""
    order = tf.argsort(kind)
    return tf.gather(function(order), tf.math.invert_permutation(order))


def by_kind(
    kind: tf.Tensor,
    functions: Sequence[Callable[..., tf.Tensor]],
    images: tf.Tensor,
    *arguments: tf.Tensor,
) -> tf.Tensor:
    """`functions[kind[i]](images[i], arguments[i])` for each image i, by one call per function.

    Args:
        kind: int32 (batch,).
        functions: each from (images, *arguments) of one kind, a batch of any size but 0, to images of the same shape.
        images: (batch, ...).
        arguments: (batch, ...), each.
    """
    kinds = len(functions)
    counts = tf.math.bincount(kind, minlength=kinds, maxlength=kinds)

    def treat(order: tf.Tensor) -> tf.Tensor:
        sorted_by_kind = [tf.split(tf.gather(values, order), counts, num=kinds) for values in (images, *arguments)]
        parts = []
        for function, *part in zip(functions, *sorted_by_kind, strict=True):
            # Not every kernel takes an empty batch.
            call = tf.cond(
                tf.size(part[1 if arguments else 0]) > 0, lambda f=function, p=part: f(*p), lambda p=part: p[0]
            )
            parts.append(call)
        return tf.concat(parts, 0)

    return tf.ensure_shape(in_order(kind, treat), images.shape)
