"""Window partition of patches and back, with the masks of windows.

Shifted windows are cut out after a cyclic shift (Liu et al. 2021, arXiv 2103.14030, section 3.2): patches of
opposite borders share a window then, and the mask keeps them apart. The result is what windows with moved
borders, cut at the image's edge, would give.

Odd: padding is a region of its own in the mask, so that a row of padding sees itself and no softmax is empty.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tesela.layers.attention.window_plan import WindowPlan
from tesela.layers.grid import Grid


def gather(values: Tensor, windows: WindowPlan, grid: Grid) -> Tensor:
    """(B, H, n, d) in raster order to (B, H, g, m, d): g windows of m patches; padding is zero."""
    size, shift, padded = windows.size(grid), windows.shift(grid), windows.padded(grid)
    image = torch.unflatten(values, 2, grid)
    if padded != grid:
        image = F.pad(image, (0, 0, 0, padded[1] - grid[1], 0, padded[0] - grid[0]))
    if any(shift):
        image = image.roll((-shift[0], -shift[1]), dims=(2, 3))
    cut = torch.unflatten(image, 3, (padded[1] // size[1], size[1]))
    cut = torch.unflatten(cut, 2, (padded[0] // size[0], size[0]))
    return cut.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def scatter(values: Tensor, windows: WindowPlan, grid: Grid) -> Tensor:
    """(B, H, g, m, d) back to (B, H, n, d) in raster order, without the padding."""
    size, shift, padded = windows.size(grid), windows.shift(grid), windows.padded(grid)
    cut = torch.unflatten(values, 3, size)
    cut = torch.unflatten(cut, 2, (padded[0] // size[0], padded[1] // size[1]))
    image = cut.transpose(3, 4).flatten(4, 5).flatten(2, 3)
    if any(shift):
        image = image.roll(shift, dims=(2, 3))
    return image[:, :, : grid[0], : grid[1]].flatten(2, 3)


def numbers(windows: WindowPlan, grid: Grid, *, device: torch.device) -> Tensor:
    """(g, m), the number of each place's patch in raster order, counted from 1; 0 is padding."""
    patches = torch.arange(1, grid[0] * grid[1] + 1, device=device).view(1, 1, -1, 1)
    return gather(patches, windows, grid)[0, 0, :, :, 0]


def mask(windows: WindowPlan, grid: Grid, *, device: torch.device) -> Tensor | None:
    """(g, m, m), true where the patch of the row may see that of the column.

    None where each may see its whole window.
    """
    down, right = windows.shift(grid)
    if not (down or right) and windows.padded(grid) == grid:
        return None
    row = torch.arange(grid[0], device=device)[:, None] < down
    column = torch.arange(grid[1], device=device)[None] < right
    regions = (1 + row.long() + 2 * column.long()).view(1, 1, -1, 1)
    region = gather(regions, windows, grid)[0, 0, :, :, 0]
    return region[:, :, None] == region[:, None, :]


def spread_windows(bias: Tensor, windows: WindowPlan, grid: Grid) -> Tensor:
    """Biases within windows (B or 1, H or 1, g, m, m) as those between all patches, (B or 1, H or 1, n, n).

    -inf between windows.
    """
    place = numbers(windows, grid, device=bias.device)
    count = grid[0] * grid[1]
    whole = bias.new_full((*bias.shape[:2], count + 1, count + 1), -torch.inf)
    whole[:, :, place[:, :, None], place[:, None, :]] = bias
    return whole[:, :, 1:, 1:]
