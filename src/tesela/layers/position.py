"""Position embeddings at the input: learnable in raster order, fixed 2-D sine and cosine, or none (a bag of patches).

A learned table belongs to one grid; for any other grid its patch part is interpolated in two dimensions at run time
(paper, section 3.2), bicubic without aligned corners as transformers and timm do it. Prefix positions stay as they are.

Odd: sine and cosine (Vaswani et al. 2017, per axis as in MAE and big_vision) are computed for the grid at hand and never
interpolated. A new variant is a class with ``forward(tokens, grid)`` and a row in ``make_positions``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tesela.layers.grid import Grid


class NoPositions(nn.Module):
    """Leaves the tokens as they are."""

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:  # noqa: ARG002
        """The tokens."""
        return tokens


class LearnedPositions(nn.Module):
    """A table with one row per position.

    Args:
        grid: the grid the table belongs to.
        width: D.
        prefix: number of prefix tokens that have positions too; their rows come first.
        mode: ``bicubic`` or ``bilinear``, for other grids.
        deviation: of the normal start values.
    """

    def __init__(self, grid: Grid, width: int, *, prefix: int, mode: str = "bicubic", deviation: float = 0.02) -> None:
        super().__init__()
        self.grid = grid
        self.prefix = prefix
        self.mode = mode
        self.deviation = deviation
        self.table = nn.Parameter(torch.empty(1, prefix + grid[0] * grid[1], width))

    def reset(self, generator: Generator | None = None) -> None:
        """Normal with the given deviation."""
        nn.init.normal_(self.table, std=self.deviation, generator=generator)

    def at(self, grid: Grid) -> Tensor:
        """The table (1, prefix + n, D) for a grid."""
        if grid == self.grid:
            return self.table
        return interpolate_positions(self.table, self.grid, grid, prefix=self.prefix, mode=self.mode)

    def move_to(self, grid: Grid) -> None:
        """Make the interpolated table of another grid the table."""
        self.table = nn.Parameter(self.at(grid).detach().clone(), requires_grad=self.table.requires_grad)
        self.grid = grid

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Tokens (B, N, D) plus the table; where the prefix has no positions, only its patches."""
        table = self.at(grid)
        bare = tokens.shape[1] - table.shape[1]
        return tokens + (F.pad(table, (0, 0, bare, 0)) if bare else table)


class SinCosPositions(nn.Module):
    """Fixed: half of the width tells the column, half the row, each as sines then cosines.

    Args:
        width: D, a multiple of four.
        temperature: the longest wavelength is 2 pi times this.
    """

    def __init__(self, width: int, *, temperature: float = 10_000.0) -> None:
        super().__init__()
        self.width = width
        self.temperature = temperature

    def at(self, grid: Grid, *, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The table (1, n, D) for a grid."""
        quarter = self.width // 4
        omega = self.temperature ** -(torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
        row, column = (torch.arange(side, device=device, dtype=torch.float32)[:, None] * omega for side in grid)
        down = torch.cat([row.sin(), row.cos()], dim=1)[:, None].expand(-1, grid[1], -1)
        right = torch.cat([column.sin(), column.cos()], dim=1)[None].expand(grid[0], -1, -1)
        return torch.cat([right, down], dim=2).flatten(0, 1)[None].to(dtype)

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Tokens (B, N, D) plus the table; a prefix gets zeros."""
        table = self.at(grid, device=tokens.device, dtype=tokens.dtype)
        return tokens + F.pad(table, (0, 0, tokens.shape[1] - table.shape[1], 0))


def make_positions(name: str, *, grid: Grid, width: int, prefix: int, mode: str = "bicubic") -> nn.Module:
    """The variant of that name: ``none``, ``learned`` or ``sincos2d``."""
    if name == "learned":
        return LearnedPositions(grid, width, prefix=prefix, mode=mode)
    return SinCosPositions(width) if name == "sincos2d" else NoPositions()


def interpolate_positions(table: Tensor, old: Grid, new: Grid, *, prefix: int, mode: str = "bicubic") -> Tensor:
    """A table (1, prefix + n, D) of one grid for another; the prefix rows stay.

    The result has the table's precision; the interpolation itself runs in float32 or wider.
    """
    wide = table if table.dtype == torch.float64 else table.float()
    image = wide[:, prefix:].transpose(1, 2).reshape(1, -1, *old)
    patches = F.interpolate(image, size=new, mode=mode, align_corners=False).flatten(2).transpose(1, 2)
    return torch.cat([wide[:, :prefix], patches], dim=1).to(table.dtype)
