"""Decoding against pixels that are known beforehand, Pillow's own transformations, and hostile bytes."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tesela.core.errors import ConfigError, ImageError
from tesela.imaging.decode import CODES, decode, upright_size
from tesela.imaging.limits import DecodeLimits


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(height: int = 6, width: int = 4) -> Image.Image:
    """An image without symmetry, so that every flip and turn shows."""
    values = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3) * 3
    return Image.fromarray(values)


def code_of(data: bytes | Path, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, **options)
    assert caught.value.code in CODES
    return caught.value.code


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_exif_orientation_equals_pillows_transpose(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(gradient(48, 32), kind, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)).convert("RGB")))
    assert np.abs(decode(data).astype(int) - expected).max() <= 1
    assert upright_size(data) == expected.shape[:2]


def test_damaged_exif_is_ignored() -> None:
    data = encoded(gradient(), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert np.array_equal(decode(data), np.asarray(gradient()))


def test_one_bit_is_black_and_white() -> None:
    bits = np.array([[True, False, True], [False, False, True]])
    assert decode(encoded(Image.fromarray(bits)))[:, :, 1].tolist() == (bits * 255).tolist()


def test_grey_is_repeated_and_colour_becomes_luma() -> None:
    levels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    assert np.array_equal(decode(encoded(Image.fromarray(levels))), np.repeat(levels[..., None], 3, axis=2))
    assert np.array_equal(
        decode(encoded(gradient()), channels=1)[..., 0], np.asarray(gradient().convert("L"))
    )


def test_sixteen_bit_grey_keeps_the_high_byte() -> None:
    values = np.array([[0, 255, 256, 0x8000, 0xFFFF]], np.uint16)
    assert decode(encoded(Image.fromarray(values)), channels=1)[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_sixteen_bit_colour_keeps_the_high_byte() -> None:
    """A 16-bit RGB PNG written by hand after the PNG specification."""
    row = b"\0" + struct.pack(">6H", 0, 0x1234, 0xFFFF, 0x8000, 0x00FF, 0x0100)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(row))
        + chunk(b"IEND", b"")
    )
    assert decode(data).tolist() == [[[0, 0x12, 0xFF], [0x80, 0, 1]]]


def test_palette_with_transparent_entry_lies_on_white() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert decode(encoded(image))[0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert decode(encoded(image, transparency=1))[0].tolist() == [[255, 0, 0], [255, 255, 255], [0, 0, 255]]


def test_alpha_is_composited_over_white() -> None:
    """The compositing formula in floating point."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (9, 7, 4), np.uint8)
    share = pixels[..., 3:] / 255
    expected = pixels[..., :3] * share + 255 * (1 - share)
    assert np.abs(decode(encoded(Image.fromarray(pixels))) - expected).max() <= 0.5 + 1e-9


def test_cmyk_jpeg_without_profile() -> None:
    """R = (255 - C)(255 - K) / 255 and so on, of Pillow's own decoded CMYK values."""
    data = encoded(Image.new("CMYK", (16, 16), (200, 30, 0, 20)), "JPEG", quality=100)
    ink = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    expected = (255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255
    assert np.abs(decode(data) - expected).max() <= 1


def test_progressive_equals_baseline() -> None:
    picture = gradient(64, 48)
    assert np.array_equal(
        decode(encoded(picture, "JPEG", progressive=True)), decode(encoded(picture, "JPEG"))
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (37, 1)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_thin_images(size: tuple[int, int], kind: str) -> None:
    pixels = decode(encoded(Image.new("RGB", size[::-1], (200, 200, 200)), kind))
    assert pixels.shape == (*size, 3)
    assert np.abs(pixels.astype(int) - 200).max() <= 3


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert decode(data)[0, 0].tolist() == [255, 0, 0]


def test_an_icc_profile_changes_nothing() -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(decode(encoded(gradient(), icc_profile=profile)), np.asarray(gradient()))


@pytest.mark.parametrize("fast", [True, False])
def test_size_hint_scales_but_never_below(fast: bool, monkeypatch: pytest.MonkeyPatch, shared: Path) -> None:
    """Against Pillow's full decode, box-reduced: DCT scaling is such a mean up to chroma and rounding."""
    if not fast:
        monkeypatch.setattr("tesela.imaging.jpeg._decoder", lambda: None)
    path = sorted((shared / "data/camvid/train/images").glob("*.jpg"))[0]
    whole = Image.open(path)
    assert decode(path, size_hint=(180, 240)).shape == (180, 240, 3)
    assert decode(path, size_hint=(181, 240)).shape == (360, 480, 3)
    expected = np.asarray(whole.convert("RGB").reduce(4)).astype(float)
    assert np.abs(decode(path, size_hint=(90, 100)).astype(float) - expected).mean() < 2.5


def test_fast_decoder_equals_pillow_within_one_level(shared: Path) -> None:
    pytest.importorskip("simplejpeg")
    for path in sorted((shared / "data/camvid/train/images").glob("*.jpg"))[:3]:
        expected = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert np.abs(decode(path).astype(int) - expected).max() <= 1
        scratch = np.zeros(480 * 360 * 3 + 5, np.uint8)
        quick = np.abs(decode(path, scratch=scratch).astype(int) - expected)
        assert quick.mean() < 1.5


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_every_truncation_is_an_error_or_the_whole_image(kind: str) -> None:
    """Only bytes behind the last pixel may be missing (an end marker, a checksum)."""
    random = np.random.default_rng(1)
    data = encoded(Image.fromarray(random.integers(0, 256, (20, 20, 3), np.uint8)), kind)
    whole = decode(data)
    codes = set()
    for length in range(len(data)):
        try:
            pixels = decode(data[:length])
        except ImageError as error:
            codes.add(error.code)
        else:
            assert length >= len(data) - 20
            assert np.array_equal(pixels, whole)
    assert {"empty", "truncated"} <= codes <= set(CODES)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_mutated_bytes_never_raise_anything_else(kind: str) -> None:
    random = np.random.default_rng(2)
    data = np.frombuffer(encoded(gradient(24, 24), kind), np.uint8)
    for _ in range(150):
        broken = data.copy()
        broken[random.integers(0, len(data), 3)] = random.integers(0, 256, 3)
        try:
            assert decode(broken.tobytes()).dtype == np.uint8
        except ImageError as error:
            assert error.code in CODES


def test_refusals_by_code(tmp_path: Path) -> None:
    assert code_of(b"") == "empty"
    assert code_of(b"<html>not found</html>" * 20) == "not_an_image"
    assert code_of(encoded(gradient(), "GIF")) == "format_not_allowed"
    assert code_of(encoded(gradient(), "BMP")) == "format_not_allowed"
    assert code_of(tmp_path / "missing.png") == "unreadable_file"
    assert code_of(encoded(gradient()), limits=DecodeLimits(max_pixels=23)) == "too_many_pixels"
    assert code_of(encoded(gradient()), limits=DecodeLimits(max_bytes=20)) == "file_too_large"
    floats = encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF")
    assert code_of(floats, limits=DecodeLimits(formats=("TIFF",))) == "unsupported_mode"
    assert decode(encoded(gradient(), "BMP"), limits=DecodeLimits(formats=("BMP",))).shape == (6, 4, 3)
    with pytest.raises(ConfigError):
        DecodeLimits(formats=("EPS",))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_bombs_are_refused_cheaply(kind: str) -> None:
    """Headers that promise 16,000 x 16,000 pixels.

    Refused in 50 ms and 16 MiB, by the size in the header alone.
    """
    data = bytearray(encoded(gradient(16, 16), kind, **({"lossless": False} if kind == "WEBP" else {})))
    if kind == "PNG":
        data[16:24] = struct.pack(">II", 16000, 16000)
        data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    elif kind == "JPEG":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", 16000, 16000)
    else:
        data[26:30] = struct.pack("<HH", 16000, 16000)
    tracemalloc.start()
    start = time.process_time()
    assert code_of(bytes(data)) == "too_many_pixels"
    assert time.process_time() - start < 0.05
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_images_are_opened_in_one_place_only() -> None:
    root = Path(__file__).resolve().parents[2] / "src"
    code = [(path.name, line) for path in root.rglob("*.py") for line in path.read_text().splitlines()]
    calls = [name for name, line in code if "Image.open(" in line.split("#")[0] and "`" not in line]
    assert calls == ["decode.py"]
