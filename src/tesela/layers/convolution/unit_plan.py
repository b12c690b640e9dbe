"""Parameters and operations of a convolution unit, without torch."""

from __future__ import annotations

#: Side of the usual window.
KERNEL = 3


def unit_parameters(before: int, after: int, *, separable: bool = False, kernel: int = KERNEL) -> int:
    """Number of trainable values of a ``ConvUnit``."""
    return unit_products(before, after, separable=separable, kernel=kernel) + 2 * after


def unit_products(before: int, after: int, *, separable: bool = False, kernel: int = KERNEL) -> int:
    """Multiply-adds of a ``ConvUnit`` for each pixel that leaves."""
    return KERNEL**2 * before + before * after if separable else kernel**2 * before * after
