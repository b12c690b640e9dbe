"""Shifted windows of maps, and the mask between borders (arXiv 2103.14030, section 3.2).

Odd: padding is part of its window: it is computed, and seen by the patches there, as in the published code.
The mask subtracts 100, as there, and no infinity.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tesela.layers.grid import Grid
from tesela.layers.hierarchical.swin_plan import SwinWindows

#: Added to the logits of pairs from opposite borders.
APART = -100.0


def cut_windows(maps: Tensor, windows: SwinWindows) -> Tensor:
    """(B, rows, columns, D) to (B, g, m, D): g windows of m places; padding is zero."""
    grid = maps.shape[1], maps.shape[2]
    size, shift, padded = windows.size(grid), windows.shift(grid), windows.padded(grid)
    moved = tuple(-step for step in shift)
    if any(shift) and windows.edges == "timm":
        maps = maps.roll(moved, dims=(1, 2))
    if padded != grid:
        maps = F.pad(maps, (0, 0, 0, padded[1] - grid[1], 0, padded[0] - grid[0]))
    if any(shift) and windows.edges == "transformers":
        maps = maps.roll(moved, dims=(1, 2))
    return _partition(maps, size)


def _partition(maps: Tensor, size: Grid) -> Tensor:
    """Whole windows of (B, rows, columns, D), as (B, g, m, D)."""
    cut = torch.unflatten(maps, 2, (maps.shape[2] // size[1], size[1]))
    cut = torch.unflatten(cut, 1, (maps.shape[1] // size[0], size[0]))
    return cut.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def join_windows(values: Tensor, windows: SwinWindows, grid: Grid) -> Tensor:
    """(B, g, m, D) back to (B, rows, columns, D), without the padding."""
    size, shift, padded = windows.size(grid), windows.shift(grid), windows.padded(grid)
    cut = torch.unflatten(values, 2, size)
    cut = torch.unflatten(cut, 1, (padded[0] // size[0], padded[1] // size[1]))
    maps = cut.transpose(2, 3).flatten(3, 4).flatten(1, 2)
    if any(shift) and windows.edges == "transformers":
        maps = maps.roll(shift, dims=(1, 2))
    maps = maps[:, : grid[0], : grid[1]]
    return maps.roll(shift, dims=(1, 2)) if any(shift) and windows.edges == "timm" else maps


def window_places(windows: SwinWindows, grid: Grid, *, device: torch.device) -> Tensor:
    """(g, m), the number of each place's token in raster order; -1 is padding."""
    numbers = torch.arange(1, grid[0] * grid[1] + 1, device=device).view(1, *grid, 1)
    return cut_windows(numbers, windows)[0, :, :, 0] - 1


def border_mask(windows: SwinWindows, grid: Grid, *, like: Tensor, apart: float) -> Tensor | None:
    """(g, m, m), ``apart`` for pairs of opposite borders, which the shift brought together; None without."""
    size, shift, padded = windows.size(grid), windows.shift(grid), windows.padded(grid)
    if not any(shift):
        return None
    regions = []
    for axis in (0, 1):
        place = torch.arange(padded[axis], device=like.device)
        region = (place >= padded[axis] - size[axis]).long() + (place >= padded[axis] - shift[axis]).long()
        regions.append(region if shift[axis] else torch.zeros_like(region))
    image = (3 * regions[0][:, None] + regions[1][None]).view(1, *padded, 1)
    region = _partition(image, size)[0, :, :, 0]
    return torch.where(region[:, :, None] == region[:, None, :], 0.0, apart).to(like.dtype)
