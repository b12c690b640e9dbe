"""Work inside a decoding process: small images at once, others in a copy that gives way.

A copy has a lower priority than everything else of the server, so an image that takes long takes from nobody
the processor that he needs; it is ended after some seconds of its own work or at its deadline, and its memory
goes with it. Odd: where processes cannot be copied well, which is outside Linux, everything is decoded in the
process itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from anyio import BrokenWorkerProcess
from numpy.typing import NDArray

from tesela.imaging.guard.work import has_more_work
from tesela.imaging.header import read_header
from tesela.imaging.limits import DecodeLimits
from tesela.imaging.preprocess import fitted_view
from tesela.imaging.spec import ImageSpec

#: A view (h, w, C), uint8, and the image's own (height, width).
DecodedView = tuple[NDArray[np.uint8], tuple[int, int]]

#: Steps of niceness: five of them leave a quarter of a processor that one other wants too.
GIVES_WAY = 5
#: Pixels that the scans of a JPEG go over, all together, above which it is not decoded at once: about 0.03 s.
QUICK_WORK = 30_000_000
#: Number of the settings in the C library, and in the system.
_MMAP_THRESHOLD, _DEATH_SIGNAL = -3, 1
_settled: list[int] = []


def settle(memory: int) -> int:
    """Leave signals to the server, set the ceiling of memory in bytes, once; the process's number."""
    if _settled:
        return os.getpid()
    _settled.append(memory)
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the server, which still needs its decoders
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(ImportError, OSError, AttributeError):  # large blocks go back at once when freed
        import ctypes

        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 1 << 20)
    with contextlib.suppress(ImportError, OSError, ValueError):  # no such ceiling outside Linux
        import resource
        from pathlib import Path

        taken = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return os.getpid()


def quick_view(data: bytes, spec: ImageSpec, limits: DecodeLimits, memory: int) -> DecodedView | None:
    """The view of an encoded image; None if its scans ask for more work than its pixels let expect."""
    settle(memory)
    if has_more_work(data, read_header(data), QUICK_WORK):
        return None
    return fitted_view(data, spec, limits=limits)


def slow_view(
    data: bytes, spec: ImageSpec, limits: DecodeLimits, memory: int, work: float, seconds: float
) -> DecodedView:
    """The view of an encoded image, decoded with a low priority.

    Args:
        data: the file.
        spec: the model's view.
        limits: of decoding.
        memory: ceiling of memory, in bytes.
        work: seconds of processor time after which the image is given up.
        seconds: after which it is given up, whatever was done.

    Raises:
        ImageError: it cannot be decoded.
        OverworkedError: its work took too long.
        TimeoutError: it was not ready in time.
        BrokenWorkerProcess: its process ended.
    """
    settle(memory)
    if sys.platform != "linux":
        return fitted_view(data, spec, limits=limits)
    fork = get_context("fork")
    reader, writer = fork.Pipe(duplex=False)
    copy = fork.Process(target=_copy, args=(writer, data, spec, limits, work), daemon=True)
    copy.start()
    writer.close()
    try:
        if not reader.poll(seconds):
            raise TimeoutError
        found: Any = reader.recv()
    except EOFError:
        copy.join()
        if copy.exitcode == -signal.SIGVTALRM:
            raise OverworkedError from None
        raise BrokenWorkerProcess from None
    finally:
        copy.kill()
        copy.join()
        copy.close()
        reader.close()
    if isinstance(found, BaseException):
        raise found
    view: DecodedView = found
    return view


class OverworkedError(Exception):
    """Ends an image whose decoding takes too much work."""


def _copy(writer: Connection, data: bytes, spec: ImageSpec, limits: DecodeLimits, work: float) -> None:
    """In the copy: say the view, or what was wrong."""
    with contextlib.suppress(ImportError, OSError, AttributeError):  # nobody would end it any more
        import ctypes

        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    os.nice(GIVES_WAY)
    signal.setitimer(signal.ITIMER_VIRTUAL, work)  # ends the process, whatever it is doing
    try:
        found: object = fitted_view(data, spec, limits=limits)
    except Exception as error:
        found = error
    writer.send(found)
