"""A mean of tokens that a head reads, as it was computed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Pooled:
    """A mean of tokens and its result in the graph of the logits.

    Attributes:
        tokens: (B, n, D), the last n tokens of the sequence.
        result: (B, D), or more numbers whose last D are the mean, as where a class token stands before it.
        weights: (B, n), their shares; all alike if None.
    """

    tokens: Tensor
    result: Tensor
    weights: Tensor | None = None
