"""Rate limit by token buckets, one for each key or address."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

#: Clients that are remembered; the one that has been quiet for longest is forgotten first.
MOST_CLIENTS = 10_000


class RateLimit:
    """A bucket of one second's requests for each client, at least one, that fills at the rate.

    Args:
        rate: requests a second.
        clock: seconds, for tests.
    """

    def __init__(self, rate: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._size, self._clock = rate, max(1.0, rate), clock
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def take(self, client: bytes) -> float:
        """Count a request; 0 if it is let through, else the seconds until the next one would be."""
        now = self._clock()
        left, then = self._buckets.pop(client, (self._size, now))
        left = min(self._size, left + (now - then) * self._rate)
        wait = 0.0 if left >= 1.0 else (1.0 - left) / self._rate
        self._buckets[client] = (left if wait else left - 1.0, now)
        if len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return wait
