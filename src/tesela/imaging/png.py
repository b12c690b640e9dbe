"""PNG files of pixels in memory."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def encode_png(pixels: NDArray[np.uint8], *, level: int | None = None) -> bytes:
    """The PNG file of pixels (H, W, 1, 3 or 4), uint8, or (H, W) for grey.

    Args:
        pixels: of the picture.
        level: of compression, 0 to 9; the smallest file if None.
    """
    from PIL import Image

    stream = io.BytesIO()
    plain = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    how: dict[str, Any] = {"optimize": True} if level is None else {"compress_level": level}
    Image.fromarray(plain).save(stream, format="PNG", **how)
    return stream.getvalue()
