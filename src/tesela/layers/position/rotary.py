"""Axial rotary positions (arXiv 2104.09864, arXiv 2403.13298).

Su et al. 2021; two axes as in Heo et al. 2024.

Half of each head's width turns with the patch's row, half with its column; in each half, pair ``i`` of the
d/4 pairs turns by ``place * temperature ** (-i / (d / 4))``. The inner product of a query with a key then
depends on their offsets only. Prefix tokens have no place and are not turned.

A place is counted in tokens on the grid at hand, or in tokens of a reference grid that the grid at hand is
stretched to (EVA-02, arXiv 2303.11331), or is that of the patch's centre between -1 and 1, times 2 pi
(DINOv3, arXiv 2508.10104).

Odd: none of them needs a table, so other sizes need no interpolation; a pair is (i, i + d/4) of its half,
and whoever reads weights of another order puts their channels in this one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tesela.layers.grid import Grid
from tesela.layers.token_layout import TokenLayout

TEMPERATURE = 100.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotation:
    """How fast queries and keys turn, and by what places.

    Attributes:
        base: the slowest pair turns nearly this many times slower than the first.
        places: ``tokens``, ``reference`` or ``centred``.
        reference: rows and columns of the reference grid.
        offset: added to the numbers of tokens, which tokens without a place do not have.
    """

    base: float = TEMPERATURE
    places: str = "tokens"
    reference: Grid = (1, 1)
    offset: float = 0.0

    def along(self, axis: int, side: int, *, device: torch.device) -> Tensor:
        """The places (side,) along an axis of that many tokens."""
        numbers = torch.arange(side, device=device, dtype=torch.float32) + self.offset
        if self.places == "centred":
            return ((numbers + 0.5) / side * 2 - 1) * (2 * math.pi)
        return numbers / side * self.reference[axis] if self.places == "reference" else numbers


def angles(grid: Grid, head_width: int, *, device: torch.device, rotation: Rotation | None = None) -> Tensor:
    """(n, 2, d/4), the angles of each patch by its row and by its column."""
    pairs, rotation = head_width // 4, rotation or Rotation()
    speed = rotation.base ** -(torch.arange(pairs, device=device, dtype=torch.float32) / pairs)
    down, right = (rotation.along(axis, grid[axis], device=device) for axis in (0, 1))
    row = down[:, None, None].expand(-1, grid[1], -1)
    column = right[None, :, None].expand(grid[0], -1, -1)
    return torch.stack([row * speed, column * speed], dim=2).flatten(0, 1)


def turn(tokens: Tensor, layout: TokenLayout, rotation: Rotation | None = None) -> Tensor:
    """Queries or keys (B, H, prefix + n, d) with their patches turned; d is a multiple of four."""
    width = tokens.shape[-1]
    known = angles(layout.grid, width, device=tokens.device, rotation=rotation)
    if layout.kept is not None:
        known = known[layout.kept].unsqueeze(1)
    cosine, sine = known.cos().to(tokens.dtype), known.sin().to(tokens.dtype)
    prefix, patches = tokens[:, :, : layout.prefix], tokens[:, :, layout.prefix :]
    first, second = torch.unflatten(patches, -1, (2, 2, width // 4)).unbind(-2)
    turned = torch.stack([first * cosine - second * sine, second * cosine + first * sine], dim=-2).flatten(-3)
    return torch.cat([prefix, turned], dim=2) if layout.prefix else turned
