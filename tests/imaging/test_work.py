"""Small files that ask decoders for very much work: each is refused within two seconds, by name."""

from __future__ import annotations

import io
import struct
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scripts.hostile_images import (
    PASSES,
    SIZES,
    flat,
    hostile_file,
    jpeg,
    one_component_a_scan,
    png,
    with_scans,
)

from tesela.core.errors import ImageError
from tesela.imaging.decode import CODES, decode
from tesela.imaging.guard import work
from tesela.imaging.guard.work import MOST_SCANS, OutOfTimeError, time_limited
from tesela.imaging.header import read_header
from tesela.imaging.limits import LOCAL_LIMITS, DecodeLimits
from tesela.imaging.preprocess import fitted_view
from tesela.imaging.spec import ImageSpec
from tesela.runtime.predictor import DECODE_SECONDS

#: Most seconds until the reason is there; the machine of the tests may be busy.
PROMPT = 2.0
VIEW = ImageSpec(height=32, width=32, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)


#: Files that are refused for their work, by what their reason says.
REFUSED = {
    "progressive, 30,000 scans, 1 MB": "500 scans",
    "baseline, 600 scans of one component": "500 scans",
    "progressive, 40 megapixels, 30 scans": "passes",
    "200,000 application segments": "segments",
    "a million fill bytes": "segments",
    "100,000 comments between scans": "500 scans",
    "60,000 chunks": "chunks",
    "PNG, 1 pixel wide, 40 million high": "on a side",
}


@pytest.mark.parametrize("name", REFUSED)
def test_work_is_counted_before_it_is_done(name: str) -> None:
    data = hostile_file(name)
    begun = time.process_time()
    for limits in (DecodeLimits(), LOCAL_LIMITS):
        with pytest.raises(ImageError) as caught:
            decode(data, limits=limits)
        assert caught.value.code == "too_much_work"
        assert REFUSED[name] in caught.value.message
    assert time.process_time() - begun < PROMPT


@pytest.mark.parametrize("name", [*PASSES, *SIZES])
def test_every_hostile_file_has_its_answer_or_reason_at_once(name: str) -> None:
    """As ``predict`` decodes it, in half of the two seconds where the machine has nothing else to do."""
    data = hostile_file(name)
    begun = time.process_time()
    try:
        view, size = fitted_view(data, VIEW, limits=replace(LOCAL_LIMITS, seconds=DECODE_SECONDS))
    except ImageError as error:
        assert error.code in CODES
    else:
        assert view.shape == (32, 32, 3)
        assert size == read_header(data).size
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
    data = bytearray(flat((64, 64)))
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
