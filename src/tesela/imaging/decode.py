"""Image decoder: pixels of a file in any allowed format, within limits, or a coded refusal.

Outcomes: the first frame of an animation, the first page of a TIFF, the main picture of a HEIC; orientation
applied (a damaged EXIF block is ignored); pixel layouts as ``color`` says. Metadata that a reader stumbles
over, and bytes behind the image's end, change nothing. Whatever a reader throws at a hostile file becomes an
ImageError with a code of the closed list CODES. With ``size_hint`` a large JPEG is decoded at 1/2, 1/4 or 1/8
of its size, never below the hint. JPEGs take the faster way of ``jpeg`` where it is installed, with the same
result.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from PIL import Image, UnidentifiedImageError

from tesela.core.errors import ImageError
from tesela.imaging.color import to_array
from tesela.imaging.guard.checksums import broken_chunk
from tesela.imaging.guard.turns import is_large, large_turn, limit_lifted
from tesela.imaging.guard.work import OutOfTimeError, excessive, time_limited
from tesela.imaging.header import Header, read_header
from tesela.imaging.jpeg import fast_pixels, is_fast, scale_for
from tesela.imaging.lean import versions
from tesela.imaging.limits import DEFAULT_LIMITS, FORMATS, DecodeLimits
from tesela.imaging.readers import reader_fault, require_reader
from tesela.imaging.rows import ArrayRows, ImageRows, PictureRows, upright

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Every code that an ImageError can carry, with what it means.
CODES = {
    "corrupt": "the file is whole but its content is damaged",
    "empty": "there are no bytes",
    "file_too_large": "the file has more bytes than the limit",
    "format_not_allowed": "a known image format that is not on the list of allowed ones",
    "not_an_image": "no known image format",
    "too_many_pixels": "more pixels than the limit",
    "too_much_work": "decoding would take far longer than the image's size explains",
    "truncated": "the file ends too early",
    "unreadable_file": "the file system does not give the bytes",
    "unsupported_mode": "pixels without an 8-bit meaning",
    "zero_size": "an image of no pixels",
}

_ORIENTATION = 0x0112
#: Pixels for which the time limit is as given; more get more.
_AT_EASE = 20_000_000
#: Words of decoders about layouts that are whole and that they do not know.
_UNKNOWN_LAYOUT = re.compile(
    r"unsupported|not supported|cannot handle|unknown (pixel|color) mode", re.IGNORECASE
)
_T = TypeVar("_T")


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
        channels: 1 for grey, 2 for grey and alpha, 3 for RGB, 4 for RGB and alpha.
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
    data, header = _admitted(source, limits)
    scale = scale_for(header.size, size_hint) if header.size is not None and header.format == "JPEG" else 1
    if header.plain and header.size is not None:
        with large_turn(header.size[0] * header.size[1] // scale**2):
            pixels = fast_pixels(
                data, header.size, grey=False, channels=channels, scale=scale, scratch=scratch
            )
        if pixels is not None:
            return pixels

    def read(image: Image.Image, encoded: bytes) -> NDArray[np.uint8]:
        orientation = _orientation(image)
        hint = size_hint[::-1] if size_hint and orientation >= 5 else size_hint
        with large_turn(image.height * image.width // scale**2):
            if header.format == "JPEG":
                return upright(_jpeg(image, encoded, channels, hint, scratch), orientation)
            return upright(to_array(image, channels=channels), orientation)

    return _worked(data, header, limits, read)


def decode_rows(
    source: bytes | Path,
    use: Callable[[ImageRows], _T],
    *,
    channels: int = 3,
    limits: DecodeLimits = DEFAULT_LIMITS,
) -> _T:
    """What ``use`` makes of an encoded image's rows, which are the pixels that ``decode`` gives.

    Less memory than ``decode`` takes: the reader's pixels are converted some rows at a time.

    Raises:
        ImageError: with a code of CODES, or what ``use`` raises.
    """
    data, header = _admitted(source, limits)

    def read(image: Image.Image, encoded: bytes) -> _T:
        orientation = _orientation(image)
        with large_turn(image.height * image.width):
            pixels = None
            if header.format == "JPEG" and image.mode in ("L", "RGB"):
                pixels = fast_pixels(
                    encoded,
                    (image.height, image.width),
                    grey=image.mode == "L",
                    channels=len(image.mode),
                    scale=1,
                    scratch=None,
                )
            elif image.mode[0] in "IF":  # their range is a matter of all pixels
                pixels = to_array(image, channels=1)
            if pixels is not None:
                return use(ArrayRows(pixels, channels, orientation))
            if header.format == "JPEG" and image.mode == "RGB" and limits.memory is not None:
                # Pillow's fourth byte of a pixel: simplejpeg, which the header's depth counts on, gave it up
                needed = image.height * image.width * (header.depth + is_fast())
                if needed > limits.memory:
                    raise MemoryError
            return use(PictureRows(image, channels, orientation))

    return _worked(data, header, limits, read)


def decode_stored(
    source: bytes | Path, convert: Callable[[Image.Image, str], NDArray[np.uint8]], *, limits: DecodeLimits
) -> NDArray[np.uint8]:
    """Pixels of an encoded image as ``convert`` reads them from Pillow's image and the format's name.

    Raises:
        ImageError: with a code of CODES.
    """
    data, header = _admitted(source, limits)

    def read(image: Image.Image, _: bytes) -> NDArray[np.uint8]:
        orientation = _orientation(image)
        with large_turn(image.height * image.width):
            return upright(convert(image, str(header.format)), orientation)

    return _worked(data, header, limits, read)


def picture_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """An image of Pillow as its file is read: upright, (H, W, 1) for grey, 3 or with transparency 4 channels.

    Raises:
        ImageError: its layout has no 8-bit meaning.
    """
    grey = image.mode in ("1", "L") or image.mode.startswith("I")
    channels = 4 if image.has_transparency_data else 1 if grey else 3
    orientation = _orientation(image)
    return upright(to_array(image, channels=channels), orientation)


def upright_size(source: bytes | Path, *, limits: DecodeLimits = DEFAULT_LIMITS) -> tuple[int, int]:
    """(height, width) that ``decode`` would give, without decoding pixels.

    Raises:
        ImageError: the file is refused already by its header.
    """
    data, header = _admitted(source, limits)
    if header.plain and header.size is not None:
        return header.size

    def read(image: Image.Image, _: bytes) -> tuple[int, int]:
        size = image.height, image.width
        return size[::-1] if _orientation(image) >= 5 else size

    return _worked(data, header, limits, read)


def image_facts(
    source: bytes | Path, *, limits: DecodeLimits = DEFAULT_LIMITS
) -> tuple[str, str, tuple[int, int]]:
    """(format, Pillow mode, (height, width) as stored) without decoding pixels.

    Raises:
        ImageError: the file is refused already by its header.
    """
    data, header = _admitted(source, limits)
    return _worked(
        data,
        header,
        limits,
        lambda image, _: (str(header.format), image.mode, (image.height, image.width)),
    )


def _worked(
    data: bytes, header: Header, limits: DecodeLimits, work: Callable[[Image.Image, bytes], _T]
) -> _T:
    """What ``work`` makes of the opened image and its file; without metadata where it fails with them.

    Raises:
        ImageError: whatever goes wrong, with its code.
    """
    if header.format == "PNG" and broken_chunk(data):
        raise _refuse("corrupt", limits)
    fault: Exception | None = None
    for encoded in versions(data, header.format):
        try:
            with time_limited(limits.seconds):
                image = _open(encoded, header)
            with image:
                _check_size((image.height, image.width), limits)
                with time_limited(
                    limits.seconds and limits.seconds * max(1, image.height * image.width / _AT_EASE)
                ):
                    return work(image, encoded)
        except ImageError:
            raise
        except OutOfTimeError:
            raise _refuse("too_much_work", limits, "it was given up") from None
        except MemoryError as error:
            raise ImageError(
                "there is not enough memory for the image's pixels",
                code="too_many_pixels",
                hint="shrink it, or decode fewer images at once",
                cause="too many pixels",
            ) from error
        except Exception as error:  # whatever a reader throws at a hostile file
            fault = fault or error
    code = _fault(data, header, fault)
    raise _refuse(code, limits, str(header.format) if code == "unsupported_mode" else "") from fault


def _open(data: bytes, header: Header) -> Image.Image:
    """The project's one call of ``Image.open``: the header is parsed, no pixel is decoded.

    Odd: Pillow's own limit is lifted for a size that is known, and within ours, and for readers that allocate
    nothing before their size can be checked (WebP's does).
    """
    kind = str(header.format)
    require_reader(kind)
    pixels = header.size and header.size[0] * header.size[1]
    with limit_lifted(kind != "WEBP" if pixels is None else is_large(pixels)):
        return Image.open(io.BytesIO(data), formats=(kind,))


def _fault(data: bytes, header: Header, error: Exception | None) -> str:
    """The code of what a reader threw."""
    if isinstance(error, Image.DecompressionBombError):
        return "too_many_pixels"
    if isinstance(error, UnidentifiedImageError):
        error = reader_fault(data, str(header.format))
    if _UNKNOWN_LAYOUT.search(str(error)):
        return "unsupported_mode"
    return "corrupt" if _complete(data, header.format) else "truncated"


def _admitted(source: bytes | Path, limits: DecodeLimits) -> tuple[bytes, Header]:
    """The file's bytes, and what its header says, once it is not refused by it."""
    data = source if isinstance(source, bytes) else _read(source, limits)
    return data, _admit(data, limits)


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
    if reason := excessive(data, header):
        raise _refuse("too_much_work", limits, f"it has {reason}")
    return header


def _check_size(size: tuple[int, int], limits: DecodeLimits) -> None:
    if min(size) < 1:
        raise _refuse("zero_size", limits)
    if size[0] * size[1] > limits.max_pixels:
        raise _refuse("too_many_pixels", limits, f"{size[1]} x {size[0]}")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 without one, in a damaged block, and for TIFF, which Pillow turns itself."""
    try:
        value = image.getexif().get(_ORIENTATION, 1) if image.format != "TIFF" else 1
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
            "store it smaller or compressed",
        ),
        "format_not_allowed": (
            f"the format {detail} is not allowed",
            "allow it with --formats, or convert it to " + ", ".join(limits.formats)
            if detail in FORMATS
            else "convert it to " + ", ".join(limits.formats),
        ),
        "not_an_image": ("this is no image of a known format", "use " + ", ".join(limits.formats)),
        "too_many_pixels": (
            f"the image has more than {limits.max_pixels:,} pixels {detail}".rstrip(),
            "shrink it, or raise --max-pixels",
        ),
        "too_much_work": (
            f"the image takes too long to decode: {detail}",
            "save it again with another program, as a baseline JPEG or a PNG",
        ),
        "truncated": ("the image ends too early", "copy or download the file again"),
        "unsupported_mode": (
            f"the pixel layout of the {detail} is not supported",
            "convert it to 8 bits per channel, grey or RGB",
        ),
        "zero_size": ("the image has no pixels", "replace the file"),
    }[code]
    cause = {"format_not_allowed": detail, "too_many_pixels": "too many pixels"}.get(code, "")
    return ImageError(message, code=code, hint=hint, cause=cause)
