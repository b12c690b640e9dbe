"""Any pixel layout as grey or RGB, 8 bits per channel; one documented outcome for each.

1-bit           0 and 255
grey, RGB       as they are; grey becomes RGB by repetition, RGB becomes grey by ITU-R 601 luma
16-bit          the high byte (value // 256), grey and colour; 32-bit integers likewise, clipped to 16 bits
palette         its colours
transparency    laid over white (alpha channel, or one transparent colour or palette entry)
CMYK, YCCK      by Pillow's conversion without profile: R = (255 - C)(255 - K) / 255 and so on
LAB, HSV        by Pillow
float           refused: its range is unknown
ICC profile     ignored: numbers are taken as sRGB, as every training set's reader does
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tesela.core.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

#: What lies behind transparent pixels.
BACKGROUND = 255


def to_array(image: Image.Image, *, channels: int) -> NDArray[np.uint8]:
    """The pixels of an opened image as (H, W, channels), uint8.

    Raises:
        ImageError: the layout has no 8-bit meaning (float).
    """
    if image.mode == "F":
        raise ImageError(
            "the image holds floats of unknown range",
            code="unsupported_mode",
            hint="convert it to 8 bits per channel",
        )
    if image.mode.startswith("I"):
        return with_channels(_high_byte(np.asarray(image)), channels)
    wanted = "L" if channels == 1 else "RGB"
    if image.has_transparency_data:
        return with_channels(_over_background(np.asarray(image.convert("RGBA"))), channels)
    if image.mode == "L":
        return with_channels(np.array(image), channels)
    if image.mode != wanted and channels == 1:
        image = image.convert("RGB")
    return with_channels(np.array(image if image.mode == wanted else image.convert(wanted)), channels)


def with_channels(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Grey or RGB pixels, (H, W) or (H, W, 1 | 3), as (H, W, channels)."""
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if pixels.shape[2] == channels:
        return pixels
    return np.repeat(pixels, 3, axis=2) if channels == 3 else _luma(pixels)


def _luma(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """ITU-R 601 luma in 16-bit fixed point, the arithmetic that Pillow uses for its mode L."""
    wide = pixels.astype(np.uint32)
    grey = wide[..., 0] * 19595 + wide[..., 1] * 38470 + wide[..., 2] * 7471 + 0x8000
    return (grey >> 16).astype(np.uint8)[:, :, None]


def _high_byte(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    return (np.clip(values.astype(np.int64), 0, 0xFFFF) >> 8).astype(np.uint8)


def _over_background(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA over white, rounded to nearest."""
    alpha = pixels[:, :, 3:].astype(np.uint32)
    mixed = pixels[:, :, :3] * alpha + BACKGROUND * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)
