"""A mask's colours over its image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tesela.imaging.color import as_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray


def overlaid(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    colours: Sequence[tuple[int, int, int]],
    *,
    opacity: float = 0.55,
) -> NDArray[np.uint8]:
    """An image (H, W, C) with the colours of its mask (H, W) over it; ignored pixels stay bare.

    Args:
        image: below.
        mask: class numbers; those without a colour stay bare.
        colours: of the classes.
        opacity: of the colours.
    """
    table = np.zeros((256, 3), np.float32)
    table[: len(colours)] = np.array(colours, np.float32).reshape(-1, 3)
    strength = np.where(mask < len(colours), np.float32(opacity), np.float32(0))[..., None]
    base = np.broadcast_to(as_rgb(image), (*mask.shape, 3)).astype(np.float32)
    mixed: NDArray[np.uint8] = (base * (1 - strength) + table[mask] * strength + 0.5).astype(np.uint8)
    edges = _edges(mask)
    mixed[edges] = (mixed[edges] * np.float32(0.45)).astype(np.uint8)
    return mixed


def _edges(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels whose right or lower neighbour is of another class."""
    found = np.zeros(mask.shape, np.bool_)
    found[:-1] |= mask[:-1] != mask[1:]
    found[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    return found
