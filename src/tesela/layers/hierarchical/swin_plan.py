"""Window arithmetic of Swin (arXiv 2103.14030) on maps of any size, without torch.

Where windows do not fill a map, the two libraries differ. ``transformers`` pads below and to the right and
shifts the padded map, along both axes or, where a window spans one of them, along neither. ``timm`` judges
each axis by itself, shifts the map, and pads afterwards; its mask does not know that, so that patches of
opposite borders may see each other.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from tesela.layers.attention.window_plan import WindowPlan
from tesela.layers.grid import Grid

Edges = Literal["transformers", "timm"]
EDGES: tuple[str, ...] = ("transformers", "timm")
#: Parts that a merged token is made of.
MERGED = 4


class SwinWindows(NamedTuple):
    """Windows of one block.

    Attributes:
        window: side in tokens; cut to the map where that is smaller.
        shifted: whether windows are moved by half a side.
        edges: how maps are treated that windows do not fill.
    """

    window: int
    shifted: bool = False
    edges: Edges = "transformers"

    @property
    def _plan(self) -> WindowPlan:
        return WindowPlan("windows", self.window, shifted=self.shifted)

    def size(self, grid: Grid) -> Grid:
        """Rows and columns of one window."""
        return self._plan.size(grid)

    def shift(self, grid: Grid) -> Grid:
        """Rows and columns by which the windows are moved."""
        shift = self._plan.shift(grid)
        return shift if self.edges == "timm" or all(shift) else (0, 0)

    def padded(self, grid: Grid) -> Grid:
        """The map made large enough for whole windows."""
        return self._plan.padded(grid)

    def count(self, grid: Grid) -> int:
        """Number of windows."""
        padded, size = self.padded(grid), self.size(grid)
        return (padded[0] // size[0]) * (padded[1] // size[1])

    def same(self, other: SwinWindows, grid: Grid) -> bool:
        """Whether another rule does the same with a map."""
        if self.size(grid) != other.size(grid) or self.shift(grid) != other.shift(grid):
            return False
        return self.edges == other.edges or self.padded(grid) == grid or not any(self.shift(grid))


class WholeWindows(SwinWindows):
    """Windows that are neither cut nor moved: a smaller map is padded to one of them."""

    def size(self, grid: Grid) -> Grid:  # noqa: ARG002
        """Rows and columns of one window."""
        return self.window, self.window

    def shift(self, grid: Grid) -> Grid:  # noqa: ARG002
        """None."""
        return 0, 0

    def padded(self, grid: Grid) -> Grid:
        """The map made large enough for whole windows."""
        rows, columns = (-(-side // self.window) * self.window for side in grid)
        return rows, columns


def merged_grid(grid: Grid) -> Grid:
    """Rows and columns after each 2 x 2 patches became one; an odd map is padded."""
    return -(-grid[0] // 2), -(-grid[1] // 2)
