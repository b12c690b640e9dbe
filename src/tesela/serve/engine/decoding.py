"""Decoding in processes of their own, with a deadline and a ceiling of memory.

A dead process is replaced.

What an image takes is known from its header: large ones are decoded one after another, so that memory holds
one of them and small ones pass by; what would wait longer than its deadline is refused at once. The processes
are anyio's; a request that is cancelled or late leaves its image to them, for ending a process costs more
than most images. Processes start outside of any request: one that had to be there within a request's
deadline, and was ended with it, would never be there where starting takes longer than answering.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import anyio
import numpy as np
from anyio import BrokenWorkerProcess, CapacityLimiter, to_process
from numpy.typing import NDArray

from tesela.core.errors import ImageError
from tesela.imaging.header import read_header
from tesela.imaging.limits import DecodeLimits
from tesela.imaging.preprocess import fitted_view
from tesela.imaging.spec import ImageSpec
from tesela.serve.config import ServeConfig
from tesela.serve.errors import RefusedError, image_code

#: A view (h, w, C), uint8, and the image's own (height, width).
DecodedView = tuple[NDArray[np.uint8], tuple[int, int]]
_T = TypeVar("_T")

#: Decoded bytes of an image above which it waits for its turn.
TAKES_TURNS = 32 << 20
#: Bytes of memory for each pixel that is allowed, and for everything else in a decoder.
PIXEL_ROOM, ROOM = 6, 64 << 20
#: Bytes of an image that any limit of pixels lets through.
LEAST = 8 << 20
#: Bytes for each row beside its pixels, and for each pixel of the longer side: a resize's weights.
ROW, SIDE = 32, 48
#: Steps up to a JPEG's first scan that are walked here, which holds up everybody; usual files need about ten.
USUAL_STEPS = 200
#: Seconds for a decoded byte until it has been measured.
FIRST_RATE = 5e-9


class Decoders:
    """The processes, and what they have to do.

    Args:
        config: the limits.
    """

    def __init__(self, config: ServeConfig) -> None:
        self.inside = 0
        self._limits = config.decode_limits
        self._most_bytes = config.max_decoded
        self._seconds = config.decode_seconds
        self._most_each = config.max_pixels * PIXEL_ROOM + LEAST
        self._memory = self._most_each + ROOM
        self._processes = config.decoders
        self._rate = FIRST_RATE
        self._starting: set[asyncio.Task[None]] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self._started: set[int] = set()
        self._busy = 0

    async def start(self) -> None:
        """Start the processes; call it inside the event loop."""
        self._small, self._large = CapacityLimiter(self._processes), CapacityLimiter(1)
        self._all = CapacityLimiter(self._processes + 1)
        self._changed = asyncio.Condition()
        for _ in range(self._processes):
            self._start_one()
        await asyncio.gather(*self._starting)

    async def view(self, data: bytes, spec: ImageSpec, *, deadline: float) -> DecodedView:
        """An encoded image as a model wants it.

        Args:
            data: the file.
            spec: the model's view.
            deadline: reading of ``time.monotonic`` after which it is refused instead.

        Raises:
            RefusedError: it cannot be decoded, or not in time.
        """
        cost = decoded_bytes(data, spec, self._limits)
        if cost > self._most_each:
            raise RefusedError("too_many_pixels")
        wait = self.inside * self._rate
        if self.inside and (self.inside + cost > self._most_bytes or time.monotonic() + wait > deadline):
            raise RefusedError("overloaded", wait=wait)
        self.inside += cost
        began = asyncio.Event()
        work = self._in_background(self._turn(data, spec, cost=cost, deadline=deadline, began=began))
        work.add_done_callback(lambda _: self._leave(cost))
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await asyncio.shield(work)
        except TimeoutError:
            raise RefusedError("deadline") from None
        finally:
            if not began.is_set():
                work.cancel()

    def _leave(self, cost: int) -> None:
        self.inside -= cost

    async def _turn(
        self, data: bytes, spec: ImageSpec, *, cost: int, deadline: float, began: asyncio.Event
    ) -> DecodedView:
        """The view, when it is this image's turn; from then on it is finished, whoever still waits."""
        async with self._large if cost > TAKES_TURNS else self._small:
            if time.monotonic() > deadline:
                raise RefusedError("deadline")
            begun = time.monotonic()
            try:
                return await self._decode(data, spec, began)
            finally:
                if cost > TAKES_TURNS:
                    self._rate += ((time.monotonic() - begun) / cost - self._rate) / 4

    async def _decode(self, data: bytes, spec: ImageSpec, began: asyncio.Event) -> DecodedView:
        try:
            try:
                return await self._on_process(data, spec, began)
            except BrokenWorkerProcess:  # ended from outside, perhaps: once more in another one
                return await self._on_process(data, spec, began)
        except ImageError as error:
            raise RefusedError(image_code(error)) from None
        except MemoryError:
            raise RefusedError("too_many_pixels") from None
        except BrokenWorkerProcess:
            raise RefusedError("corrupt") from None
        except TimeoutError:
            raise RefusedError("too_much_work") from None

    async def _run(self, work: Callable[..., _T], *values: object) -> _T:
        return await to_process.run_sync(work, *values, cancellable=True, limiter=self._all)

    async def _on_process(self, data: bytes, spec: ImageSpec, began: asyncio.Event) -> DecodedView:
        """The view, by a process that waits for work."""
        async with self._changed:
            while not self._has_idle():
                if len(self._started) + len(self._starting) <= self._processes:
                    self._start_one()
                await self._changed.wait()
            self._busy += 1
        began.set()
        try:
            with anyio.fail_after(self._seconds):
                return await self._run(_view, data, spec, self._limits, self._memory)
        finally:
            self._busy -= 1
            self._notify()

    def _has_idle(self) -> bool:
        """Whether a process waits for work; those that have ended are forgotten."""
        self._started = {pid for pid in self._started if is_alive(pid)}
        return self._busy < len(self._started)

    def _notify(self) -> None:
        """Let those that wait for a process look again."""

        async def notify() -> None:
            async with self._changed:
                self._changed.notify_all()

        self._in_background(notify())

    def _start_one(self) -> None:
        """Start a process, unless another one waits for work by then."""

        async def start() -> None:
            with contextlib.suppress(BrokenWorkerProcess):
                self._started.add(await self._run(_settle, self._memory))

        task = self._in_background(start())
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        task.add_done_callback(lambda _: self._notify())

    def _in_background(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has seen it; else nobody wants to know


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def decoded_bytes(data: bytes, spec: ImageSpec, limits: DecodeLimits) -> int:
    """Bytes that an image takes while it is decoded and fitted, by its header.

    Where that does not tell, those of a usual image of the most pixels.
    """
    header = read_header(data, steps=USUAL_STEPS)
    if header.format is None:
        return 0
    if header.size is None:
        return limits.max_pixels * 4
    height, width = header.size
    if height * width > limits.max_pixels:
        return 0  # refused by its header
    fitted = height * (spec.width * (1 if spec.channels == 1 else 4) + ROW)
    return int(height * width * header.depth) + fitted + SIDE * max(height, width)


def _view(data: bytes, spec: ImageSpec, limits: DecodeLimits, memory: int) -> DecodedView:
    """In the decoding process: the view of an encoded image."""
    _settle(memory)
    return fitted_view(data, spec, limits=limits)


_settled: list[int] = []
#: Number of the setting in the C library.
_MMAP_THRESHOLD = -3


def _settle(memory: int) -> int:
    """In the decoding process: leave signals to the server, set the ceiling of memory, once; its number."""
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
