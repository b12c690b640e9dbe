"""Image decoder: the single call of ``PIL.Image.open``, with formats and limits checked.

Outcomes: the first frame of an animation; EXIF orientation applied (a damaged EXIF block is ignored); pixel
layouts as ``color`` says. Whatever a decoder throws at a hostile file becomes an ImageError with a code of
the closed list CODES. With ``size_hint`` a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, never below
the hint. JPEGs take the faster way of ``jpeg`` where it is installed, with the same result.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tesela.core.errors import ConfigError, ImageError
from tesela.imaging.color import to_array
from tesela.imaging.header import Header, read_header
from tesela.imaging.jpeg import fast_pixels, scale_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Every code that an ImageError can carry, with what it means.
CODES = {
    "corrupt": "the file is whole but its content is damaged",
    "empty": "there are no bytes",
    "file_too_large": "the file has more bytes than the limit",
    "format_not_allowed": "a known image format that is not on the list of allowed ones",
    "not_an_image": "no known image format",
    "too_many_pixels": "more pixels than the limit",
    "truncated": "the file ends too early",
    "unreadable_file": "the file system does not give the bytes",
    "unsupported_mode": "pixels without an 8-bit meaning",
    "zero_size": "an image of no pixels",
}

#: Formats that can be allowed; the first three are by default.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_ORIENTATION = 0x0112


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeLimits:
    """What is refused before anything is decoded."""

    max_pixels: int = 40_000_000
    """Most pixels (width x height)."""
    max_bytes: int = 64 * 1024 * 1024
    """Most bytes of a file."""
    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP")
    """Formats that are opened; BMP, GIF and TIFF can be added."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.formats) - set(FORMATS))
        if unknown:
            raise ConfigError(
                f"image format {unknown[0]!r} cannot be allowed", hint="choose from: " + ", ".join(FORMATS)
            )


DEFAULT_LIMITS = DecodeLimits()


def decode(
    source: bytes | Path,
    *,
    channels: int = 3,
    limits: DecodeLimits = DEFAULT_LIMITS,
    size_hint: tuple[int, int] | None = None,
    scratch: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """The pixels of an encoded image.

    Args:
        source: the file's bytes, or its path.
        channels: 1 for grey, 3 for RGB.
        limits: what to refuse.
        size_hint: (height, width) that is enough; a large JPEG may come back smaller than it is, but not
            below this.
        scratch: for training: flat memory that the result may lie in until the next call with it, and
            permission to be off by about a grey level on average (see jpeg.py).

    Returns:
        (H, W, channels), uint8.

    Raises:
        ImageError: with a code of CODES.
    """
    data = source if isinstance(source, bytes) else _read(source, limits)
    header = _admit(data, limits)
    if header.plain and header.size is not None:
        scale = scale_for(header.size, size_hint)
        pixels = fast_pixels(data, header.size, grey=False, channels=channels, scale=scale, scratch=scratch)
        if pixels is not None:
            return pixels
    try:
        with _open(data, limits) as image:
            orientation = _orientation(image)
            hint = size_hint[::-1] if size_hint and orientation >= 5 else size_hint
            pixels = (
                _jpeg(image, data, channels, hint, scratch)
                if header.format == "JPEG"
                else to_array(image, channels=channels)
            )
            return upright(pixels, orientation)
    except ImageError:
        raise
    except Exception as error:  # whatever a decoder throws at a hostile file
        raise _refuse("corrupt" if _complete(data, header.format) else "truncated", limits) from error


def decode_stored(
    source: bytes | Path, convert: Callable[[Image.Image, str], NDArray[np.uint8]], *, limits: DecodeLimits
) -> NDArray[np.uint8]:
    """Pixels of an encoded image as ``convert`` reads them from Pillow's image and the format's name.

    Raises:
        ImageError: with a code of CODES.
    """
    data = source if isinstance(source, bytes) else _read(source, limits)
    header = _admit(data, limits)
    try:
        with _open(data, limits) as image:
            return upright(convert(image, str(header.format)), _orientation(image))
    except ImageError:
        raise
    except Exception as error:  # as in decode
        raise _refuse("corrupt" if _complete(data, header.format) else "truncated", limits) from error


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Apply an EXIF orientation (1..8) to (H, W) or (H, W, C) pixels: transpose first, then flip."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def upright_size(source: bytes | Path, *, limits: DecodeLimits = DEFAULT_LIMITS) -> tuple[int, int]:
    """(height, width) that ``decode`` would give, without decoding pixels.

    Raises:
        ImageError: the file is refused already by its header.
    """
    data = source if isinstance(source, bytes) else _read(source, limits)
    header = _admit(data, limits)
    if header.plain and header.size is not None:
        return header.size
    try:
        with _open(data, limits) as image:
            size = image.height, image.width
            return size[::-1] if _orientation(image) >= 5 else size
    except ImageError:
        raise
    except Exception as error:  # as in decode
        raise _refuse("corrupt" if _complete(data, header.format) else "truncated", limits) from error


def image_facts(
    source: bytes | Path, *, limits: DecodeLimits = DEFAULT_LIMITS
) -> tuple[str, str, tuple[int, int]]:
    """(format, Pillow mode, (height, width) as stored) without decoding pixels.

    Raises:
        ImageError: the file is refused already by its header.
    """
    data = source if isinstance(source, bytes) else _read(source, limits)
    header = _admit(data, limits)
    try:
        with _open(data, limits) as image:
            return str(header.format), image.mode, (image.height, image.width)
    except ImageError:
        raise
    except Exception as error:  # as in decode
        raise _refuse("corrupt" if _complete(data, header.format) else "truncated", limits) from error


def _open(data: bytes, limits: DecodeLimits) -> Image.Image:
    """The project's one call of ``Image.open``: the header is parsed, no pixel is decoded."""
    try:
        image = Image.open(io.BytesIO(data), formats=limits.formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _refuse("too_many_pixels", limits) from error
    _check_size((image.height, image.width), limits)
    return image


def _read(path: Path, limits: DecodeLimits) -> bytes:
    try:
        if path.stat().st_size > limits.max_bytes:
            raise _refuse("file_too_large", limits)
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or "input/output error"
        raise ImageError(
            f"the file cannot be read: {reason}",
            code="unreadable_file",
            hint="check the path and its permissions",
        ) from error


def _admit(data: bytes, limits: DecodeLimits) -> Header:
    """Refuse by length, signature and stored size; return what the header says."""
    if not data:
        raise _refuse("empty", limits)
    if len(data) > limits.max_bytes:
        raise _refuse("file_too_large", limits)
    header = read_header(data)
    if header.format is None:
        raise _refuse("not_an_image", limits)
    if header.format not in limits.formats:
        raise _refuse("format_not_allowed", limits, header.format)
    if header.size is not None:
        _check_size(header.size, limits)
    return header


def _check_size(size: tuple[int, int], limits: DecodeLimits) -> None:
    if min(size) < 1:
        raise _refuse("zero_size", limits)
    if size[0] * size[1] > limits.max_pixels:
        raise _refuse("too_many_pixels", limits, f"{size[1]} x {size[0]}")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 if there is none or the block is damaged."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block does not make the pixels unreadable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _jpeg(
    image: Image.Image,
    data: bytes,
    channels: int,
    hint: tuple[int, int] | None,
    scratch: NDArray[np.uint8] | None,
) -> NDArray[np.uint8]:
    """A JPEG's pixels, at the smallest scale that the hint allows."""
    size = image.height, image.width
    scale = scale_for(size, hint)
    if image.mode in ("L", "RGB"):
        pixels = fast_pixels(
            data, size, grey=image.mode == "L", channels=channels, scale=scale, scratch=scratch
        )
        if pixels is not None:
            return pixels
    if scale > 1:
        image.draft(None, (size[1] // scale, size[0] // scale))
    return to_array(image, channels=channels)


def _complete(data: bytes, kind: str | None) -> bool:
    """Whether the file's own end is there."""
    if kind == "JPEG":
        return b"\xff\xd9" in data[-4096:]
    if kind == "PNG":
        return b"IEND" in data[-4096:]
    if kind == "WEBP":
        return len(data) >= int.from_bytes(data[4:8], "little") + 8
    return True


def _refuse(code: str, limits: DecodeLimits, detail: str = "") -> ImageError:
    """The ImageError of a code, with its message and cure."""
    message, hint = {
        "corrupt": ("the image is damaged", "replace the file"),
        "empty": ("the file is empty", "replace the file"),
        "file_too_large": (
            f"the file has more than {limits.max_bytes:,} bytes",
            "make it smaller, or raise max_bytes",
        ),
        "format_not_allowed": (
            f"the format {detail} is not allowed",
            "convert it to " + ", ".join(limits.formats),
        ),
        "not_an_image": ("this is no image of a known format", "use " + ", ".join(limits.formats)),
        "too_many_pixels": (
            f"the image has more than {limits.max_pixels:,} pixels {detail}".rstrip(),
            "shrink it, or raise max_pixels",
        ),
        "truncated": ("the image ends too early", "copy or download the file again"),
        "zero_size": ("the image has no pixels", "replace the file"),
    }[code]
    return ImageError(message, code=code, hint=hint)
