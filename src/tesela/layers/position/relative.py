"""Relative positions: attention logits by offset (paper, appendix D.4).

Every query takes an inner product with an embedding of the row offset and one of the column offset to each
key, with tables of each head's own; their sum, scaled as the first logits are, is added before the softmax.
An offset is the key's place minus the query's. Prefix tokens have no place: pairs with one of them get
nothing. Along an axis on which a window is one patch there is no table, so that axial attention has the one
of its own axis (arXiv 1912.12180; the query's term of arXiv 2003.07853, equation 4).

Other grids: the table is stretched or squeezed linearly, without aligned corners, to the offsets of the new
grid, as in MViTv2 and SAM: offsets that span about the same share of the image keep their embedding. Within
windows an offset counts tokens whatever the grid: the table stays as it is, cut to what occurs, its ends
repeated where windows were larger than the grid before.

Odd: the product is taken with the embeddings of each query's own row and column only, m numbers and not 2 m -
1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tesela.layers.attention.window_plan import WindowPlan
from tesela.layers.grid import Grid
from tesela.layers.position.resize import resize_matrix
from tesela.layers.token_layout import TokenLayout

DEVIATION = 0.02


class RelativePositions(nn.Module):
    """The second logits of one attention.

    Args:
        heads: H.
        head_width: d.
        windows: which patches see one another.
        grid: the grid the tables belong to.
    """

    #: As of ``LearnedPositions``.
    any_grid = False

    def __init__(self, heads: int, head_width: int, *, windows: WindowPlan, grid: Grid) -> None:
        super().__init__()
        self.windows = windows
        self.grid = grid
        rows, columns = windows.offsets(grid)
        self.rows = nn.Parameter(torch.empty(heads, rows, head_width)) if rows else None
        self.columns = nn.Parameter(torch.empty(heads, columns, head_width)) if columns else None

    def reset(self, generator: Generator | None = None) -> None:
        """Normal with standard deviation 0.02, as other positions."""
        for table in (self.rows, self.columns):
            if table is not None:
                nn.init.normal_(table, std=DEVIATION, generator=generator)

    def move_to(self, grid: Grid) -> None:
        """Make the tables as they are read on another grid the tables."""
        for name, table, axis in (("rows", self.rows, 0), ("columns", self.columns, 1)):
            if table is not None:
                moved = self._read(table, axis, grid).detach().clone()
                setattr(self, name, nn.Parameter(moved, requires_grad=table.requires_grad))
        self.grid = grid

    def within(self, queries: Tensor, grid: Grid) -> Tensor:
        """Logits between the patches of each window.

        Args:
            queries: (B, H, g, m, d), already scaled.
            grid: the grid at hand.

        Returns:
            (B, H, g, m, m).
        """
        rows, columns = self.windows.size(grid)
        image = torch.unflatten(queries, 3, (rows, columns))
        parts: list[Tensor] = []
        if self.rows is not None:
            table = self._between(self.rows, 0, grid).to(queries.dtype)
            parts.append(torch.einsum("bhgrcd,hrsd->bhgrcs", image, table).unsqueeze(-1))
        if self.columns is not None:
            table = self._between(self.columns, 1, grid).to(queries.dtype)
            parts.append(torch.einsum("bhgrcd,hcsd->bhgrcs", image, table).unsqueeze(-2))
        total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        return total.expand(-1, -1, -1, -1, -1, rows, columns).flatten(5, 6).flatten(3, 4)

    def among(self, queries: Tensor, layout: TokenLayout) -> Tensor:
        """Logits between the patches that are left, where each image has its own choice.

        (B, H, n, d) to (B, H, n, n).
        """
        assert layout.kept is not None, "without a choice `within` does less"
        total: Tensor | None = None
        places = (layout.kept // layout.grid[1], layout.kept % layout.grid[1])
        for table, axis in ((self.rows, 0), (self.columns, 1)):
            if table is None:
                continue
            known = self._read(table, axis, layout.grid).to(queries.dtype)
            index = places[axis][:, None, :] - places[axis][:, :, None] + known.shape[1] // 2
            logits = (queries @ known.transpose(1, 2)).gather(
                3, index[:, None].expand(-1, queries.shape[1], -1, -1)
            )
            total = logits if total is None else total + logits
        assert total is not None, "no shape of window is without both axes"
        return total

    def _read(self, table: Tensor, axis: int, grid: Grid) -> Tensor:
        """The table (H, 2 m - 1, d) for windows of the grid at hand."""
        reach, middle = self.windows.size(grid)[axis] - 1, table.shape[1] // 2
        if self.any_grid and self.windows.shape != "windows":
            matrix = resize_matrix(table.shape[1], 2 * reach + 1, mode="linear", like=table.float())
            return (matrix @ table.float()).to(table.dtype)
        if reach == middle:
            return table
        if self.windows.shape != "windows":
            wide = table if table.dtype == torch.float64 else table.float()
            image = F.interpolate(
                wide.transpose(1, 2), size=2 * reach + 1, mode="linear", align_corners=False
            )
            return image.transpose(1, 2).to(table.dtype)
        offsets = torch.arange(-reach, reach + 1, device=table.device).clamp(-middle, middle)
        return table.index_select(1, offsets + middle)

    def _between(self, table: Tensor, axis: int, grid: Grid) -> Tensor:
        """(H, m, m, d), the embedding of the offset from each query's line to each key's."""
        known = self._read(table, axis, grid)
        line = torch.arange(known.shape[1] // 2 + 1, device=known.device)
        index = line[None, :] - line[:, None] + known.shape[1] // 2
        return torch.unflatten(known.index_select(1, index.flatten()), 1, tuple(index.shape))
