"""Layout of a token sequence: prefix length, patch grid, kept patches."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from tesela.layers.grid import Grid


class TokenLayout(NamedTuple):
    """The layout of tokens (B, prefix + n, D).

    Attributes:
        grid: rows and columns of the image's patches.
        prefix: tokens before the patches; they have no place on the grid.
        kept: (B, n), the patches' numbers in raster order where some were left out; None where all are there.
    """

    grid: Grid
    prefix: int
    kept: Tensor | None = None
