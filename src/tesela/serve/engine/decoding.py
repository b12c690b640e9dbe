"""Decoding in processes of their own, with a deadline and a ceiling of memory.

A dead process is replaced.

What an image takes is known from its header. Small ones always find a process; slow ones are decoded with a
low priority (``decoder``), half as many as the queue has places, and large ones one after another too, so
that memory holds one of them. What would wait longer than its deadline is refused at once. The processes are
anyio's; a request that is cancelled or late leaves its image to them, for ending a process costs more than
most images. Processes start outside of any request: one that had to be there within a request's deadline,
and was ended with it, would never be there where starting takes longer than answering.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import anyio
from anyio import BrokenWorkerProcess, CapacityLimiter, to_process

from tesela.core.errors import ImageError
from tesela.imaging.header import read_header
from tesela.imaging.limits import DecodeLimits
from tesela.imaging.spec import ImageSpec
from tesela.serve.config import ServeConfig
from tesela.serve.engine.decoder import DecodedView, OverworkedError, quick_view, settle, slow_view
from tesela.serve.errors import RefusedError, image_code

_T = TypeVar("_T")

#: Pixels of an image that is decoded at once, in about 0.02 s; of more it is slow.
QUICK_PIXELS = 1_500_000
#: Bytes of a file that is decoded at once: so many, and so many for each pixel, which no image needs that is
#: all pixels. What else is in a file takes time too.
QUICK_BYTES, QUICK_DEPTH = 64 << 10, 4
#: Decoded bytes of an image above which it waits for its turn.
TAKES_TURNS = 32 << 20
#: Bytes of memory for each pixel that is allowed, and for everything else in a decoder.
PIXEL_ROOM, ROOM = 6, 16 << 20
#: Bytes of an image that any limit of pixels lets through.
LEAST = 8 << 20
#: Bytes for each row beside its pixels, and for each pixel of the longer side: a resize's weights.
ROW, SIDE = 32, 48
#: Steps up to a JPEG's first scan that are walked here, which holds up everybody; usual files need about ten.
USUAL_STEPS = 200
#: Seconds that a process has beyond a deadline to end its copy.
GRACE = 2.0
#: Seconds in which it is known which processes have ended, where one has.
REAP = 0.05
#: Seconds for a decoded byte until it has been measured.
FIRST_RATE = 5e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodingCost:
    """What an image will take, by its header.

    Attributes:
        bytes: of memory while it is decoded and fitted; those of a usual image of the most pixels where the
            header does not tell, and 0 where it is refused by its header.
        pixels: likewise.
    """

    bytes: int = 0
    pixels: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """An image on its way."""

    data: bytes
    spec: ImageSpec
    cost: DecodingCost
    deadline: float
    began: asyncio.Event = field(default_factory=asyncio.Event)


class Decoders:
    """The processes, and what they have to do.

    Args:
        config: the limits.
    """

    def __init__(self, config: ServeConfig) -> None:
        self.inside = 0
        self._most_bytes = config.max_decoded
        self._seconds = config.decode_seconds
        self._most_each = config.max_pixels * PIXEL_ROOM + LEAST
        self._limits = replace(config.decode_limits, memory=self._most_each)
        self._memory = self._most_each + ROOM
        self._processes = config.decoders
        self._rate = FIRST_RATE
        self._slow_inside, self._most_slow = 0, max(1, config.queue // 2)
        self._starting: set[asyncio.Task[None]] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self._started: set[int] = set()
        self._busy = 0

    async def start(self) -> None:
        """Start the processes; call it inside the event loop."""
        self._small, self._slow = CapacityLimiter(self._processes), CapacityLimiter(self._processes)
        self._large = CapacityLimiter(1)
        self._all = CapacityLimiter(self._processes + 1)
        self._changed = asyncio.Condition()
        for _ in range(self._processes + 1):
            self._start_one()
        await asyncio.gather(*self._starting)

    async def stop(self) -> None:
        """Give up what is left and wait for processes that are starting; all of them end with the event loop.

        One that is cancelled while a process starts would wait for ever.
        """
        left = self._background - self._starting
        for task in left:
            task.cancel()
        await asyncio.gather(*left, *self._starting, return_exceptions=True)

    async def view(
        self,
        data: bytes,
        spec: ImageSpec,
        *,
        deadline: float,
        aside: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> DecodedView:
        """An encoded image as a model wants it.

        Args:
            data: the file.
            spec: the model's view.
            deadline: reading of ``time.monotonic`` after which it is refused instead.
            aside: is entered while a slow image is decoded.

        Raises:
            RefusedError: it cannot be decoded, or not in time.
        """
        cost = decoding_cost(data, spec, self._limits)
        if cost.bytes > self._most_each:
            raise RefusedError("too_many_pixels")
        wait = self.inside * self._rate
        full = self.inside + cost.bytes > self._most_bytes
        if self.inside and (full or time.monotonic() + wait > deadline):
            raise RefusedError("overloaded", wait=wait)
        job = _Job(data=data, spec=spec, cost=cost, deadline=deadline)
        proportionate = len(data) <= QUICK_BYTES + QUICK_DEPTH * cost.pixels
        if cost.pixels <= QUICK_PIXELS and cost.bytes <= TAKES_TURNS and proportionate:
            found = await self._attempt(job, slow=False)
            if found is not None:
                return found
        if self._slow_inside >= self._most_slow:
            raise RefusedError("overloaded", wait=wait)
        with aside():
            found = await self._attempt(job, slow=True)
        assert found is not None  # only a quick attempt gives up
        return found

    async def _attempt(self, job: _Job, *, slow: bool) -> DecodedView | None:
        """The view; None if it takes too long to be had at once."""
        self.inside += job.cost.bytes
        self._slow_inside += slow
        work = self._in_background(self._turn(job, slow=slow))
        work.add_done_callback(lambda _: self._leave(job, slow=slow))
        try:
            async with asyncio.timeout(job.deadline - time.monotonic()):
                return await asyncio.shield(work)
        except TimeoutError:
            raise RefusedError("deadline") from None
        finally:
            if not job.began.is_set():
                work.cancel()

    def _leave(self, job: _Job, *, slow: bool) -> None:
        self.inside -= job.cost.bytes
        self._slow_inside -= slow

    async def _turn(self, job: _Job, *, slow: bool) -> DecodedView | None:
        """The view, when it is this image's turn; from then on it is finished, whoever still waits."""
        if not slow:
            async with self._small:
                return await self._decode(job, slow=False)
        large = job.cost.bytes > TAKES_TURNS
        async with self._large if large else contextlib.nullcontext(), self._slow:
            begun = time.monotonic()
            try:
                return await self._decode(job, slow=True)
            finally:
                if large:
                    self._rate += ((time.monotonic() - begun) / job.cost.bytes - self._rate) / 4

    async def _decode(self, job: _Job, *, slow: bool) -> DecodedView | None:
        if time.monotonic() > job.deadline:
            raise RefusedError("deadline")
        try:
            try:
                return await self._on_process(job, slow=slow)
            except BrokenWorkerProcess:  # ended from outside, perhaps: once more in another one
                await asyncio.sleep(REAP)
                return await self._on_process(job, slow=slow)
        except ImageError as error:
            raise RefusedError(image_code(error)) from None
        except MemoryError:
            raise RefusedError("too_many_pixels") from None
        except BrokenWorkerProcess:
            raise RefusedError("corrupt") from None
        except OverworkedError:
            raise RefusedError("too_much_work") from None
        except TimeoutError:
            raise RefusedError("deadline" if slow else "too_much_work") from None

    async def _run(self, work: Callable[..., _T], *values: object) -> _T:
        return await to_process.run_sync(work, *values, cancellable=True, limiter=self._all)

    async def _on_process(self, job: _Job, *, slow: bool) -> DecodedView | None:
        """The view, by a process that waits for work; None where it takes too long to be had at once."""
        async with self._changed:
            while not self._has_idle():
                if len(self._started) + len(self._starting) <= self._processes:
                    self._start_one()
                await self._changed.wait()
            self._busy += 1
        job.began.set()
        given = job.data, job.spec, self._limits, self._memory
        left = max(0.0, job.deadline - time.monotonic())
        try:
            if not slow:
                with anyio.fail_after(self._seconds):
                    return await self._run(quick_view, *given)
            with anyio.fail_after(left + GRACE):
                return await self._run(slow_view, *given, self._seconds, left)
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
                self._started.add(await self._run(settle, self._memory))

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


def decoding_cost(data: bytes, spec: ImageSpec, limits: DecodeLimits) -> DecodingCost:
    """The cost of an encoded image for a model's view."""
    header = read_header(data, steps=USUAL_STEPS)
    if header.format is None:
        return DecodingCost()
    if header.size is None:
        return DecodingCost(bytes=limits.max_pixels * 4, pixels=limits.max_pixels)
    height, width = header.size
    if height * width > limits.max_pixels:
        return DecodingCost()
    fitted = height * (spec.width * (1 if spec.channels == 1 else 4) + ROW) + SIDE * max(height, width)
    return DecodingCost(bytes=int(height * width * header.depth) + fitted, pixels=height * width)
