"""Hostile image files: small ones that ask a decoder for very much work or memory.

    python scripts/hostile_images.py FOLDER          # writes every one of them, some megabytes in all

Two kinds, each with the file that it was first seen with and its relatives: *passes* go over the same pixels
or tables again and again, *sizes* hold far more pixels or bytes than the file shows. Everything is made by
hand or by Pillow; nothing is random but by a fixed seed.
"""

from __future__ import annotations

import argparse
import functools
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

#: Pixels of the largest image that a server takes, as (height, width).
LARGEST = (5000, 8000)
#: Rows and columns between the pixels of each of Adam7's passes, for sides that 8 divides.
_ADAM7 = ((8, 8), (8, 8), (8, 4), (4, 4), (4, 2), (2, 2), (2, 1))
_PNG = b"\x89PNG\r\n\x1a\n"


def jpeg(size: tuple[int, int] = (64, 64), *, progressive: bool = True, **options: Any) -> bytes:
    """A JPEG of (height, width) with something in every coefficient."""
    values = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "JPEG", progressive=progressive, quality=80, **options)
    return stream.getvalue()


def flat(size: tuple[int, int], *, mode: str = "RGB", kind: str = "JPEG", **options: Any) -> bytes:
    """An image of (height, width) of one grey; a progressive JPEG has scans of a few bytes."""
    stream = io.BytesIO()
    grey: Any = 128 if mode == "L" else (128,) * len(mode)
    Image.new(mode, size[::-1], grey).save(stream, kind, **({"progressive": True} | options))
    return stream.getvalue()


def with_scans(data: bytes, count: int) -> bytes:
    """The JPEG with its last scan repeated ``count`` times."""
    start, end = data.rfind(b"\xff\xda"), data.rfind(b"\xff\xd9")
    return data[:end] + data[start:end] * count + data[end:]


def one_component_a_scan(size: int, rounds: int) -> bytes:
    """A baseline JPEG that goes over its components one by one, again and again."""
    grey = flat((size, size), mode="L", progressive=False)
    frame = grey.find(b"\xff\xc0")
    scan, end = grey.find(b"\xff\xda"), grey.rfind(b"\xff\xd9")
    length = int.from_bytes(grey[frame + 2 : frame + 4], "big")
    head = grey[frame + 4 : frame + 9]
    colour = b"\xff\xc0" + struct.pack(">H", 17) + head + b"\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    scans = b"".join(
        grey[scan : scan + 5] + bytes([number]) + grey[scan + 6 : end] for number in (1, 2, 3) * rounds
    )
    return grey[:frame] + colour + grey[frame + 2 + length : scan] + scans + grey[end:]


def before_scan(data: bytes, segments: bytes) -> bytes:
    """The JPEG with segments in front of its first scan."""
    at = data.find(b"\xff\xda")
    return data[:at] + segments + data[at:]


def with_tables(count: int) -> bytes:
    """A baseline JPEG that defines its Huffman tables ``count`` times."""
    data = jpeg(progressive=False)
    start = data.find(b"\xff\xc4")
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    return before_scan(data, data[start : start + 2 + length] * count)


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    size: tuple[int, int],
    *,
    empty_chunks: int = 0,
    depth: int = 8,
    colour: int = 2,
    interlaced: bool = False,
    before: bytes = b"",
) -> bytes:
    """A black PNG of (height, width).

    Args:
        size: (height, width).
        empty_chunks: chunks without meaning before its pixels.
        depth: bits of a sample.
        colour: type of IHDR: 0 grey, 2 RGB, 3 palette, 6 RGBA.
        interlaced: in Adam7's seven passes; sides that 8 divides.
        before: chunks before the pixels.
    """
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = [(-(-size[0] // down), -(-size[1] // right)) for down, right in _ADAM7] if interlaced else [size]
    pixels = deflated(sum((1 + (width * bits + 7) // 8) * height for height, width in passes))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], depth, colour, 0, 0, int(interlaced)))
    body = chunk(b"prVt", b"") * empty_chunks + before + chunk(b"IDAT", pixels)
    return _PNG + head + body + chunk(b"IEND", b"")


def deflated(size: int) -> bytes:
    """A zlib stream of ``size`` zero bytes, a thousandth of it long."""
    packer = zlib.compressobj()
    whole, rest = divmod(size, 1 << 20)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(whole)]
    return b"".join([*parts, packer.compress(bytes(rest)), packer.flush()])


def webp_animation(size: tuple[int, int], frames: int) -> bytes:
    """A lossless WebP of many whole frames, each of one grey."""
    stream = io.BytesIO()
    pictures = [Image.new("RGB", size[::-1], (number % 256,) * 3) for number in range(2)]
    pictures[0].save(stream, "WEBP", save_all=True, append_images=pictures[1:], lossless=True)
    data = stream.getvalue()
    at = data.find(b"ANMF")
    length = 8 + int.from_bytes(data[at + 4 : at + 8], "little")
    body = data[8:at] + data[at : at + length + length % 2] * frames
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def with_exif(data: bytes, size: int) -> bytes:
    """A PNG with an EXIF block of many entries."""
    entries = size // 12
    block = b"MM\0*\0\0\0\x08" + struct.pack(">H", min(entries, 65535))
    block += struct.pack(">HHII", 0x8769, 4, 1, 8) * entries  # each points back to the first directory
    at = data.find(b"IDAT") - 4
    return data[:at] + chunk(b"eXIf", block) + data[at:]


#: Name -> how it is made; the first of each kind is the one that was seen first.
PASSES: dict[str, Callable[[], bytes]] = {
    "progressive, 30,000 scans, 1 MB": lambda: with_scans(flat((1000, 1000)), 30_000),
    "baseline, 600 scans of one component": lambda: one_component_a_scan(512, 200),
    "progressive, 40 megapixels, 30 scans": lambda: with_scans(flat(LARGEST), 30),
    "progressive, 40 megapixels, 7 scans more": lambda: with_scans(flat(LARGEST), 7),
    "progressive, 2 megapixels, 450 scans, 20 kB": lambda: with_scans(flat((1400, 1400)), 450),
    "restart marker after each block, 40 megapixels": lambda: flat(
        LARGEST, progressive=False, restart_marker_blocks=1
    ),
    "200,000 application segments": lambda: before_scan(jpeg(), b"\xff\xef\x00\x02" * 200_000),
    "a million fill bytes": lambda: before_scan(jpeg(), b"\xff" * 1_000_000),
    "100,000 comments between scans": lambda: (
        jpeg()[:-2] + b"\xff\xfe\x00\x02" * 100_000 + jpeg()[jpeg().rfind(b"\xff\xda") :]
    ),
    "Huffman tables 9,000 times": lambda: with_tables(9_000),
    "60,000 chunks": lambda: png((8, 8), empty_chunks=60_000),
    "EXIF of 5 MB that points to itself": lambda: with_exif(png((64, 64)), 5_000_000),
}
SIZES: dict[str, Callable[[], bytes]] = {
    "PNG, 40 megapixels": lambda: png(LARGEST),
    "PNG, 40 megapixels, interlaced": lambda: png(LARGEST, interlaced=True),
    "PNG, 40 megapixels, 16-bit RGBA": lambda: png(LARGEST, depth=16, colour=6),
    "PNG, 40 megapixels, 1-bit palette with transparency": lambda: png(
        LARGEST, depth=1, colour=3, before=chunk(b"PLTE", bytes(6)) + chunk(b"tRNS", b"\x80\x80")
    ),
    "PNG, 1 pixel wide, 40 million high": lambda: png((40_000_000, 1), depth=1, colour=0),
    "PNG, profile of 1 GB": lambda: png((64, 64), before=chunk(b"iCCP", b"x\0\0" + deflated(1 << 30))),
    "PNG, 20 texts of 50 MB": lambda: png(
        (64, 64), before=chunk(b"zTXt", b"x\0\0" + deflated(50 << 20)) * 20
    ),
    "PNG, pixels followed by 1 GB": lambda: (
        _PNG + png((64, 64))[8:33] + chunk(b"IDAT", deflated(1 << 30)) + chunk(b"IEND", b"")
    ),
    "WebP, 40 megapixels": lambda: flat((6320, 6320), kind="WEBP", lossless=True),
    "WebP, 40 megapixels, 500 frames": lambda: webp_animation((6320, 6320), 500),
    "JPEG, 40 megapixels": lambda: flat(LARGEST, progressive=False),
    "JPEG, 40 megapixels, CMYK, progressive": lambda: flat(LARGEST, mode="CMYK"),
    "header of 10,000 megapixels": lambda: (
        _PNG
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", deflated(1 << 20))
        + chunk(b"IEND", b"")
    ),
}


@functools.cache
def hostile_file(name: str) -> bytes:
    """One of them by name."""
    return {**PASSES, **SIZES}[name]()


def main() -> None:
    """Write them all."""
    parser = argparse.ArgumentParser(description="Hostile image files.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate((*PASSES, *SIZES)):
        path = folder / f"{number:02d}.{'-'.join(name.replace(',', '').split())}"
        path.write_bytes(hostile_file(name))
        print(f"{path.stat().st_size:>10,} {path}")


if __name__ == "__main__":
    main()
