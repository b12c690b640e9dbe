"""Interpolation of position tables as matrix products, for grids of any size.

One matrix per axis maps the rows (or columns) of a table to those of another grid, as ``F.interpolate``
without aligned corners would. A graph that is made once for all image sizes computes the matrices from the
size at hand, with elementary operations that every engine has; engines' own resizing differs in details.

Odd: PyTorch's cubic kernel has a = -0.75, its antialiased one -0.5 (Keys 1981).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tesela.layers.grid import Grid

#: What DINO's code adds to the sides of a grid before it divides them.
OFFSET = 0.1
SHARP, SOFT = -0.75, -0.5


def resize_matrix(old: int, new: int, *, mode: str, like: Tensor) -> Tensor:
    """(new, old): each row holds the weights of the old places in a new one.

    Args:
        old: number of places.
        new: number wanted; may be symbolic.
        mode: ``bicubic``, ``bicubic_antialias``, ``bicubic_offset``, ``bilinear`` or ``linear``.
        like: a tensor of the wanted precision, float32 or wider, and device.
    """
    kind, _, variant = mode.partition("_")
    scale = old / (new + OFFSET) if variant == "offset" else old / new
    places = torch.arange(old, device=like.device, dtype=like.dtype)
    source = (torch.arange(new, device=like.device, dtype=like.dtype) + 0.5) * scale - 0.5
    if variant == "antialias":
        wide = (torch.ones_like(source[:1]) * scale).clamp(min=1)
        weights = _cubic(((places[None] - source[:, None]) / wide).abs(), SOFT)
        return weights / weights.sum(1, keepdim=True)
    if kind != "bicubic":
        source = source.clamp(min=0)
    low = source.floor()
    matrix = torch.zeros_like(source[:, None] * places[None])
    for tap in (-1, 0, 1, 2) if kind == "bicubic" else (0, 1):
        signed = low + tap - source
        # OpenVINO drops Abs from a vector that does not depend on pixels
        distance = torch.maximum(signed, -signed)
        weight = _cubic(distance, SHARP) if kind == "bicubic" else 1 - distance
        hit = (low + tap).clamp(0, old - 1)[:, None] == places[None]  # beyond the edge the edge is repeated
        matrix = matrix + weight[:, None] * hit.to(weight.dtype)
    return matrix


def resize_matrices(old: Grid, new: Grid, *, mode: str, like: Tensor) -> tuple[Tensor, Tensor]:
    """One matrix for the rows and one for the columns; a table's own grid is taken as it is, in any mode."""
    down, right = (
        resize_matrix(before, after, mode=mode, like=like) for before, after in zip(old, new, strict=True)
    )
    if mode.endswith("_offset"):  # the only mode whose matrices are not the identity there
        sides = [torch.full((), side, device=like.device) for side in new]
        same = (sides[0] == old[0]) & (sides[1] == old[1])
        down, right = (torch.where(same, _identity(matrix), matrix) for matrix in (down, right))
    return down, right


def resized_table(table: Tensor, old: Grid, new: Grid, *, prefix: int, mode: str) -> Tensor:
    """A table (1, prefix + n, D) of one grid for another, which may be symbolic; the prefix rows stay."""
    wide = table if table.dtype == torch.float64 else table.float()
    down, right = resize_matrices(old, new, mode=mode, like=wide)
    patches = torch.unflatten(wide[0, prefix:], 0, old)  # (rows, columns, D)
    across = torch.unflatten(down @ patches.flatten(1), 1, (old[1], -1))  # (rows', columns, D)
    moved = (right @ across).flatten(0, 1)[None]  # (1, rows' * columns', D)
    return torch.cat([table[:, :prefix], moved.to(table.dtype)], dim=1)


def _identity(matrix: Tensor) -> Tensor:
    rows, columns = (torch.arange(side, device=matrix.device) for side in matrix.shape)
    return (rows[:, None] == columns[None]).to(matrix.dtype)


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Keys' cubic kernel at a distance of 0 or more places."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))
