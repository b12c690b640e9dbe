"""Position similarity (paper, figure 7 middle), or the logits' dependence on offsets.

Similarity is the cosine of every patch's embedding with every other, prefix tokens left out. Rotary and
relative positions have no table, and some models have none at all. For those there is the position kernel: on
a blank image all patches look alike, so that the rest of the attention logits, after each query's mean is
taken away (the softmax does not see it), is position alone. It is averaged over all queries by the key's
offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tesela.layers.grid import Grid
from tesela.layers.position.embedding import AddedPositions
from tesela.layers.trace import AttentionRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Positions:
    """Positions of a model.

    Attributes:
        kind: how the model tells positions apart, as its configuration calls it.
        similarity: (tables, Hp, Wp, Hp, Wp), one table for the model or one for each block; None where there
            is no table.
        kernel: (L, 2 Hp - 1, 2 Wp - 1), mean centred logit by offset of the key from the query; None where
            there is a table.
    """

    kind: str
    similarity: Tensor | None
    kernel: Tensor | None


def position_tables(model: nn.Module, grid: Grid) -> list[Tensor]:
    """The position tables of the patches, (n, D) each, as they are read on ``grid``."""
    found = []
    for module in model.modules():
        if isinstance(module, AddedPositions):
            parameter = next(model.parameters())
            tokens = parameter.new_zeros(1, grid[0] * grid[1], getattr(module, "width", 1))
            with torch.no_grad():
                table, prefix = module.table_like(tokens, grid)
            found.append(table[0, prefix:].detach().float().cpu())
    return found


def similarity(table: Tensor, grid: Grid) -> Tensor:
    """Cosine of each row of (n, D) with each other, (Hp, Wp, Hp, Wp); 0 beside a row of zeros."""
    rows = F.normalize(table.double(), dim=1)
    return (rows @ rows.T).reshape(*grid, *grid).float()


def position_kernel(layers: Sequence[AttentionRecord], grid: Grid, prefix: int) -> Tensor:
    """Mean centred logit by offset, (L, 2 Hp - 1, 2 Wp - 1), over images, heads and queries.

    NaN where no query sees the offset.
    """
    rows, columns = grid
    patches = torch.arange(rows * columns)
    down = patches[None] // columns - patches[:, None] // columns + rows - 1
    right = patches[None] % columns - patches[:, None] % columns + columns - 1
    place = (down * (2 * columns - 1) + right).flatten()
    kernels = []
    for layer in layers:
        logits = _logits(layer)[:, :, prefix:, prefix:].cpu()
        seen = logits.isfinite()
        known = logits.masked_fill(~seen, 0.0)
        centred = known - known.sum(-1, keepdim=True) / seen.sum(-1, keepdim=True).clamp(min=1)
        total, times = (
            torch.zeros((2 * rows - 1) * (2 * columns - 1), dtype=torch.float64) for _ in range(2)
        )
        total.index_add_(0, place, (centred * seen).sum((0, 1)).flatten().double())
        times.index_add_(0, place, seen.sum((0, 1)).flatten().double())
        kernels.append(
            torch.where(times > 0, total / times.clamp(min=1), torch.nan).reshape(
                2 * rows - 1, 2 * columns - 1
            )
        )
    return torch.stack(kernels).float()


def _logits(layer: AttentionRecord) -> Tensor:
    logits = (layer.q.detach().float() * layer.scale) @ layer.k.detach().float().transpose(-2, -1)
    if layer.bias is None:
        return logits
    bias = layer.bias.detach()
    return logits.masked_fill(~bias, -torch.inf) if bias.dtype == torch.bool else logits + bias


def kind_of(model: nn.Module) -> str:
    """What the model's configuration says about positions."""
    config: Any = getattr(model, "config", None)
    return str(getattr(config, "position", "none"))
