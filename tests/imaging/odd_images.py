"""Bad and odd images, each with the outcome that is documented for it (docs/outcomes.md)."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageCms
from scripts.hostile_images import PASSES, SIZES, chunk, jpeg, png

_VALUES = np.random.default_rng(0).integers(0, 256, (24, 16, 4), np.uint8)
_COLOUR = Image.fromarray(_VALUES[..., :3])


def encoded(image: Image.Image = _COLOUR, kind: str = "PNG", **options: Any) -> bytes:
    """A file of a picture."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def with_text() -> bytes:
    """A PNG with a text."""
    data = encoded()
    return data[:33] + chunk(b"tEXt", b"Title\0of the picture") + data[33:]


def turned(orientation: int) -> bytes:
    """A PNG with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(exif=exif)


def palette() -> bytes:
    """A PNG of a palette with one transparent entry."""
    image = Image.fromarray(_VALUES[..., 0] // 64).convert("P")
    image.putpalette(range(12))
    return encoded(image, transparency=1)


def sixteen_bits(colour: int) -> bytes:
    """A 16-bit PNG of a colour type."""
    channels = {0: 1, 2: 3, 6: 4}[colour]
    row = b"\0" + struct.pack(f">{2 * channels}H", *range(0, 2 * channels * 257, 257))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")


def animated(kind: str, **options: Any) -> bytes:
    """Two frames, the first of them the usual picture."""
    return encoded(_COLOUR, kind, save_all=True, append_images=[Image.new("RGB", (16, 24))], **options)


def profile() -> bytes:
    """A PNG with a colour profile."""
    return encoded(icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes())


def resized(size: tuple[int, int]) -> bytes:
    """A PNG of (width, height)."""
    return encoded(_COLOUR.resize(size))


#: Group -> what it is -> a file.
ODD: dict[str, dict[str, Callable[[], bytes]]] = {
    "Legal and odd": {
        **{f"EXIF orientation {number}": lambda number=number: turned(number) for number in range(1, 9)},  # type: ignore[misc]
        "EXIF that is damaged": lambda: encoded(exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        "grey": lambda: encoded(Image.fromarray(_VALUES[..., 0])),
        "1 bit": lambda: encoded(Image.fromarray(_VALUES[..., 0] > 127)),
        "16 bits, grey": lambda: sixteen_bits(0),
        "16 bits, colour": lambda: sixteen_bits(2),
        "16 bits, colour with transparency": lambda: sixteen_bits(6),
        "transparency": lambda: encoded(Image.fromarray(_VALUES)),
        "palette with a transparent entry": palette,
        "CMYK JPEG": lambda: encoded(Image.fromarray(_VALUES, "CMYK"), "JPEG"),
        "progressive JPEG": lambda: encoded(_COLOUR, "JPEG", progressive=True),
        "interlaced PNG": lambda: png((24, 16), interlaced=True),
        "colour profile": profile,
        "animated WebP": lambda: animated("WEBP", lossless=True),
        "animated PNG": lambda: animated("PNG"),
        "1 x 1 pixels": lambda: resized((1, 1)),
        "1 x 500 pixels": lambda: resized((500, 1)),
        "500 x 1 pixels": lambda: resized((1, 500)),
        "bytes behind the end": lambda: jpeg() + b"<html>" * 100,
        "a PNG named as JPEG": encoded,
        "HTML within a comment": lambda: jpeg()[:2] + b"\xff\xfe\0\x10<script>alert" + jpeg()[2:],
    },
    "Damaged or no image": {
        "no bytes": lambda: b"",
        "HTML": lambda: b"<html><body>not found</body></html>",
        "text": lambda: b"hello " * 20,
        "SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "PDF": lambda: b"%PDF-1.7 " + bytes(50),
        "GIF": lambda: encoded(_COLOUR, "GIF"),
        "BMP": lambda: encoded(_COLOUR, "BMP"),
        "TIFF": lambda: encoded(_COLOUR, "TIFF"),
        "JPEG, first half": lambda: jpeg()[: len(jpeg()) // 2],
        "PNG, first half": lambda: encoded()[: len(encoded()) // 2],
        "WebP, first half": lambda: encoded(_COLOUR, "WEBP")[: len(encoded(_COLOUR, "WEBP")) // 2],
        "PNG, a bit of its pixels changed": lambda: changed(encoded(), b"IDAT", 30),
        "PNG, a bit of its palette changed": lambda: changed(palette(), b"PLTE", 6),
        "PNG, a bit of its text changed": lambda: changed(with_text(), b"tEXt", 12),
        "PNG of no width": lambda: resize_header(encoded(), 0, 24),
        "JPEG of no height": lambda: jpeg_height(0),
        "JPEG with a frame that says 60,000 x 60,000": lambda: jpeg_height(60_000, 60_000),
    },
    "Hostile": {**PASSES, **SIZES},
}


def changed(data: bytes, after: bytes, offset: int) -> bytes:
    """A file with one bit flipped, some bytes behind a word."""
    at = data.index(after) + offset
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def resize_header(data: bytes, width: int, height: int) -> bytes:
    """A PNG whose header says another size."""
    head = struct.pack(">II", width, height) + data[24:29]
    return data[:8] + chunk(b"IHDR", head) + data[33:]


def jpeg_height(height: int, width: int = 64) -> bytes:
    """A baseline JPEG whose frame says another size."""
    data = jpeg(progressive=False)
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]
