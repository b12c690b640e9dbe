"""PNG files of pixels in memory."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from tesela.imaging.color import FILE_CHANNELS, as_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray


def encode_png(pixels: NDArray[np.uint8], *, level: int | None = None) -> bytes:
    """The PNG file of pixels (H, W, C), uint8, or (H, W) for grey; of more than four channels three are seen.

    Args:
        pixels: of the picture.
        level: of compression, 0 to 9; the smallest file if None.
    """
    from PIL import Image

    stream = io.BytesIO()
    plain = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    plain = as_rgb(plain) if plain.ndim == 3 and plain.shape[-1] > FILE_CHANNELS else plain
    how: dict[str, Any] = {"optimize": True} if level is None else {"compress_level": level}
    Image.fromarray(plain).save(stream, format="PNG", **how)
    return stream.getvalue()
