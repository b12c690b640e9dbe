"""Mean attention distance, and attention of the class token (paper, figure 7, section 4.5).

The mean distance of a head is that between each patch and the patches it attends to, weighted by attention,
in pixels of the model's view. Attention on prefix tokens is left out and the rest of a row brought to sum 1,
so that uniform attention gives the mean distance of all pairs and the identity gives 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tesela.attribution.capture.rows import attention_rows
from tesela.layers.grid import Grid
from tesela.layers.trace import AttentionRecord

ROWS = 256


def pairwise(grid: Grid, pitch: tuple[float, float]) -> Tensor:
    """Distances (n, n) between the centres of patches ``pitch`` (down, right) pixels apart."""
    row = torch.arange(grid[0], dtype=torch.float64) * pitch[0]
    column = torch.arange(grid[1], dtype=torch.float64) * pitch[1]
    places = torch.cartesian_prod(row, column)
    return (places[:, None] - places[None]).square().sum(-1).sqrt()


def attention_distance(
    layers: Sequence[AttentionRecord], grid: Grid, prefix: int, *, pitch: tuple[float, float]
) -> Tensor:
    """Mean attention distance (L, heads) in pixels, over queries and images.

    A query that sees no patch is left out.
    """
    apart = pairwise(grid, pitch)
    result = []
    for layer in layers:
        rows = attention_rows(layer)
        total, count = (
            torch.zeros(layer.q.shape[1], dtype=torch.float64),
            torch.zeros(layer.q.shape[1], dtype=torch.float64),
        )
        for begin in range(prefix, prefix + len(apart), ROWS):
            end = min(begin + ROWS, prefix + len(apart))
            part = rows(begin, end)[..., prefix:].double().cpu()
            mass = part.sum(-1)
            reach = (part * apart[begin - prefix : end - prefix]).sum(-1) / mass.masked_fill(mass == 0, 1.0)
            total += reach.sum((0, 2))
            count += (mass > 0).sum((0, 2))
        result.append(total / count.clamp(min=1))
    return torch.stack(result).float()


def token_rows(layers: Sequence[AttentionRecord], queries: Sequence[int], prefix: int) -> Tensor:
    """Attention of some queries to all patches as it is, (B, L, heads, queries, n)."""
    found = []
    for layer in layers:
        rows = attention_rows(layer)
        found.append(
            torch.cat([rows(query, query + 1)[..., prefix:] for query in queries], dim=2).float().cpu()
        )
    return torch.stack(found, dim=1)
