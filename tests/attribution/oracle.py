"""Attention rollout written once more, as directly as the definition.

NumPy, float64, whole matrices, loops over rows.

Slow and plain on purpose, and without a line of tesela: the tests compare ``tesela.attribution`` with it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(logits: Array) -> Array:
    """Softmax over the last axis."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    result: Array = shifted / shifted.sum(-1, keepdims=True)
    return result


def attention(q: Array, k: Array, scale: float) -> Array:
    """(heads, N, d) x (heads, N, d) -> (heads, N, N)."""
    return softmax(np.einsum("hid,hjd->hij", q, k) * scale)


def fused(heads: Array, how: str) -> Array:
    """(heads, N, N) -> (N, N)."""
    result: Array = heads.mean(axis=0)
    if how == "max":
        result = heads.max(axis=0)
    elif how == "min":
        result = heads.min(axis=0)
    return result


def discarded(matrix: Array, share: float, prefix: int) -> Array:
    """Row by row: sort the patch columns by (value, index) and clear the first
    floor(share * n), but not the diagonal."""
    result = matrix.copy()
    patches = matrix.shape[1] - prefix
    for row in range(matrix.shape[0]):
        order = prefix + np.argsort(matrix[row, prefix:], kind="stable")
        smallest = order[: math.floor(share * patches)]
        result[row, smallest[smallest != row]] = 0.0
    return result


def normalised(matrix: Array) -> Array:
    """Rows brought to sum 1; a row of zeros becomes the unit row."""
    result = np.eye(len(matrix))
    for row in range(len(matrix)):
        if matrix[row].sum() > 0:
            result[row] = matrix[row] / matrix[row].sum()
    return result


def mixing(
    heads: Array, *, how: str, share: float, residual: float, prefix: int, literature: bool = False
) -> Array:
    """W of one layer."""
    kept = discarded(fused(heads, how), share, prefix)
    identity = np.eye(len(kept))
    if literature:
        return normalised((1 - residual) * identity + residual * kept)
    return (1 - residual) * identity + residual * normalised(kept)


def product(matrices: list[Array]) -> Array:
    """W_L ... W_1 for W_1, ..., W_L: what each output token holds of each input token."""
    result = np.eye(len(matrices[0]))
    for matrix in matrices:
        result = matrix @ result
    return result


def rollout(layers: list[Array], start: Array, **options: Any) -> Array:
    """``start`` (N,) times the product of all layers' W.

    ``layers`` from first to last, each (heads, N, N).
    """
    result: Array = start @ product([mixing(heads, **options) for heads in layers])
    return result


def gradient_layer(attention: Array, gradient: Array) -> Array:
    """Mean over heads of relu(A * dy/dA), as one "head" that ``mixing`` takes with fusion "mean"."""
    result: Array = np.maximum(attention * gradient, 0.0).mean(0, keepdims=True)
    return result
