"""Mask files: values of pixels as they are stored, without any conversion of colours.

Palette images give their indices, 1-bit images 0 and 1, grey images their values, colour images (H, W, 3).
Lossy formats and more than 8 bits are refused, because their values are no class numbers. Sizes are changed
by taking the nearest pixel.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tesela.core.errors import ImageError
from tesela.imaging.decode import decode_stored
from tesela.imaging.limits import LOCAL_LIMITS
from tesela.imaging.preprocess import placement
from tesela.imaging.spec import ImageSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Value of a pixel that belongs to no class and counts nowhere.
IGNORE = 255
_FORMATS = replace(LOCAL_LIMITS, formats=("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"))


def decode_mask(source: bytes | Path) -> NDArray[np.uint8]:
    """Stored values (H, W), or colours (H, W, 3), of a mask file.

    Raises:
        ImageError: it cannot be decoded, is lossy, or has more than 8 bits.
    """
    return decode_stored(source, _stored, limits=_FORMATS)


def _stored(image: Image.Image, kind: str) -> NDArray[np.uint8]:
    if kind == "JPEG":
        raise ImageError(
            "a mask stored as JPEG has values that compression has changed",
            code="format_not_allowed",
            hint="export the masks as PNG from the program that made them",
        )
    if image.mode == "1":
        return np.asarray(image, np.uint8)
    if image.mode in ("L", "P"):
        return np.array(image, np.uint8)
    if image.mode == "LA":
        return np.array(image, np.uint8)[..., 0]
    if image.mode in ("RGB", "RGBA"):
        return np.array(image, np.uint8)[..., :3]
    bits = "16 bits" if image.mode.startswith("I") else f"the layout {image.mode}"
    raise ImageError(
        f"a mask with {bits} a pixel has no class numbers that are known",
        code="unsupported_mode",
        hint="save it with 8 bits a pixel, one value for each class",
    )


def mask_palette(source: bytes | Path) -> list[tuple[int, int, int]]:
    """Colours of a palette image by index; none of another."""
    colours: list[tuple[int, int, int]] = []

    def read(image: Image.Image, kind: str) -> NDArray[np.uint8]:
        del kind
        flat = (image.getpalette() or []) if image.mode == "P" else []
        colours.extend(
            (flat[place], flat[place + 1], flat[place + 2]) for place in range(0, len(flat) - 2, 3)
        )
        return np.zeros((1, 1), np.uint8)

    decode_stored(source, read, limits=_FORMATS)
    return colours


def encode_mask(mask: NDArray[np.uint8], colours: Sequence[tuple[int, int, int]]) -> bytes:
    """The palette PNG of class numbers (H, W); numbers without a colour are black."""
    image = Image.fromarray(mask)
    image.putpalette([value for colour in colours for value in colour] or [0, 0, 0])
    stream = io.BytesIO()
    image.save(stream, format="PNG", compress_level=6)
    return stream.getvalue()


def resize_mask(
    mask: NDArray[np.uint8],
    size: tuple[int, int],
    *,
    box: tuple[float, float, float, float] | None = None,
) -> NDArray[np.uint8]:
    """The part ``box`` (top, left, height, width; all by default) of a mask (H, W), at the nearest pixels."""
    whole = (0.0, 0.0, float(mask.shape[0]), float(mask.shape[1]))
    top, left, height, width = box or whole
    if (top, left, height, width) == whole and mask.shape == size:
        return mask
    rows = _nearest(top, height, size[0], mask.shape[0])
    columns = _nearest(left, width, size[1], mask.shape[1])
    return mask[rows[:, None], columns[None, :]]


def _nearest(start: float, extent: float, count: int, length: int) -> NDArray[np.intp]:
    """Pixels at the middle of ``count`` equal parts of a stretch."""
    places = start + (np.arange(count) + 0.5) * extent / count
    return np.clip(np.floor(places), 0, length - 1).astype(np.intp)


def box_in_view(box: tuple[int, int, int, int], size: tuple[int, int], spec: ImageSpec) -> NDArray[np.bool_]:
    """A box (left, top, width, height) of an image in the model's view (h, w), as ``fit_mask`` does."""
    place = placement(size, spec)
    inside = []
    for axis in (0, 1):
        at = _nearest(place.box[axis], place.box[axis + 2], place.view[axis + 2], size[axis])
        inside.append((at >= box[1 - axis]) & (at < box[1 - axis] + box[3 - axis]))
    top, left, height, width = place.view
    view = np.zeros(spec.size, np.bool_)
    view[top : top + height, left : left + width] = inside[0][:, None] & inside[1]
    return view


def fit_mask(mask: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.uint8]:
    """A mask (H, W) in the model's view (h, w), as ``fit_image`` fits its image; nothing is ``IGNORE``."""
    place = placement((mask.shape[0], mask.shape[1]), spec)
    top, left, height, width = place.view
    part = resize_mask(mask, (height, width), box=place.box)
    if (height, width) == spec.size:
        return part
    view = np.full(spec.size, IGNORE, np.uint8)
    view[top : top + height, left : left + width] = part
    return view
