"""Rows of an opened image, upright and with the model's channels, some at a time.

A large image is resized from its rows (``preprocess.fit_rows``), so that no second whole of it lies beside
what its reader holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from tesela.imaging.color import to_array, with_channels

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image


class ImageRows(Protocol):
    """Something that gives rows of an image."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), upright."""

    def band(self, top: int, bottom: int) -> NDArray[np.uint8]:
        """Rows from ``top`` up to ``bottom`` as (h, W, C), uint8."""


class ArrayRows:
    """Rows of pixels in memory.

    Args:
        pixels: (H, W, 1 or 3), as stored.
        channels: wanted, 1 or 3.
        orientation: of EXIF, 1 to 8.
    """

    def __init__(self, pixels: NDArray[np.uint8], channels: int, orientation: int = 1) -> None:
        self._pixels, self._channels = turned(pixels, orientation), channels

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), upright."""
        return self._pixels.shape[0], self._pixels.shape[1]

    def band(self, top: int, bottom: int) -> NDArray[np.uint8]:
        """Rows as (h, W, C)."""
        return with_channels(np.ascontiguousarray(self._pixels[top:bottom]), self._channels)


class PictureRows:
    """Rows of an image of Pillow, converted when they are asked for.

    Args:
        image: of any layout that ``color`` knows.
        channels: wanted, 1 or 3.
        orientation: of EXIF, 1 to 8.
    """

    def __init__(self, image: Image.Image, channels: int, orientation: int = 1) -> None:
        self._image, self._channels, self._orientation = image, channels, orientation

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), upright."""
        size = self._image.height, self._image.width
        return size[::-1] if self._orientation >= 5 else size

    def band(self, top: int, bottom: int) -> NDArray[np.uint8]:
        """Rows as (h, W, C)."""
        height, width = self._image.height, self._image.width
        if (top, bottom) == (0, self.size[0]):
            return upright(to_array(self._image, channels=self._channels), self._orientation)
        if self._orientation in (3, 4, 7, 8):  # upright rows are counted from the other end
            top, bottom = self.size[0] - bottom, self.size[0] - top
        box = (0, top, width, bottom) if self._orientation < 5 else (top, 0, bottom, height)
        return upright(to_array(self._image.crop(box), channels=self._channels), self._orientation)


def turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """A view of (H, W) or (H, W, C) pixels by an EXIF orientation (1..8): transpose first, then flip."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The same, as pixels of its own."""
    return np.ascontiguousarray(turned(pixels, orientation))
