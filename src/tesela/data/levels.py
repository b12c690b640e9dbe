"""Levels in use of images with 16 bits per channel, and those that 8 bits keep of them.

Instruments write 10 to 14 bits into 16, and the high byte keeps few levels of these. Looked for in up to 16
images, evenly spaced. Odd: of 16-bit colour only the high bytes are known, for Pillow keeps no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tesela.core.errors import ImageError
from tesela.data.scan import is_plain
from tesela.data.source import Items, decode_limits
from tesela.imaging.color import stored_integers
from tesela.imaging.decode import decode_stored
from tesela.imaging.header import recognise

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

#: No more levels than these are few enough for a remark, where the files hold more or end below half.
FEW = 128
_LOOKED_AT = 16
#: Formats that can hold 16 bits per channel.
_DEEP = ("PNG", "TIFF", "PPM", "JPEG2000")


def level_notes(items: Items) -> list[str]:
    """A remark where 16-bit images keep few of their levels in 8 bits; none otherwise."""
    stored, left, deep, looked = np.zeros(1 << 16, np.bool_), np.zeros(256, np.bool_), 0, 0
    for row in range(0, 0 if is_plain(items) else len(items), max(1, -(-len(items) // _LOOKED_AT))):
        looked += 1
        data = items.raw(row)
        if data is None or recognise(data) not in _DEEP:
            continue
        try:
            flat = decode_stored(data, _levels, limits=decode_limits(items)).reshape(-1)
        except ImageError:
            continue
        deep += int(flat.any())
        stored |= flat[: 1 << 16].astype(np.bool_)
        left |= flat[1 << 16 :].astype(np.bool_)
    kept, levels = int(left.sum()), int(stored.sum())
    if not deep or kept > FEW or (levels <= kept and left[128:].any()):
        return []
    low, high = (int(value) for value in np.flatnonzero(stored if levels else left)[[0, -1]])
    used = (
        f"{levels:,} of 65,536 levels, from {low:,} to {high:,}" if levels else f"high bytes {low} to {high}"
    )
    return [
        f"16-bit images ({deep} of {looked} that were looked at) use {used}; as 8 bits they keep the high "
        f"byte, and {kept} levels are left: rescale the range in use to all of 16 or 8 bits first"
    ]


def _levels(image: Image.Image, _: str) -> NDArray[np.uint8]:
    """Which 16-bit values (65,536), and which high bytes (256), an image has, in a row; none for 8 bits."""
    found = np.zeros((1, (1 << 16) + 256), np.uint8)
    if image.mode.startswith("I"):
        values, bits = stored_integers(image)
        found[0, np.unique(values).astype(np.int64)] = 1
        found[0, (1 << 16) + np.unique(np.asarray(values, np.int64) >> (bits - 8)).clip(0, 255)] = 1
    elif any(";16" in str(tile.args) for tile in getattr(image, "tile", ())):
        found[0, (1 << 16) + np.unique(np.asarray(image)).astype(np.int64)] = 1
    return found
