"""Limits of decoding: formats, pixels and bytes; strict for strangers, wide for own files.

Imports neither Pillow nor NumPy, so that settings can be checked before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tesela.core.errors import ConfigError

#: Formats that can be opened, by the names that options take.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM")
#: Usual endings that are no format's name.
_ALIASES = {"JPG": "JPEG", "TIF": "TIFF", "HEIC": "HEIF", "JP2": "JPEG2000", "PGM": "PPM", "PBM": "PPM"}


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeLimits:
    """What is refused before anything is decoded; the defaults are for files of strangers."""

    max_pixels: int = 40_000_000
    """Most pixels (width x height)."""
    max_bytes: int = 64 * 1024 * 1024
    """Most bytes of a file."""
    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP")
    """Formats that are opened, of ``FORMATS``."""
    memory: int | None = None
    """Most bytes of memory for an image that turns out to take more than its header tells; None for any
    number."""
    seconds: float | None = None
    """Most seconds of processor time for opening a file, and again for its first 20 million pixels, then in
    proportion; None for no limit. Only the main thread of a process keeps to it."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.formats) - set(FORMATS))
        if unknown or not self.formats:
            raise ConfigError(
                f"image format {unknown[0]!r} cannot be allowed" if unknown else "no image format is allowed",
                hint="choose from: " + ", ".join(FORMATS),
            )
        if self.max_pixels < 1:
            raise ConfigError(f"max_pixels cannot be {self.max_pixels}", hint="give 1 or more")


#: For files from anywhere, such as those that a server is sent.
DEFAULT_LIMITS = DecodeLimits()
#: For files on the user's own disk: every format that can be opened, and photographs of up to 250 megapixels.
LOCAL_LIMITS = DecodeLimits(max_pixels=250_000_000, max_bytes=2 << 30, formats=FORMATS)


def local_limits(formats: Iterable[str] = (), max_pixels: int | None = None) -> DecodeLimits:
    """Limits for the user's own files.

    Args:
        formats: the only ones to open, in any case, also as endings (``tif``), also with commas between; all
            where none is named.
        max_pixels: most pixels of an image; ``LOCAL_LIMITS.max_pixels`` by default.

    Raises:
        ConfigError: an unknown format, or less than a pixel.
    """
    return DecodeLimits(
        max_pixels=LOCAL_LIMITS.max_pixels if max_pixels is None else max_pixels,
        max_bytes=LOCAL_LIMITS.max_bytes,
        formats=format_names(formats) or FORMATS,
    )


def format_names(words: Iterable[str]) -> tuple[str, ...]:
    """Names of ``FORMATS`` for words in any case, endings and lists with commas; unknown ones as they are."""
    parts = [part.strip().removeprefix(".").upper() for word in words for part in word.split(",")]
    return tuple(dict.fromkeys(_ALIASES.get(part, part) for part in parts if part))
