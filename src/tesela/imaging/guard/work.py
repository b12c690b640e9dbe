"""Work that a decoder would have, counted in the file before any decoder sees it.

A small file can ask for much: a JPEG may go over all of its pixels in thousands of scans of a few bytes, a
PNG may hold millions of empty chunks. Work is pixels x components, summed over the scans; ordinary files stay
far below the limits. What cannot be counted ahead is ended by a limit on processor time (``time_limited``).
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from tesela.imaging.header import Header

#: Scans of a JPEG; encoders write about ten.
MOST_SCANS = 500
#: Passes over a component that every JPEG may have; usual encoders need 14, the most thorough about 25.
USUAL_PASSES = 32
#: Pixels of a component times passes above those: about a second.
MOST_WORK = 1_000_000_000
#: Pixels of a row or column; a resize needs memory for each, whatever the other side.
MOST_SIDE = 200_000
#: Chunks of a PNG that any may have, and the bytes of each where there are more.
MOST_CHUNKS, CHUNK_BYTES = 50_000, 4096
#: The next marker within a scan: neither a stuffed zero nor a restart.
_MARKER = re.compile(rb"\xff+([^\x00\x01\xff\xd0-\xd7])", re.DOTALL)
_SCAN, _END = 0xDA, 0xD9


class OutOfTimeError(BaseException):
    """Ends a decoder whose time is over; no reader may catch it."""


def excessive(data: bytes, header: Header) -> str:
    """Why a file would cost more work than its image is worth; empty if it would not."""
    if header.endless:
        return "very many segments"
    if header.size is not None and max(header.size) > MOST_SIDE:
        return f"more than {MOST_SIDE:,} pixels on a side"
    if header.scans_at and header.size is not None:
        return _scans(data, header.scans_at, header.size)
    if header.format == "PNG":
        return _chunks(data)
    return ""


def has_more_work(data: bytes, header: Header, most: int) -> bool:
    """Whether the scans of a JPEG go over more than ``most`` pixels of its components, one with another."""
    if not header.scans_at or header.size is None:
        return False
    return bool(_scans(data, header.scans_at, header.size, usual=0, most=most))


def _scans(
    data: bytes, at: int, size: tuple[int, int], *, usual: int = USUAL_PASSES, most: int = MOST_WORK
) -> str:
    """Walk a JPEG from its first scan to its last."""
    blocks = (-(-size[0] // 8) * 8) * (-(-size[1] // 8) * 8)
    scans = passes = segments = 0
    while at + 5 <= len(data):
        if data[at + 1] == _SCAN:
            scans += 1
            passes += data[at + 4]
        segments += 1
        if scans > MOST_SCANS or segments > 4 * MOST_SCANS:
            return f"more than {MOST_SCANS} scans"
        if passes > usual and passes * blocks > most:
            return f"more than {passes - 1} passes over its pixels"
        found = _MARKER.search(data, at + 2 + int.from_bytes(data[at + 2 : at + 4], "big"))
        if found is None or data[found.end() - 1] == _END:
            break
        at = found.end() - 2
    return ""


def _chunks(data: bytes) -> str:
    """Walk the chunks of a PNG."""
    at, most = 8, max(MOST_CHUNKS, len(data) // CHUNK_BYTES)
    for _ in range(most):
        if at + 12 > len(data) or data[at + 4 : at + 8] == b"IEND":
            return ""
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return f"more than {most} chunks"


@contextlib.contextmanager
def time_limited(seconds: float | None) -> Iterator[None]:
    """End the body after some seconds of processor time, so that a busy machine takes nothing from it.

    Only in the main thread, where nobody else has set the profiling timer; elsewhere, and with None, the body
    just runs.

    Raises:
        OutOfTimeError: the time is over.
    """
    if (
        seconds is None
        or threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGPROF) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGPROF, _out_of_time)
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)


def _out_of_time(_: int, __: FrameType | None) -> None:
    raise OutOfTimeError
