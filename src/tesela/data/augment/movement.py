"""The geometric part of an augmentation, kept apart so that masks can follow their images.

Flips and padded crops are exact (one gather); all other geometry is one warp. Images are sampled bilinearly,
class masks take the nearest value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tesela.data.augment import geometry

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Movement:
    """Geometric changes of a batch.

    Attributes:
        hflip: (B,), whether left and right change places.
        vflip: (B,), whether top and bottom change places.
        moves: (B, 2), how far the window goes down and right over the padded image.
        reflect: whether the padding mirrors the image; else it is black.
        maps: (B, 3, 3) from output to input coordinates, or None without a warp.
    """

    hflip: NDArray[np.bool_]
    vflip: NDArray[np.bool_]
    moves: NDArray[np.int64]
    reflect: bool
    maps: NDArray[np.float64] | None

    def images(self, images: Tensor, fill: Tensor) -> Tensor:
        """Images (B, C, H, W), uint8, moved; ``fill`` (C, 1, 1), 0..255, lies outside of a warp."""
        images = self._flipped(images)
        return geometry.warp(images, self.maps, fill) if self.maps is not None else images

    def masks(self, masks: Tensor, *, outside: int) -> Tensor:
        """Masks (B, H, W) of whole numbers below 2^24, moved; ``outside`` is the value beyond the border."""
        planes = self._flipped((masks.to(torch.float32) - outside)[:, None])
        if self.maps is not None:
            planes = geometry.nearest(planes, self.maps)
        return (planes[:, 0] + outside).to(masks.dtype)

    def _flipped(self, planes: Tensor) -> Tensor:
        if not (self.hflip.any() or self.vflip.any() or self.moves.any()):
            return planes
        return geometry.flip_and_crop(
            planes, hflip=self.hflip, vflip=self.vflip, moves=self.moves, reflect=self.reflect
        )
