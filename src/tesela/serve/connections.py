"""Limits of sockets: how many, how long they may be silent, and how slowly they may read.

uvicorn's own timeout begins after the first answer, so a socket that never asks anything would stay for ever.
Here each has some seconds for the head of a request and for taking an answer; where there are too many, the
one that has been silent for longest goes, so that a new client is always let in.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class GuardedProtocol(H11Protocol):
    """A connection that knows since when it has been silent, or slow to read.

    ``most`` and the seconds are set by ``guarded``.
    """

    most = 1000
    head_seconds = 10.0
    read_seconds = 30.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let a connection in, in the place of the most silent one where there are too many."""
        self.silent_since = time.monotonic()
        self.full_since = 0.0
        if len(self.connections) >= self.most:
            silent = [one for one in self.connections if isinstance(one, GuardedProtocol) and one.is_silent]
            if silent:
                oldest = min(silent, key=lambda one: one.silent_since)
                self.connections.discard(oldest)
                oldest.transport.abort()
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.write(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n")
            transport.write(b"Content-Length: 0\r\n\r\n")
            transport.close()

    @property
    def is_silent(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self.silent_since = time.monotonic()
        super().on_response_complete()

    def check(self, now: float) -> None:
        """End the connection if it has been silent, or has not read, for too long."""
        waiting = self.transport.get_write_buffer_size() > 0
        self.full_since = (self.full_since or now) if waiting else 0.0
        slow = waiting and now - self.full_since > self.read_seconds
        silent = self.is_silent and not waiting and now - self.silent_since > self.head_seconds
        if slow or silent:
            self.transport.abort()


def guarded(*, most: int, head_seconds: float, read_seconds: float) -> type[GuardedProtocol]:
    """The protocol with its limits."""
    limits = {"most": most, "head_seconds": head_seconds, "read_seconds": read_seconds}
    return type("LimitedProtocol", (GuardedProtocol,), limits)


def check_all(connections: Iterable[Any]) -> None:
    """Look at every connection; call it about once a second."""
    now = time.monotonic()
    for connection in list(connections):
        if isinstance(connection, GuardedProtocol):
            connection.check(now)


def raise_descriptors(most: int) -> None:
    """As many file descriptors as that many sockets need, where the system allows it."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = most + 256
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(
                resource.RLIMIT_NOFILE,
                (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard),
            )
