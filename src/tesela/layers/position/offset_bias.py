"""Offset bias: one number per head and offset between two patches (BEiT, arXiv 2106.08254).

It is added to the logits before the softmax, whatever the query holds. Three more numbers of each head are
those of pairs with a prefix token: from it to a patch, from a patch to it, and among prefix tokens. An
offset is the query's place minus the key's.

Other grids: the part of the offsets is stretched or squeezed bilinearly, without aligned corners, as
transformers does it (arXiv 2307.14460).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tesela.layers.grid import Grid
from tesela.layers.position.resize import resized_table
from tesela.layers.token_layout import TokenLayout

_DEVIATION = 0.02
#: Rows of the table that are no offsets: prefix to patch, patch to prefix, prefix to prefix.
_BESIDE = 3


class OffsetBias(nn.Module):
    """The bias of one attention, from a table (offsets + 3, H).

    Args:
        heads: H.
        grid: the grid the table belongs to.
    """

    #: As of ``LearnedPositions``.
    any_grid = False

    def __init__(self, heads: int, *, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        rows, columns = offsets(grid)
        self.table = nn.Parameter(torch.empty(rows * columns + _BESIDE, heads))

    def reset(self, generator: Generator | None = None) -> None:
        """Normal with standard deviation 0.02, as other positions."""
        nn.init.normal_(self.table, std=_DEVIATION, generator=generator)

    def move_to(self, grid: Grid) -> None:
        """Make the table as it is read on another grid the table."""
        moved = self.at(grid).detach().clone()
        self.table = nn.Parameter(moved, requires_grad=self.table.requires_grad)
        self.grid = grid

    def at(self, grid: Grid) -> Tensor:
        """The table for a grid."""
        if not self.any_grid and grid == self.grid:
            return self.table
        old, new = offsets(self.grid), offsets(grid)
        known = self.table[:-_BESIDE]
        if self.any_grid:
            moved = resized_table(known[None], old, new, prefix=0, mode="bilinear")[0]
        else:
            image = known.float().T.reshape(1, -1, *old)
            moved = F.interpolate(image, size=new, mode="bilinear", align_corners=False)[0].flatten(1).T
        return torch.cat([moved.to(known.dtype), self.table[-_BESIDE:]])

    def forward(self, layout: TokenLayout, *, first: int | None = None) -> Tensor:
        """Bias (1 or B, H, N, N) of all tokens, or (1, H, first, N) of the first ones, of the prefix.

        Args:
            layout: where the tokens stand.
            first: how many of the first tokens ask; None is all.
        """
        table, (rows, columns) = self.at(layout.grid), layout.grid
        device = table.device
        numbers = torch.arange(rows * columns, device=device)[None]
        numbers = numbers if layout.kept is None else layout.kept  # (1 or B, n)
        row, column = numbers // columns, numbers % columns
        down = row[:, :, None] - row[:, None, :] + rows - 1
        right = column[:, :, None] - column[:, None, :] + columns - 1
        prefix, count = layout.prefix, table.shape[0]
        index = F.pad(down * (2 * columns - 1) + right, (prefix, 0, prefix, 0))
        index[:, :prefix] = count - 3
        index[:, :, :prefix] = count - 2
        index[:, :prefix, :prefix] = count - 1
        index = index if first is None else index[:1, :first]
        return table[index].permute(0, 3, 1, 2)


def offsets(grid: Grid) -> Grid:
    """How many offsets there are along each axis."""
    return 2 * grid[0] - 1, 2 * grid[1] - 1
