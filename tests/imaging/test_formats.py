"""Formats beyond JPEG, PNG and WebP, and large images: pixels against those that were stored."""

from __future__ import annotations

import importlib.util
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tesela.core.errors import ConfigError, ImageError
from tesela.imaging.decode import decode, image_facts, upright_size
from tesela.imaging.limits import DEFAULT_LIMITS, FORMATS, LOCAL_LIMITS, local_limits

VALUES = (np.arange(24 * 16 * 3) % 251).astype(np.uint8).reshape(24, 16, 3)
PICTURE = Image.fromarray(VALUES)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def refused(data: bytes | Path, **options: Any) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data, **{"limits": LOCAL_LIMITS, **options})
    return caught.value


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM", "JPEG2000"])
def test_lossless_formats_give_what_was_stored(kind: str) -> None:
    data = encoded(PICTURE, kind)
    assert np.array_equal(decode(data, limits=LOCAL_LIMITS), VALUES)
    assert image_facts(data, limits=LOCAL_LIMITS) == (kind, "RGB", (24, 16))
    assert refused(data, limits=DEFAULT_LIMITS).cause == kind


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_is_turned_upright_once(compression: str | None, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(PICTURE, "TIFF", exif=exif, compression=compression)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(PICTURE, "PNG", exif=exif)))))
    assert np.array_equal(decode(data, limits=LOCAL_LIMITS), expected)
    assert upright_size(data, limits=LOCAL_LIMITS) == expected.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_turned_upright_once(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(PICTURE, "PNG", exif=exif)))))
    data = encoded(PICTURE, "AVIF", exif=exif, quality=100, subsampling="4:4:4")  # empties exif
    found = decode(data, limits=LOCAL_LIMITS)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 3
    assert upright_size(data, limits=LOCAL_LIMITS) == expected.shape[:2]


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "AVIF"])
def test_the_first_of_several_pictures_is_taken(kind: str) -> None:
    pages = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    data = encoded(pages[0], kind, save_all=True, append_images=pages[1:])
    assert np.abs(decode(data, limits=LOCAL_LIMITS)[0, 0].astype(int) - [255, 0, 0]).max() <= 3


def test_gif_with_a_transparent_colour_lies_on_white() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    found = decode(encoded(image, "GIF", transparency=1), limits=LOCAL_LIMITS)
    assert found[0].tolist() == [[255, 0, 0], [255, 255, 255], [0, 0, 255]]


def test_grey_of_more_than_8_bits_by_the_rule() -> None:
    """The high byte; a white that is zero turned round; other integers only from 0 to 65,535."""
    values = np.array([[0, 255, 256, 0x8000, 0xFFFF]], np.uint16)
    for kind in ("TIFF", "PNG", "PPM"):
        found = decode(encoded(Image.fromarray(values), kind), channels=1, limits=LOCAL_LIMITS)
        assert found[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    inverted = encoded(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    assert decode(inverted, channels=1, limits=LOCAL_LIMITS)[0, :, 0].tolist() == [255, 255, 254, 127, 0]
    wide = encoded(Image.fromarray(values.astype(np.int32)), "TIFF")
    assert decode(wide, channels=1, limits=LOCAL_LIMITS)[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    for outside in (-1, 65_536):
        error = refused(encoded(Image.fromarray(np.array([[0, outside]], np.int32)), "TIFF"))
        assert (error.code, str(outside) in error.message) == ("unsupported_mode", True)


def test_a_tiff_that_says_12_bits_keeps_its_levels() -> None:
    """Packed by hand, two values in three bytes: Pillow writes no such file."""
    values = [0, 16, 2048, 4095]
    packed = bytes(
        byte
        for first, second in zip(values[::2], values[1::2], strict=True)
        for byte in (first >> 4, (first & 15) << 4 | second >> 8, second & 255)
    )
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: len(packed)}
    tags[273] = 8 + 2 + 12 * len(tags) + 4  # where the pixels begin
    data = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    data += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data += bytes(4) + packed
    assert decode(data, channels=1, limits=LOCAL_LIMITS)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_layouts_without_a_meaning_are_refused_by_name() -> None:
    floats = refused(encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"))
    assert (floats.code, "floats" in floats.message) == ("unsupported_mode", True)
    strange = bytearray(encoded(PICTURE, "TIFF"))
    at = strange.index(b"\x06\x01\x03\x00\x01\x00\x00\x00")  # tag 262 of one short
    strange[at + 8] = 34  # no colour space
    assert refused(bytes(strange)).code == "unsupported_mode"


def test_a_truncated_file_of_any_format_is_an_error() -> None:
    for kind in ("BMP", "GIF", "TIFF", "AVIF", "PPM"):
        data = encoded(PICTURE.resize((64, 64)), kind)
        assert refused(data[: len(data) // 2]).code in ("truncated", "corrupt")


def test_heic_needs_its_reader_or_opens() -> None:
    """An ISO file of the brand heic: without pillow-heif the hint names the extra."""
    if importlib.util.find_spec("pillow_heif") is None:
        error = refused(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(64))
        assert (error.code, error.cause) == ("format_not_allowed", "HEIF")
        assert "tesela[heic]" in error.hint
        return
    from pillow_heif import from_pillow

    stream = io.BytesIO()
    from_pillow(PICTURE).save(stream, quality=-1, chroma=444)
    found = decode(stream.getvalue(), limits=LOCAL_LIMITS)
    assert np.abs(found.astype(int) - VALUES).max() <= 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM"])
def test_large_images_open_and_those_above_the_limit_do_not(kind: str, tmp_path: Path) -> None:
    """51 megapixels, at which one thread decodes at a time; Pillow's own warning does not show."""
    path = tmp_path / "photo"
    path.write_bytes(encoded(Image.new("L", (8200, 6300), 200), kind))
    found = decode(path, channels=1, limits=LOCAL_LIMITS)
    assert found.shape == (6300, 8200, 1)
    assert found[0, 0, 0] == found[-1, -1, 0] == 200
    error = refused(path, limits=local_limits(max_pixels=50_000_000))
    assert (error.code, "--max-pixels" in error.hint) == ("too_many_pixels", True)


def test_pillows_own_limit_does_not_bound_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images far above it open in every format, and it stands afterwards; for one's own calls of Pillow."""
    monkeypatch.setattr("tesela.imaging.guard.turns.LARGE_IMAGE", 100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000"):
        options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
        data = encoded(PICTURE.convert("L"), kind, **options)
        assert decode(data, limits=LOCAL_LIMITS).shape == (24, 16, 3)
        assert upright_size(data, limits=LOCAL_LIMITS) == (24, 16)
    assert Image.MAX_IMAGE_PIXELS == 150


def test_limits_are_named_as_people_name_formats() -> None:
    assert local_limits(["jpg, tif", ".HEIC"]).formats == ("JPEG", "TIFF", "HEIF")
    assert local_limits().formats == FORMATS
    assert local_limits(max_pixels=5).max_pixels == 5
    wrongs: tuple[dict[str, Any], ...] = ({"formats": ["xcf"]}, {"max_pixels": 0})
    for wrong in wrongs:
        with pytest.raises(ConfigError):
            local_limits(**wrong)
