"""The micro-batcher against its rules: order, sizes, refusals, deadlines, stopping."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from tesela.serve.engine.batching import Batcher
from tesela.serve.errors import RefusedError

LATE = 1e9


class Squarer:
    """Squares numbers and remembers the batches; waits for ``open`` before each."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = threading.Event()
        self.open.set()
        self.began = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.began.set()
        self.open.wait(5)
        if 13 in items:
            raise ValueError("thirteen")
        return [item * item for item in items]


def test_each_gets_its_own_result_in_batches_of_at_most_four() -> None:
    async def scenario() -> None:
        squarer = Squarer()
        sizes: list[float] = []
        batcher: Batcher[int, int] = Batcher(squarer, max_batch=4, on_batch=sizes.append)
        batcher.start()
        squarer.open.clear()
        first = asyncio.create_task(batcher.submit(0, deadline=LATE))
        await asyncio.to_thread(squarer.began.wait, 5)
        others = [asyncio.create_task(batcher.submit(item, deadline=LATE)) for item in range(1, 10)]
        await asyncio.sleep(0.01)
        assert batcher.waiting == 9
        squarer.open.set()
        assert await asyncio.gather(first, *others) == [item * item for item in range(10)]
        assert squarer.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9]]
        assert sizes == [1, 4, 4, 1]
        await batcher.stop()

    asyncio.run(scenario())


def test_late_and_abandoned_items_are_never_computed() -> None:
    async def scenario() -> None:
        squarer = Squarer()
        batcher: Batcher[int, int] = Batcher(squarer, max_batch=4)
        batcher.start()
        squarer.open.clear()
        first = asyncio.create_task(batcher.submit(0, deadline=LATE))
        await asyncio.to_thread(squarer.began.wait, 5)
        late = asyncio.create_task(batcher.submit(1, deadline=time.monotonic() + 0.01))
        gone = asyncio.create_task(batcher.submit(2, deadline=LATE))
        kept = asyncio.create_task(batcher.submit(3, deadline=LATE))
        await asyncio.sleep(0.05)
        gone.cancel()
        squarer.open.set()
        assert await first == 0
        assert await kept == 9
        with pytest.raises(RefusedError, match="deadline"):
            await late
        assert squarer.batches == [[0], [3]]
        await batcher.stop()

    asyncio.run(scenario())


def test_a_failing_batch_fails_its_own_items_only() -> None:
    async def scenario() -> None:
        batcher: Batcher[int, int] = Batcher(Squarer(), max_batch=1)
        batcher.start()
        with pytest.raises(ValueError, match="thirteen"):
            await batcher.submit(13, deadline=LATE)
        assert await batcher.submit(5, deadline=LATE) == 25
        await batcher.stop()

    asyncio.run(scenario())


def test_stopping_answers_what_was_accepted_and_refuses_the_rest() -> None:
    async def scenario() -> None:
        squarer = Squarer()
        batcher: Batcher[int, int] = Batcher(squarer, max_batch=2)
        batcher.start()
        squarer.open.clear()
        accepted = [asyncio.create_task(batcher.submit(item, deadline=LATE)) for item in range(5)]
        await asyncio.to_thread(squarer.began.wait, 5)
        stopping = asyncio.create_task(batcher.stop())
        await asyncio.sleep(0.01)
        with pytest.raises(RefusedError, match="stopping"):
            await batcher.submit(9, deadline=LATE)
        squarer.open.set()
        await stopping
        assert await asyncio.gather(*accepted) == [0, 1, 4, 9, 16]

    asyncio.run(scenario())
