"""Admission by what is inside: a number of requests, and the time they will take."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from tesela.serve.errors import RefusedError

#: Share of a request's time that it may be expected to wait; the rest is for what the estimate misses.
FILLED = 0.5
#: Weight of the latest answer in the mean time of one, once there were as many.
LATEST = 1 / 64


class Gate:
    """Counts what is unfinished and refuses what comes on top.

    What one takes is the mean time between answers while there is anything inside, whatever the work:
    decoding, the network in batches, the sockets. Refusals and clients that left do not count.

    Args:
        size: most requests inside at once.
        seconds: that a request has; what would wait for more than half of it is refused.
    """

    def __init__(self, size: int, *, seconds: float = float("inf")) -> None:
        self.size = size
        self.inside = 0
        self._most_wait = seconds * FILLED
        self._seconds_each = 0.0
        self._answers = 0
        self._since = 0.0

    @property
    def excess(self) -> float | None:
        """Seconds until there is room; None where there is."""
        wait = self.inside * self._seconds_each - self._most_wait if self.inside else 0.0
        return max(wait, 0.0) if wait > 0 or self.inside >= self.size else None

    def check(self) -> None:
        """Refuse now where there is no room, before a body is read for nothing."""
        wait = self.excess
        if wait is not None:
            raise RefusedError("overloaded", wait=wait)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Let one of those inside wait where it holds up nobody else."""
        self.inside -= 1
        try:
            yield
        finally:
            self.inside += 1

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """Be one of the requests inside, or be refused."""
        self.check()
        if not self.inside:
            self._since = time.monotonic()
        self.inside += 1
        try:
            yield
            self._answers += 1
            each = time.monotonic() - self._since
            self._seconds_each += (each - self._seconds_each) * max(LATEST, 1 / self._answers)
        finally:
            self.inside -= 1
            self._since = time.monotonic()
