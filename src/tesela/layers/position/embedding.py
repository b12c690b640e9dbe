"""Additive position embeddings: learned, per axis, 2-D sine and cosine, or none.

A learned table belongs to one grid; for any other grid its patch part is interpolated in two dimensions at
run time (paper, section 3.2), bicubic without aligned corners as transformers and timm do it. Prefix
positions stay as they are. Row and column tables (paper, appendix D.4) have half of the width each and are
interpolated each along its own axis, which is what the 2-D interpolation of their sum table would give.

Odd: sine and cosine (Vaswani et al. 2017, per axis as in MAE and big_vision) are computed for the grid at
hand and never interpolated. A new variant is a class with ``at(grid)`` and a row in ``make_positions``.
Positions that act inside the attention are ``tesela.layers.position.relative`` and
``tesela.layers.position.rotary``.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tesela.layers.grid import Grid
from tesela.layers.position.resize import OFFSET, resize_matrices, resized_table


class NoPositions(nn.Module):
    """Leaves the tokens as they are."""

    def forward(self, tokens: Tensor, grid: Grid, *, kept: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The tokens."""
        return tokens


class AddedPositions(nn.Module):
    """A table for each grid, added to the tokens; the rows of the prefix come first."""

    @abstractmethod
    def table_like(self, tokens: Tensor, grid: Grid) -> tuple[Tensor, int]:
        """The table (1, prefix + n, D) for a grid, and how many of its rows are the prefix's."""

    def forward(self, tokens: Tensor, grid: Grid, *, kept: Tensor | None = None) -> Tensor:
        """Tokens (B, N, D) plus the table.

        Args:
            tokens: prefix tokens that have rows, prefix tokens that have none (such as registers), patches.
            grid: of the image's patches.
            kept: (B, n), the patches that are left; None where all are.
        """
        table, prefix = self.table_like(tokens, grid)
        if kept is not None:
            rows = torch.arange(prefix, device=kept.device).expand(kept.shape[0], -1)
            table = table[0][torch.cat([rows, kept + prefix], dim=1)]
        bare = tokens.shape[1] - table.shape[1]
        if bare and prefix:
            table = torch.cat([table[:, :prefix], F.pad(table[:, prefix:], (0, 0, bare, 0))], dim=1)
        elif bare:
            table = F.pad(table, (0, 0, bare, 0))
        return tokens + table


class LearnedPositions(AddedPositions):
    """A table with one row per position.

    Args:
        grid: the grid the table belongs to.
        width: D.
        prefix: number of prefix tokens that have positions too; their rows come first.
        mode: ``bicubic`` or ``bilinear``, for other grids.
        std: standard deviation of the initial values.
    """

    #: Whether grids may be symbolic: interpolated by matrix products, as in a graph for any image size.
    any_grid = False

    def __init__(
        self, grid: Grid, width: int, *, prefix: int, mode: str = "bicubic", std: float = 0.02
    ) -> None:
        super().__init__()
        self.grid = grid
        self.prefix = prefix
        self.mode = mode
        self.std = std
        self.table = nn.Parameter(torch.empty(1, prefix + grid[0] * grid[1], width))

    def reset(self, generator: Generator | None = None) -> None:
        """Normal with the given standard deviation."""
        nn.init.normal_(self.table, std=self.std, generator=generator)

    def at(self, grid: Grid) -> Tensor:
        """The table (1, prefix + n, D) for a grid."""
        if self.any_grid:
            return resized_table(self.table, self.grid, grid, prefix=self.prefix, mode=self.mode)
        if grid == self.grid:
            return self.table
        return interpolate_positions(self.table, self.grid, grid, prefix=self.prefix, mode=self.mode)

    def table_like(self, tokens: Tensor, grid: Grid) -> tuple[Tensor, int]:  # noqa: ARG002
        """The table, in its own precision."""
        return self.at(grid), self.prefix

    def move_to(self, grid: Grid) -> None:
        """Make the interpolated table of another grid the table."""
        self.table = nn.Parameter(self.at(grid).detach().clone(), requires_grad=self.table.requires_grad)
        self.grid = grid


class AxisPositions(AddedPositions):
    """A table of the rows and one of the columns.

    The first half of a patch's embedding is its row's, the second its column's.

    Args:
        grid: the grid the tables belong to.
        width: D, even.
        prefix: number of prefix tokens that have positions too, in a table of their own.
        mode: ``bicubic`` or ``bilinear``, for other grids, along each axis.
        std: standard deviation of the initial values.
    """

    #: As of ``LearnedPositions``.
    any_grid = False

    def __init__(
        self, grid: Grid, width: int, *, prefix: int, mode: str = "bicubic", std: float = 0.02
    ) -> None:
        super().__init__()
        self.grid = grid
        self.mode = mode
        self.std = std
        self.prefix = nn.Parameter(torch.empty(1, prefix, width)) if prefix else None
        self.rows = nn.Parameter(torch.empty(1, grid[0], width // 2))
        self.columns = nn.Parameter(torch.empty(1, grid[1], width // 2))

    def reset(self, generator: Generator | None = None) -> None:
        """Normal with the given standard deviation."""
        for table in self.parameters(recurse=False):
            nn.init.normal_(table, std=self.std, generator=generator)

    def axes(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """The tables (1, R, D/2) of the rows and (1, C, D/2) of the columns for a grid."""
        if self.any_grid:
            down, right = resize_matrices(self.grid, grid, mode=self.mode, like=self.rows.float())
            rows, columns = down @ self.rows.float(), right @ self.columns.float()
            return rows.to(self.rows.dtype), columns.to(self.rows.dtype)
        if grid == self.grid:
            return self.rows, self.columns
        rows = interpolate_positions(self.rows, (self.grid[0], 1), (grid[0], 1), prefix=0, mode=self.mode)
        return rows, interpolate_positions(
            self.columns, (1, self.grid[1]), (1, grid[1]), prefix=0, mode=self.mode
        )

    def at(self, grid: Grid) -> Tensor:
        """The table (1, prefix + n, D) for a grid."""
        rows, columns = self.axes(grid)
        down, right = (
            rows[:, :, None].expand(-1, -1, grid[1], -1),
            columns[:, None].expand(-1, grid[0], -1, -1),
        )
        patches = torch.cat([down, right], dim=3).flatten(1, 2)
        return patches if self.prefix is None else torch.cat([self.prefix, patches], dim=1)

    def table_like(self, tokens: Tensor, grid: Grid) -> tuple[Tensor, int]:  # noqa: ARG002
        """The table, in its own precision."""
        return self.at(grid), 0 if self.prefix is None else self.prefix.shape[1]

    def move_to(self, grid: Grid) -> None:
        """Make the interpolated tables of another grid the tables."""
        needed = self.rows.requires_grad
        rows, columns = (
            nn.Parameter(table.detach().clone(), requires_grad=needed) for table in self.axes(grid)
        )
        self.rows, self.columns, self.grid = rows, columns, grid


class SinCosPositions(AddedPositions):
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
        row, column = (
            torch.arange(side, device=device, dtype=torch.float32)[:, None] * omega for side in grid
        )
        down = torch.cat([row.sin(), row.cos()], dim=1)[:, None].expand(-1, grid[1], -1)
        right = torch.cat([column.sin(), column.cos()], dim=1)[None].expand(grid[0], -1, -1)
        return torch.cat([right, down], dim=2).flatten(0, 1)[None].to(dtype)

    def table_like(self, tokens: Tensor, grid: Grid) -> tuple[Tensor, int]:
        """The table in the tokens' precision; a prefix has no rows."""
        return self.at(grid, device=tokens.device, dtype=tokens.dtype), 0


def make_positions(name: str, *, grid: Grid, width: int, prefix: int, mode: str = "bicubic") -> nn.Module:
    """Position embedding of a variant: ``learned``, ``learned2d``, ``sincos2d``.

    Nothing by any other.
    """
    if name == "learned":
        return LearnedPositions(grid, width, prefix=prefix, mode=mode)
    if name == "learned2d":
        return AxisPositions(grid, width, prefix=prefix, mode=mode)
    return SinCosPositions(width) if name == "sincos2d" else NoPositions()


def interpolate_positions(
    table: Tensor, old: Grid, new: Grid, *, prefix: int, mode: str = "bicubic"
) -> Tensor:
    """A table (1, prefix + n, D) of one grid for another; the prefix rows stay.

    The result has the table's precision; the interpolation itself runs in float32 or wider. With the mode
    ``bicubic_offset`` a tenth of a token is added to the sides that the scale is computed from, as the code
    of DINO and DINOv2 does (``interpolate_offset``).

    Odd: PyTorch's antialiased interpolation of an image that is one pixel wide is wrong (seen in 2.13), so
    that mode goes through matrix products.
    """
    if mode.endswith("_antialias"):
        return resized_table(table, old, new, prefix=prefix, mode=mode)
    wide = table if table.dtype == torch.float64 else table.float()
    image = wide[:, prefix:].transpose(1, 2).reshape(1, -1, *old)
    kind, _, variant = mode.partition("_")
    if variant == "offset":
        scale = [(after + OFFSET) / before for before, after in zip(old, new, strict=True)]
        image = F.interpolate(image, scale_factor=scale, mode=kind, align_corners=False)
    else:
        image = F.interpolate(image, size=new, mode=kind, align_corners=False)
    patches = image.flatten(2).transpose(1, 2)
    return torch.cat([wide[:, :prefix], patches], dim=1).to(table.dtype)
