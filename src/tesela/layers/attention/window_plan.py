"""Partitions of the patch grid into windows of equal size: arithmetic without torch.

``all``: one window, the whole grid. ``rows`` and ``columns``: axial attention (Ho et al. 2019, arXiv
1912.12180), every row or column a window. ``windows``: squares of a side counted in tokens (Liu et al. 2021,
arXiv 2103.14030), shifted by half a side or not.

Odd: a window is cut to the grid where the grid is smaller, and is not shifted along such an axis: there is
nothing to reach then. A grid that windows do not fill is padded below and to the right; nobody sees the
padding, but it is computed.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from tesela.layers.grid import Grid

Shape = Literal["all", "rows", "columns", "windows"]


class WindowPlan(NamedTuple):
    """A rule that cuts any grid into windows.

    Attributes:
        shape: what a window is.
        window: side of a window in tokens.
        shifted: whether windows begin half a side further down and to the right, and go on at the other end.
    """

    shape: Shape = "all"
    window: int = 7
    shifted: bool = False

    def size(self, grid: Grid) -> Grid:
        """Rows and columns of one window."""
        rows, columns = grid
        if self.shape == "windows":
            return min(self.window, rows), min(self.window, columns)
        return (1 if self.shape == "rows" else rows), (1 if self.shape == "columns" else columns)

    def shift(self, grid: Grid) -> Grid:
        """How far the windows are moved down and to the right."""
        if not self.shifted:
            return 0, 0
        down, right = (
            side // 2 if side < whole else 0 for side, whole in zip(self.size(grid), grid, strict=True)
        )
        return down, right

    def padded(self, grid: Grid) -> Grid:
        """The grid made large enough for whole windows."""
        rows, columns = (-(-whole // side) * side for side, whole in zip(self.size(grid), grid, strict=True))
        return rows, columns

    def pairs(self, grid: Grid, *, prefix: int) -> int:
        """Pairs of a query and a key that are computed.

        Patches see their window and the prefix, the prefix sees all.
        """
        rows, columns = self.size(grid)
        padded = self.padded(grid)
        return padded[0] * padded[1] * (rows * columns + prefix) + prefix * (grid[0] * grid[1] + prefix)

    def offsets(self, grid: Grid) -> Grid:
        """Numbers of row and column offsets within a window.

        0 along an axis on which a window is one patch by its shape.
        """
        rows, columns = self.size(grid)
        return (0 if self.shape == "rows" else 2 * rows - 1), (
            0 if self.shape == "columns" else 2 * columns - 1
        )

    def offset_products(self, grid: Grid) -> int:
        """Inner products of queries with embeddings of offsets.

        One for each patch and each row and column of its window.
        """
        size, padded = self.size(grid), self.padded(grid)
        lines = sum(side for side, offsets in zip(size, self.offsets(grid), strict=True) if offsets)
        return padded[0] * padded[1] * lines
