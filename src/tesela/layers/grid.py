"""Patch-grid arithmetic shared by configurations and layers, without torch."""

from __future__ import annotations

from collections.abc import Iterable

from tesela.core.errors import ConfigError

Grid = tuple[int, int]


def patch_grid(size: tuple[int, int], patch: tuple[int, int], *, cut: bool = False) -> Grid:
    """Rows and columns of patches in an image.

    Args:
        size: height and width in pixels.
        patch: of a patch.
        cut: whether pixels beyond the last whole patch are left out.

    Raises:
        ConfigError: the patches do not fill the image, and nothing is left out; or there is none.
    """
    if cut and size[0] >= patch[0] and size[1] >= patch[1]:
        return size[0] // patch[0], size[1] // patch[1]
    if size[0] % patch[0] or size[1] % patch[1]:
        near = tuple(max(1, round(side / step)) * step for side, step in zip(size, patch, strict=True))
        raise ConfigError(
            f"patches of {patch[0]}x{patch[1]} do not divide an image of {size[0]}x{size[1]} pixels",
            hint=f"use an image size of {near[0]}x{near[1]} or another patch size",
        )
    return size[0] // patch[0], size[1] // patch[1]


def conv_grid(size: tuple[int, int], steps: Iterable[tuple[int, int]]) -> Grid:
    """Rows and columns after convolutions or poolings (kernel, stride), padded by half a kernel."""
    rows, columns = size
    for kernel, stride in steps:
        rows, columns = ((side + 2 * (kernel // 2) - kernel) // stride + 1 for side in (rows, columns))
    return rows, columns
