"""Patches as targets: pixels by patch, and their mean colour in three bits a channel.

Images arrive normalised; the whole numbers 0..255 that they were are recovered by rounding, so that the mean
of a patch is compared with the borders of the eight levels of a channel without error.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tesela.imaging.spec import ImageSpec
from tesela.layers.grid import Grid
from tesela.layers.patch import unfold

#: Levels of a channel, 3 bits, and how many of the 256 values each takes.
LEVELS, STEP = 8, 32


def pixel_values(images: Tensor, spec: ImageSpec) -> Tensor:
    """(B, C, H, W) int64 values 0..255 of normalised images."""
    mean, std = (
        torch.tensor(values, device=images.device, dtype=torch.float32).view(-1, 1, 1)
        for values in (spec.mean, spec.std)
    )
    return ((images.float() * std + mean) * 255).round().clamp(0, 255).long()


def mean_colors(values: Tensor, patch: tuple[int, int], grid: Grid) -> Tensor:
    """(B, n) class of each patch's mean colour: the top three bits of each channel, the first one highest.

    Args:
        values: (B, C, H, W), 0..255.
        patch: height and width.
        grid: rows and columns of patches.
    """
    channels, area = values.shape[1], patch[0] * patch[1]
    sums = unfold(values, patch, grid).view(*values.shape[:1], -1, channels, area).sum(3)  # (B, n, C)
    levels = sums // (STEP * area)
    places = LEVELS ** torch.arange(channels - 1, -1, -1, device=values.device)
    return (levels * places).sum(2)


def small_colors(values: Tensor, patch: tuple[int, int], grid: Grid, *, side: int) -> Tensor:
    """(B, n, side * side) classes of the mean colours of each patch's ``side`` x ``side`` parts."""
    part = patch[0] // side, patch[1] // side
    colors = mean_colors(values, part, (grid[0] * side, grid[1] * side))
    plane = colors.view(-1, 1, grid[0] * side, grid[1] * side)
    return unfold(plane, (side, side), grid)


def fold(patches: Tensor, patch: tuple[int, int], grid: Grid) -> Tensor:
    """(B, C, H, W) of flat patches (B, n, C * ph * pw): undoes ``unfold``."""
    batch, channels = patches.shape[0], patches.shape[2] // (patch[0] * patch[1])
    cut = patches.reshape(batch, *grid, channels, *patch)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, grid[0] * patch[0], grid[1] * patch[1])
