"""Sound files with odd metadata: the pixels are those of the plain file; truncated ones stay errors."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tesela.core.errors import ImageError
from tesela.imaging.decode import decode, image_facts, upright_size

VALUES = (np.arange(24 * 16 * 3) % 251).astype(np.uint8).reshape(24, 16, 3)
PICTURE = Image.fromarray(VALUES)


def encoded(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, kind, **options)
    return buffer.getvalue()


PNG, JPEG, WEBP = encoded("PNG"), encoded("JPEG", quality=95), encoded("WEBP", lossless=True)
LARGE = zlib.compress(bytes(8_000_000), 9)


def chunk(kind: bytes, body: bytes, check: int | None = None) -> bytes:
    check = zlib.crc32(kind + body) if check is None else check
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


CHUNKS = {
    "compressed text": chunk(b"zTXt", b"workflow\0\0" + LARGE),
    "text of 60 MB": chunk(b"tEXt", b"k\0" + bytes(60_000_000)),
    "large profile": chunk(b"iCCP", b"profile\0\0" + LARGE),
    "damaged profile": chunk(b"iCCP", b"profile\0\0no zlib"),
    "damaged text": chunk(b"iTXt", b"k"),
    "wrong checksum of a text": chunk(b"tEXt", b"k\0v", 0),
    "unknown": chunk(b"prVt", b"private"),
    "damaged EXIF": chunk(b"eXIf", b"zz"),
    "short resolution": chunk(b"pHYs", b"z"),
    "damaged animation": chunk(b"fcTL", b"12"),
}


@pytest.mark.parametrize("place", [33, len(PNG) - 12])
@pytest.mark.parametrize("name", CHUNKS)
def test_png_chunks_change_no_pixel(name: str, place: int) -> None:
    data = PNG[:place] + CHUNKS[name] + PNG[place:]
    assert np.array_equal(decode(data), VALUES)
    assert upright_size(data) == (24, 16)
    assert image_facts(data) == ("PNG", "RGB", (24, 16))


def test_orientation_is_kept_beside_text_that_is_taken_away() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded("PNG", exif=exif)
    found = decode(data[:33] + CHUNKS["compressed text"] + data[33:])
    assert np.array_equal(found, np.rot90(VALUES, -1))


SEGMENTS = {
    "damaged EXIF": segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "damaged list of pictures": segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff"),
    "short profile": segment(0xE2, b"ICC_PROFILE\0\xff"),
    "large profile": b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes([part + 1, 40]) + bytes(65_000)) for part in range(40)
    ),
    "damaged Photoshop block": segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\xff\xff\xff\xff"),
    "short Adobe marker": segment(0xEE, b"Adobe\0"),
    "comment": segment(0xFE, b"c" * 60_000),
    "fill bytes": b"\xff\xff\xff",
}


@pytest.mark.parametrize("name", SEGMENTS)
def test_jpeg_segments_change_no_pixel(name: str) -> None:
    assert np.array_equal(decode(JPEG[:2] + SEGMENTS[name] + JPEG[2:]), decode(JPEG))


def test_bytes_behind_the_end_change_no_pixel() -> None:
    """A phone's short film behind its photograph, and padding."""
    noise = np.random.default_rng(0).integers(0, 256, 50_000, np.uint8).tobytes()
    for tail in (b"\0\0\0\x18ftypmp42" + noise, bytes(100_000), JPEG):
        assert np.array_equal(decode(JPEG + tail), decode(JPEG))
        assert np.array_equal(decode(PNG + tail), VALUES)
        assert np.array_equal(decode(WEBP + tail), VALUES)


def test_the_first_picture_of_a_phones_mpo_is_taken() -> None:
    stream = io.BytesIO()
    other = Image.new("RGB", (16, 24), "red")
    PICTURE.save(stream, "MPO", save_all=True, append_images=[other], quality=95)
    assert np.array_equal(decode(stream.getvalue()), decode(JPEG))
    assert np.array_equal(decode(stream.getvalue()[:-50]), decode(JPEG))
    assert image_facts(stream.getvalue())[0] == "JPEG"


def test_webp_metadata_changes_no_pixel() -> None:
    data = encoded("WEBP", lossless=True, exif=b"Exif\0\0zzz", xmp=bytes(100), icc_profile=b"no profile")
    assert np.array_equal(decode(data), VALUES)
    assert np.array_equal(decode(data[:-20]), VALUES)  # within the XMP block, behind the pixels
    other = data[:4] + struct.pack("<I", len(data) + 4) + data[8:] + b"ABCD\4\0\0\0odd!"
    assert np.array_equal(decode(other), VALUES)


def test_colours_of_adobes_jpegs() -> None:
    """Stored as RGB without transform, and as inverted CMYK."""
    assert np.abs(decode(encoded("JPEG", quality=100, keep_rgb=True)).astype(int) - VALUES).max() <= 3
    stream = io.BytesIO()
    PICTURE.convert("CMYK").save(stream, "JPEG", quality=100)
    assert np.abs(decode(stream.getvalue()).astype(int) - VALUES).mean() < 3


@pytest.mark.parametrize(
    "data",
    [
        PNG[:33] + CHUNKS["compressed text"] + PNG[33:-60],
        JPEG[:2] + SEGMENTS["damaged Photoshop block"] + JPEG[2:-200],
        WEBP[: len(WEBP) // 2],
    ],
)
def test_truncated_pixels_stay_an_error(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.code == "truncated"
