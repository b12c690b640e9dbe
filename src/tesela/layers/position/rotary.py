"""Axial rotary positions (arXiv 2104.09864, arXiv 2403.13298).

Su et al. 2021; two axes as in Heo et al. 2024.

Half of each head's width turns with the patch's row, half with its column; in each half, pair ``i`` of the
d/4 pairs turns by ``place * temperature ** (-i / (d / 4))``. The inner product of a query with a key then
depends on their offsets only. Prefix tokens have no place and are not turned.

Odd: places are counted in tokens on the grid at hand, so other sizes need no interpolation; a pair is (i, i +
d/4) of its half.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tesela.layers.grid import Grid
from tesela.layers.token_layout import TokenLayout

TEMPERATURE = 100.0


def angles(grid: Grid, head_width: int, *, device: torch.device) -> Tensor:
    """(n, 2, d/4), the angles of each patch by its row and by its column."""
    pairs = head_width // 4
    speed = TEMPERATURE ** -(torch.arange(pairs, device=device, dtype=torch.float32) / pairs)
    row = torch.arange(grid[0], device=device, dtype=torch.float32)[:, None, None].expand(-1, grid[1], -1)
    column = torch.arange(grid[1], device=device, dtype=torch.float32)[None, :, None].expand(grid[0], -1, -1)
    return torch.stack([row * speed, column * speed], dim=2).flatten(0, 1)


def turn(tokens: Tensor, layout: TokenLayout) -> Tensor:
    """Queries or keys (B, H, prefix + n, d) with their patches turned; d is a multiple of four."""
    width = tokens.shape[-1]
    known = angles(layout.grid, width, device=tokens.device)
    if layout.kept is not None:
        known = known[layout.kept].unsqueeze(1)
    cosine, sine = known.cos().to(tokens.dtype), known.sin().to(tokens.dtype)
    prefix, patches = tokens[:, :, : layout.prefix], tokens[:, :, layout.prefix :]
    first, second = torch.unflatten(patches, -1, (2, 2, width // 4)).unbind(-2)
    turned = torch.stack([first * cosine - second * sine, second * cosine + first * sine], dim=-2).flatten(-3)
    return torch.cat([prefix, turned], dim=2) if layout.prefix else turned
