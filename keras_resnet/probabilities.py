"""Logits to probabilities in float64, once for everything that happens outside a graph."""

from __future__ import annotations

from typing import Any

import numpy as np


def log_softmax(logits: Any) -> np.ndarray:
    """`logits - log(sum(exp(logits)))` over the last axis, float64, without overflow."""
    values = np.asarray(logits, np.float64)
    shifted = values - values.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def softmax(logits: Any) -> np.ndarray:
    """`exp(logits) / sum(exp(logits))` over the last axis, float64, without overflow."""
    values = np.asarray(logits, np.float64)
    exponentials = np.exp(values - values.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)
