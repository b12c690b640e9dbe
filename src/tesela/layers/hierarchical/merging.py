"""Patch merging (arXiv 2103.14030, section 3.1): each 2 x 2 tokens become one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tesela.layers.attention.cpu_bf16 import Dense
from tesela.layers.grid import Grid
from tesela.layers.hierarchical.swin_plan import MERGED
from tesela.layers.initialise import xavier_uniform_


class PatchMerging(nn.Module):
    """Tokens (B, N, C) on a grid to (B, N', D) on one of half the rows and columns; an odd grid is padded.

    The four neighbours stand side by side, down before right, then LayerNorm and a dense layer without bias.

    Args:
        before: C.
        after: D.
        norm_eps: epsilon of the LayerNorm.
    """

    def __init__(self, before: int, after: int, *, norm_eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(MERGED * before, eps=norm_eps)
        self.reduction = Dense(MERGED * before, after, bias=False)

    def reset(self, generator: Generator | None = None) -> None:
        """Xavier uniform."""
        xavier_uniform_(self.reduction, generator=generator)

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """The merged tokens, in raster order."""
        maps = torch.unflatten(tokens, 1, grid)
        if grid[0] % 2 or grid[1] % 2:
            maps = F.pad(maps, (0, 0, 0, grid[1] % 2, 0, grid[0] % 2))
        parts = torch.unflatten(torch.unflatten(maps, 2, (-1, 2)), 1, (-1, 2))  # (B, r, 2, c, 2, C)
        merged: Tensor = self.reduction(self.norm(parts.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)))
        return merged

    def as_convolution(self) -> Tensor:
        """(D, C, 2, 2), the weights of the convolution that the merging is but for the norm's statistics."""
        weight = self.reduction.weight * self.norm.weight
        return torch.unflatten(weight, 1, (2, 2, -1)).permute(0, 3, 2, 1)
