"""Micro-batcher: images that arrive together are computed together.

In one thread, from a bounded queue.

No image waits for company: while a batch is computed the next ones gather, so batches grow with the load and
a lone request pays nothing. What has passed its deadline or was given up by its client is never computed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tesela.serve.errors import RefusedError

Item = TypeVar("Item")
_Result = TypeVar("_Result")


@dataclass(slots=True)
class _Job(Generic[Item, _Result]):
    item: Item
    deadline: float
    answer: asyncio.Future[_Result] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Batcher(Generic[Item, _Result]):
    """Runs ``compute`` over batches of what ``submit`` is given.

    Args:
        compute: a function from items to as many results, called in the batcher's own thread.
        max_batch: most items per call.
        on_batch: called with the size of each batch.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Sequence[_Result]],
        *,
        max_batch: int,
        on_batch: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._compute = compute
        self._max_batch = max_batch
        self._on_batch = on_batch
        self._jobs: asyncio.Queue[_Job[Item, _Result]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tesela-batch")
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._seconds_each = 0.0
        self._computing = 0

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return self._jobs.qsize()

    @property
    def expected_wait(self) -> float:
        """Seconds until an item that came now would have its result, by what the last ones took."""
        return (self._jobs.qsize() + self._computing) * self._seconds_each

    async def prepare(self, work: Callable[[], None]) -> None:
        """Do something in the batcher's thread; call it before ``start``."""
        await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def start(self) -> None:
        """Begin to work; call it inside the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def submit(self, item: Item, *, deadline: float) -> _Result:
        """The result for one item.

        Args:
            item: what to compute.
            deadline: reading of ``time.monotonic`` after which it is refused instead.
        """
        if self._stopping or self._task is None:
            raise RefusedError("stopping")
        if time.monotonic() + self.expected_wait > deadline:
            raise RefusedError("overloaded", wait=self.expected_wait)
        job: _Job[Item, _Result] = _Job(item, deadline)
        self._jobs.put_nowait(job)
        return await job.answer

    async def stop(self) -> None:
        """Take nothing new, finish what was taken, end the thread."""
        self._stopping = True
        while self._jobs.qsize() and self._task is not None and not self._task.done():
            await asyncio.sleep(0.005)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown(wait=True)

    async def _run(self) -> None:
        while True:
            jobs = self._due([await self._jobs.get()])
            while len(jobs) < self._max_batch and self._jobs.qsize():
                jobs += self._due([self._jobs.get_nowait()])
            if jobs:
                await self._answer(jobs)

    def _due(self, jobs: list[_Job[Item, _Result]]) -> list[_Job[Item, _Result]]:
        """Those that still want an answer; the late ones get their refusal."""
        kept = []
        for job in jobs:
            if job.answer.done():
                continue
            if time.monotonic() > job.deadline:
                job.answer.set_exception(RefusedError("deadline"))
            else:
                kept.append(job)
        return kept

    async def _answer(self, jobs: list[_Job[Item, _Result]]) -> None:
        self._on_batch(len(jobs))
        begun, self._computing = time.monotonic(), len(jobs)
        work = asyncio.get_running_loop().run_in_executor(
            self._thread, self._compute, [job.item for job in jobs]
        )
        try:
            results = await asyncio.shield(work)
        except asyncio.CancelledError:
            results = await work  # stopping: the batch that runs is still answered
            self._hand_out(jobs, results)
            raise
        except Exception as error:
            for job in jobs:
                if not job.answer.done():
                    job.answer.set_exception(error)
            return
        finally:
            self._computing = 0
        each = (time.monotonic() - begun) / len(jobs)
        self._seconds_each += (each - self._seconds_each) / 4 if self._seconds_each else each
        self._hand_out(jobs, results)

    @staticmethod
    def _hand_out(jobs: list[_Job[Item, _Result]], results: Sequence[_Result]) -> None:
        for job, result in zip(jobs, results, strict=True):
            if not job.answer.done():
                job.answer.set_result(result)
