"""Pillow's readers of formats that not every installation has."""

from __future__ import annotations

import io
from functools import cache

from PIL import Image, features

from tesela.core.errors import ImageError

#: What brings a reader that is missing.
_CURES = {
    "HEIF": 'pip install "tesela[heic]", or convert it to JPEG',
    "AVIF": "install Pillow's own wheel, which reads it, or convert it to JPEG",
    "JPEG2000": "install Pillow's own wheel, which reads it, or convert it to JPEG",
}
_FEATURES = {"AVIF": "avif", "JPEG2000": "jpg_2000"}


def require_reader(kind: str) -> None:
    """Make sure that Pillow can open a format.

    Raises:
        ImageError: its reader is not installed.
    """
    if not _ready(kind):
        raise ImageError(
            f"no reader of {kind} images is installed",
            code="format_not_allowed",
            hint=_CURES[kind],
            cause=kind,
        )


def reader_fault(data: bytes, kind: str) -> Exception | None:
    """What the reader of a format throws at a file, which ``Image.open`` keeps to itself."""
    try:
        Image.OPEN[kind][0](io.BytesIO(data), "")
    except Exception as error:
        return error
    return None


@cache
def _ready(kind: str) -> bool:
    if kind in _FEATURES:
        return bool(features.check(_FEATURES[kind]))
    if kind == "HEIF":
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            return False
        register_heif_opener()
    return True
