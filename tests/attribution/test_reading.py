"""How a head's reading is found by gradients, on heads whose reading is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tesela.attribution.capture.reading import reading
from tesela.layers.trace import AttentionRecord

N, D = 64, 4
HALF = [0.5, 0.0, *([0.5 / N] * N)]
EVEN = [1 / (N + 2)] * (N + 2)
READS: dict[str, tuple[Callable[[Tensor], Tensor], list[float]]] = {
    "class token": (lambda tokens: tokens[:, 0], [1.0, 0.0, *([0.0] * N)]),
    "both prefix tokens": (lambda tokens: tokens[:, :2].mean(1), [0.5, 0.5, *([0.0] * N)]),
    "mean of the patches": (lambda tokens: tokens[:, 2:].mean(1), [0.0, 0.0, *([1 / N] * N)]),
    "class token and mean, side by side": (
        lambda tokens: torch.cat([tokens[:, 0], tokens[:, 2:].mean(1)], 1),
        HALF,
    ),
    # parts of unequal size, whose weights still differ by more than the root of the number of patches
    "a small class token beside the mean": (
        lambda tokens: torch.cat([tokens[:, 0] * 0.15, tokens[:, 2:].mean(1)], 1),
        HALF,
    ),
    "mean of all tokens": (lambda tokens: tokens.mean(1), EVEN),
    # the class token a little heavier than one patch, far from the weight of a part of its own
    "weighted mean of all": (lambda tokens: tokens.mean(1) + tokens[:, 0] * (4 / (N + 2)), EVEN),
    "nothing": (lambda tokens: tokens.mean(1) * 0, []),
}


@pytest.mark.parametrize("name", READS)
def test_shares_are_those_of_the_head(name: str) -> None:
    """Two prefix tokens and 64 patches of random values, a random linear head."""
    read, expected = READS[name]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 1, N + 2, D, generator=generator).requires_grad_()
    pooled = read(tokens[:, 0])
    logits = pooled @ torch.randn(pooled.shape[1], 3, generator=generator)
    record = AttentionRecord(name="last", q=tokens, k=tokens, v=tokens, out=tokens, scale=1.0, bias=None)
    found = reading(record, logits, prefix=2)
    if not expected:
        assert found is None
    elif name == "both prefix tokens":
        assert found is not None and found[:2].tolist() == [0.5, 0.5]
    else:
        assert found is not None
        assert torch.allclose(found, torch.tensor(expected, dtype=found.dtype), atol=1e-6)
