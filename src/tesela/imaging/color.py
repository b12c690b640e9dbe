"""Any pixel layout as grey or RGB, with alpha or without, in 8 bits; one outcome for each.

1-bit           0 and 255
grey, RGB       as they are; grey becomes RGB by repetition, RGB becomes grey by ITU-R 601 luma
16-bit          the high byte (value // 256), grey and colour; files that say they hold 12 bits: value // 16
32-bit, signed  as 16-bit if all values are from 0 to 65,535, else refused: their range is unknown
palette         its colours
transparency    laid over white (alpha channel, or one transparent colour or palette entry); with 2 channels
                (grey and alpha) and 4 (RGB and alpha) kept as it is, and 255 where an image has none
CMYK, YCCK      by Pillow's conversion without profile: R = (255 - C)(255 - K) / 255 and so on
LAB, HSV        by Pillow
float           refused: its range is unknown
ICC profile     ignored: numbers are taken as sRGB, as every training set's reader does
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tesela.core.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from PIL import Image

#: Share of red, green and blue in the brightness of a colour (ITU-R 601).
LUMA = (0.299, 0.587, 0.114)
#: What lies behind transparent pixels.
BACKGROUND = 255
#: Most channels that an image of a file gives: red, green, blue and alpha.
FILE_CHANNELS = 4
#: Pixels that are converted at once.
_AT_ONCE = 1 << 20
#: TIFF's tags BitsPerSample and PhotometricInterpretation.
_BITS, _PHOTOMETRIC = 258, 262


def to_array(image: Image.Image, *, channels: int) -> NDArray[np.uint8]:
    """The pixels of an opened image as (H, W, channels), uint8; channels from 1 to 4.

    Raises:
        ImageError: the layout has no 8-bit meaning (floats, integers of unknown range), or no image of a file
            has so many channels.
    """
    if channels > FILE_CHANNELS:
        raise _no_such_channels(f"an image of {len(image.getbands())} channels", channels)
    if image.mode == "F":
        raise ImageError(
            "the image holds floats of unknown range",
            code="unsupported_mode",
            hint="convert it to 8 bits per channel",
        )
    if image.mode.startswith("I"):
        return with_channels(_high_byte(*stored_integers(image)), channels)
    if image.has_transparency_data:
        mode, work = "RGBA", _unchanged
    else:
        mode, work = ("L" if image.mode == "L" else "RGB"), _unchanged
    return _by_bands(image, mode, lambda band: with_channels(work(band), channels), channels)


def stored_integers(image: Image.Image) -> tuple[NDArray[np.integer], int]:
    """Grey values (H, W) of an image with more than 8 bits, dark at 0, and how many bits its file names.

    Raises:
        ImageError: values below 0 or above 65,535.
    """
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    bits = 12 if tags.get(_BITS) == (12,) else 16
    inverted = tags.get(_PHOTOMETRIC) == 0 and image.mode.startswith("I;16")  # white is zero
    values: NDArray[np.integer] = np.asarray(image)
    if image.mode == "I" and values.size and not 0 <= int(values.min()) <= int(values.max()) <= 0xFFFF:
        raise ImageError(
            f"the image holds integers from {values.min()} to {values.max()}, whose range is unknown",
            code="unsupported_mode",
            hint="convert it to 8 bits per channel, or to 0..65535",
        )
    return (0xFFFF - values if inverted else values), bits


def with_channels(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Pixels (H, W) or (H, W, C) as (H, W, channels).

    Where the numbers differ, both are of 1 (grey), 2 (grey and alpha), 3 (RGB) and 4 (RGB and alpha).

    Raises:
        ImageError: they differ, and one is another.
    """
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    given = pixels.shape[2]
    if given == channels:
        return pixels
    if max(given, channels) > FILE_CHANNELS:
        raise _no_such_channels(f"an image of {given} channels", channels)
    if given in (2, 4) and channels in (1, 3):
        pixels = _by_rows(_over_background, pixels, given - 1)
    colour = pixels[:, :, :-1] if given in (2, 4) and channels in (2, 4) else pixels
    wanted = 1 if channels < 3 else 3
    if colour.shape[2] != wanted:
        colour = np.repeat(colour, 3, axis=2) if wanted == 3 else _by_rows(_luma, colour, 1)
    if channels in (1, 3):
        return colour
    alpha = pixels[:, :, -1:] if given in (2, 4) else np.full((*pixels.shape[:2], 1), 255, np.uint8)
    return np.concatenate([colour, alpha], axis=2)


def as_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels (H, W, C) as RGB for a picture; of more than four channels the first three."""
    return pixels[:, :, :3] if pixels.shape[2] > FILE_CHANNELS else with_channels(pixels, 3)


def colour_channels(channels: int) -> int:
    """The channels that are colour: without the alpha of 2 and 4."""
    return channels - 1 if channels in (2, 4) else channels


def _no_such_channels(what: str, channels: int) -> ImageError:
    return ImageError(
        f"{what} is none of {channels}",
        code="unsupported_mode",
        hint="files give 1 to 4 channels; other numbers come as arrays of just that many",
    )


def _by_rows(
    work: Callable[[NDArray[Any]], NDArray[np.uint8]], pixels: NDArray[Any], channels: int
) -> NDArray[np.uint8]:
    """``work`` on some rows (h, W, C) at a time, so that its wide numbers never fill the memory."""
    height, width = pixels.shape[:2]
    step = max(1, _AT_ONCE // max(1, width))
    found = np.empty((height, width, channels), np.uint8)
    for top in range(0, height, step):
        found[top : top + step] = work(pixels[top : top + step])
    return found


def _by_bands(
    image: Image.Image, mode: str, work: Callable[[NDArray[Any]], NDArray[np.uint8]], channels: int
) -> NDArray[np.uint8]:
    """``work`` on some rows of an image at a time, converted to a mode: no second whole lies beside it."""
    width, height = image.size
    step = max(1, _AT_ONCE // max(1, width))
    found = np.empty((height, width, channels), np.uint8)
    for top in range(0, height, step):
        band = image if height <= step else image.crop((0, top, width, min(top + step, height)))
        found[top : top + step] = work(np.asarray(band if band.mode == mode else band.convert(mode)))
    return found


def _unchanged(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels


def _luma(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """ITU-R 601 luma in 16-bit fixed point, the arithmetic that Pillow uses for its mode L."""
    wide = pixels.astype(np.uint32)
    grey = wide[..., 0] * 19595 + wide[..., 1] * 38470 + wide[..., 2] * 7471 + 0x8000
    return (grey >> 16).astype(np.uint8)[:, :, None]


def _high_byte(values: NDArray[np.integer], bits: int) -> NDArray[np.uint8]:
    return _by_rows(
        lambda rows: (rows.astype(np.uint16) >> (bits - 8)).clip(0, 255).astype(np.uint8)[:, :, None],
        values,
        1,
    )


def _over_background(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA or grey with alpha over white, to nearest; no value exceeds 255 * 255 + 127, as 16 bits hold."""
    alpha = pixels[:, :, -1:].astype(np.uint16)
    mixed = pixels[:, :, :-1] * alpha
    mixed += BACKGROUND * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)
