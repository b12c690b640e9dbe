"""Small files that ask decoders for very much work: each is refused within two seconds, by name."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from tesela.core.errors import ImageError
from tesela.imaging.decode import decode
from tesela.imaging.guard import work
from tesela.imaging.guard.work import MOST_CHUNKS, MOST_SCANS, OutOfTimeError, time_limited
from tesela.imaging.header import read_header
from tesela.imaging.limits import LOCAL_LIMITS, DecodeLimits

#: Most seconds until the reason is there; the machine of the tests may be busy.
PROMPT = 2.0


def jpeg(size: tuple[int, int] = (64, 64), *, progressive: bool = True) -> bytes:
    """A JPEG of (height, width) with something in every coefficient."""
    values = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "JPEG", progressive=progressive, quality=80)
    return stream.getvalue()


def with_scans(data: bytes, count: int) -> bytes:
    """The JPEG with its last scan repeated ``count`` times."""
    start, end = data.rfind(b"\xff\xda"), data.rfind(b"\xff\xd9")
    return data[:end] + data[start:end] * count + data[end:]


def flat(size: int) -> bytes:
    """A progressive JPEG of one grey, whose scans are a few bytes."""
    stream = io.BytesIO()
    Image.new("RGB", (size, size), (128, 128, 128)).save(stream, "JPEG", progressive=True)
    return stream.getvalue()


def one_component_a_scan(size: int, rounds: int) -> bytes:
    """A baseline JPEG that goes over its components one by one, again and again."""
    stream = io.BytesIO()
    Image.new("L", (size, size), 128).save(stream, "JPEG")
    grey = stream.getvalue()
    frame = grey.find(b"\xff\xc0")
    scan, end = grey.find(b"\xff\xda"), grey.rfind(b"\xff\xd9")
    length = int.from_bytes(grey[frame + 2 : frame + 4], "big")
    head = grey[frame + 4 : frame + 9]
    colour = b"\xff\xc0" + struct.pack(">H", 17) + head + b"\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    scans = b"".join(
        grey[scan : scan + 5] + bytes([number]) + grey[scan + 6 : end] for number in (1, 2, 3) * rounds
    )
    return grey[:frame] + colour + grey[frame + 2 + length : scan] + scans + grey[end:]


def png(size: tuple[int, int], *, empty_chunks: int = 0) -> bytes:
    """A black RGB PNG of (height, width), row by row, and ``empty_chunks`` without meaning before its
    pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    packer = zlib.compressobj(9)
    row = bytes(1 + size[1] * 3)
    pixels = b"".join(packer.compress(row) for _ in range(size[0])) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + chunk(b"prVt", b"") * empty_chunks
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


def attacks() -> Iterator[tuple[str, bytes]]:
    yield "1,000 scans", with_scans(jpeg(), 1000)
    yield "30,000 scans", with_scans(flat(64), 30_000)
    yield "200 scans of 16 megapixels", with_scans(flat(4000), 200)
    yield "baseline, 600 scans", one_component_a_scan(64, 200)
    yield "200,000 segments", b"\xff\xd8" + b"\xff\xef\x00\x02" * 200_000 + jpeg()[2:]
    yield "a million fill bytes", b"\xff\xd8" + b"\xff" * 1_000_000 + jpeg()[2:]
    yield (
        "segments between scans",
        (jpeg()[:-2] + b"\xff\xfe\x00\x02" * 100_000 + jpeg()[jpeg().rfind(b"\xff\xda") :]),
    )
    yield "60,000 chunks", png((8, 8), empty_chunks=MOST_CHUNKS + 10_000)


ATTACKS = dict(attacks())


@pytest.mark.parametrize("name", ATTACKS)
def test_work_is_counted_before_it_is_done(name: str) -> None:
    begun = time.process_time()
    for limits in (DecodeLimits(), LOCAL_LIMITS):
        with pytest.raises(ImageError) as caught:
            decode(ATTACKS[name], limits=limits)
        assert caught.value.code == "too_much_work"
    assert time.process_time() - begun < PROMPT


def test_ordinary_files_are_decoded_as_before() -> None:
    """Ten scans, a few more, one component a scan, and bytes behind the end that look like scans: the
    pixels are those of Pillow."""
    plain = jpeg()
    for data in (
        plain,
        with_scans(plain, 30),
        one_component_a_scan(64, 1),
        plain + b"\xff\xda\x00\x08\x01" * (MOST_SCANS + 1),
        jpeg(progressive=False) + b"\xff\xda\x00\x08\x01" * (MOST_SCANS + 1),
        png((30, 20), empty_chunks=1000),
    ):
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
        assert np.abs(decode(data) - expected).max() <= 1


def test_large_progressive_photographs_are_within_the_limits() -> None:
    """40 megapixels in the scans that usual encoders write (their header is enough for the count)."""
    data = bytearray(flat(64))
    frame = data.find(b"\xff\xc2")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 5000, 8000)
    assert work.excessive(bytes(data), read_header(bytes(data))) == ""
    assert "passes" in work.excessive(with_scans(bytes(data), 40), read_header(bytes(data)))


def test_a_reader_that_does_not_end_is_given_up() -> None:
    """A GIF whose comment comes in very many pieces keeps Pillow busy for long; it gets a reason instead."""
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, "GIF")
    data = stream.getvalue()
    at = data.find(b",")
    slow = data[:at] + b"!\xfe" + b"\x01a" * 4_000_000 + b"\x00" + data[at:]
    limits = DecodeLimits(formats=("GIF",), seconds=0.2)
    begun = time.process_time()
    with pytest.raises(ImageError) as caught:
        decode(slow, limits=limits)
    assert caught.value.code == "too_much_work"
    assert time.process_time() - begun < PROMPT
    assert decode(data, limits=limits).shape == (8, 8, 3)


def test_the_time_limit_counts_the_body_alone() -> None:
    with pytest.raises(OutOfTimeError), time_limited(0.02):
        while True:
            pass
    with time_limited(5.0):
        pass
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
