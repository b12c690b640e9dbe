"""Admission by what is inside: a number of requests, and the time they will take."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tesela.serve.errors import RefusedError

#: Share of a request's time that it may be expected to wait; the rest is for what the estimate misses.
FILLED = 0.5
#: Seconds within which a request that was let in by its first line is looked for inside.
COMES_WITHIN = 0.25
#: Weight of the latest answer in the mean time of one, once there were as many.
LATEST = 1 / 64


@dataclass(frozen=True, eq=False, slots=True)
class _Place:
    """A request on its way.

    Attributes:
        since: when it was let in.
    """

    since: float


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
        self._coming: deque[_Place] = deque()

    @property
    def excess(self) -> float | None:
        """Seconds until there is room for one more than are inside or on their way; None where there is."""
        now = time.monotonic()
        while self._coming and now - self._coming[0].since > COMES_WITHIN:
            self._coming.popleft()
        return self._excess(self.inside + len(self._coming))

    def _excess(self, count: int) -> float | None:
        wait = count * self._seconds_each - self._most_wait if count else 0.0
        return max(wait, 0.0) if wait > 0 or count >= self.size else None

    def expect(self) -> Callable[[], None]:
        """Keep a place for a request that was let in by its first line, for a moment.

        Between that and its turn in the application others come, which would all be let in.

        Returns:
            what gives the place up, to be called when the request has ended.
        """
        place = _Place(time.monotonic())
        self._coming.append(place)

        def leave() -> None:
            with contextlib.suppress(ValueError):  # one that came inside has none left
                self._coming.remove(place)

        return leave

    def check(self) -> None:
        """Refuse now where there is no room, before a body is read for nothing."""
        wait = self._excess(self.inside)
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
        if self._coming:
            self._coming.popleft()
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
