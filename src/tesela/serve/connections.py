"""Limits of sockets: their number, the patience with a client, the size of a head.

uvicorn's own timeout begins after the first answer, so a socket that never asks anything would stay for ever.
Here each has some seconds for the head of a request and for taking an answer. Where there are too many, the
one whose client has kept the server waiting for longest goes, whether with a head, with a body or by not
reading, so that a new client is always let in. A request that there is no room for is refused here, before
anything but its head is looked at: that costs a tenth of an answer by the application.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Bytes of a head, and of a body's framing beside its own bytes; a chunk of one byte has seven of framing.
MOST_HEAD, FRAMING = 32 * 1024, 8
#: Requests that a client may send ahead of their answers.
MOST_AHEAD = 16
#: Seconds for requests that are on their way when the server begins to stop.
LAST_CALL = 0.25

#: From the target of a request to the answer that refuses it, from its first header on; or to what is called
#: when it has ended, or None, which both let it in.
Admission = Callable[[bytes], bytes | Callable[[], None] | None]


class UnboundedRequestError(Exception):
    """Ends a connection; the parser answers 400."""


class GuardedProtocol(HttpToolsProtocol):
    """A connection that knows since when it has been silent, or slow to read.

    The limits, and those that wait for their clients, are set by ``guarded``.
    """

    most = 1000
    head_seconds = 10.0
    read_seconds = 30.0
    admission: Admission | None = None
    waiting: dict[GuardedProtocol, None]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let a connection in; where there are too many, the one that is waited for longest goes."""
        self.silent_since = time.monotonic()
        self.full_since = 0.0
        self._refused = self._leaving = False
        self._received = self._body = 0
        self._ended: Callable[[], None] | None = None
        if len(self.connections) >= self.most and self.waiting:
            oldest = next(iter(self.waiting))
            self.connections.discard(oldest)
            self.waiting.pop(oldest)
            oldest.transport.abort()
        super().connection_made(transport)
        self.waiting[self] = None
        if len(self.connections) > self.most:
            transport.write(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n")
            transport.write(b"Content-Length: 0\r\n\r\n")
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._end()
        self.waiting.pop(self, None)
        super().connection_lost(exc)

    @property
    def is_silent(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        """Take what has come, unless its head, or the framing of its body, is out of all proportion."""
        self._received += len(data)
        super().data_received(data)
        if self._received - self._body > MOST_HEAD + FRAMING * self._body and not self.transport.is_closing():
            self.send_400_response("Invalid HTTP request received.")

    def on_headers_complete(self) -> None:
        """Refuse a request that there is no room for; begin to answer any other."""
        if len(self.pipeline) >= MOST_AHEAD:
            raise UnboundedRequestError
        if self.admission is not None and self.is_silent and not self.expect_100_continue:
            answer = self.admission(self.url) if self.parser.get_method() == b"POST" else None
            if isinstance(answer, bytes):
                self._refuse(answer)
                return
            self._ended = answer
        super().on_headers_complete()
        if self._leaving:
            self.cycle.keep_alive = False

    def _refuse(self, refusal: bytes) -> None:
        self._refused = True
        self._leaving |= not self.parser.should_keep_alive()
        dates = [name + b": " + value + b"\r\n" for name, value in self.server_state.default_headers]
        closing = b"connection: close\r\n" if self._leaving else b""
        self.transport.write(b"".join([b"HTTP/1.1 503 Service Unavailable\r\n", *dates, closing, refusal]))
        self._begin_to_wait()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body; that of a refused request is thrown away."""
        self._body += len(body)
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """It is the server's turn."""
        self._received = self._body = 0
        if self._refused:
            self._refused = False
            if self._leaving:
                self.transport.close()
            return
        if not self.is_silent:
            self.waiting.pop(self, None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self._end()
        self._begin_to_wait()
        super().on_response_complete()
        if self.cycle.waiting_for_100_continue:  # whether the body comes, nobody knows
            self.transport.close()

    def _end(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()

    def _begin_to_wait(self) -> None:
        self.silent_since = time.monotonic()
        self.waiting.pop(self, None)
        self.waiting[self] = None

    def pause_writing(self) -> None:
        """Wait for a client that does not read."""
        self.waiting[self] = None
        super().pause_writing()

    def resume_writing(self) -> None:
        """Go on answering."""
        if not self.is_silent:
            self.waiting.pop(self, None)
        super().resume_writing()

    def shutdown(self) -> None:
        """Answer what is inside or on its way, and close."""
        self._leaving = True
        if self.is_silent:
            self.loop.call_later(LAST_CALL, self._close_if_silent)
        else:
            super().shutdown()

    def _close_if_silent(self) -> None:
        if self.is_silent:
            self.transport.close()

    def check(self, now: float) -> None:
        """End the connection if it has been silent, or has not read, for too long."""
        waiting = self.transport.get_write_buffer_size() > 0
        self.full_since = (self.full_since or now) if waiting else 0.0
        slow = waiting and now - self.full_since > self.read_seconds
        silent = self.is_silent and not waiting and now - self.silent_since > self.head_seconds
        if slow or silent:
            self.transport.abort()


def guarded(
    *, most: int, head_seconds: float, read_seconds: float, admission: Admission | None = None
) -> type[GuardedProtocol]:
    """The protocol with its limits."""
    limits = {"most": most, "head_seconds": head_seconds, "read_seconds": read_seconds, "waiting": {}}
    limits["admission"] = None if admission is None else staticmethod(admission)
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
