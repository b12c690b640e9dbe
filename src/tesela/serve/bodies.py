"""Room for the bodies of requests that are inside at the same time, whatever their number.

Each request may have a body of some megabytes, and very many may send one slowly. Here all together have a
bound; beyond it the body that has been arriving for longest is given up, so that whoever sends at an ordinary
pace gets through.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tesela.serve.errors import RefusedError

#: Largest bodies that fit in at once.
BODIES = 5


@dataclass(eq=False, slots=True)
class _Body:
    """What a request has sent so far."""

    began: float = field(default_factory=time.monotonic)
    size: int = 0
    arriving: anyio.CancelScope | None = None
    given_up: bool = False


class BodyLayer:
    """Counts the bytes of all bodies that are held, until their answers are sent.

    Args:
        app: the application; in it a body that is given up ends with ``RefusedError``.
        most: bytes of all bodies together.
    """

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self._app, self._most = app, most
        self._bodies: set[_Body] = set()
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a body that is counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body()

        async def counted() -> Message:
            with anyio.CancelScope() as arriving:
                body.arriving = arriving
                message = await receive()
            body.arriving = None
            if body.given_up:
                raise RefusedError("overloaded")
            if message["type"] == "http.request":
                self._take(body, len(message.get("body", b"")))
                if not message.get("more_body", False):
                    self._bodies.discard(body)  # whole: it is held, and no longer given up
            return message

        self._bodies.add(body)
        try:
            await self._app(scope, counted, send)
        finally:
            self._bodies.discard(body)
            self.held -= body.size

    def _take(self, body: _Body, size: int) -> None:
        """Hold some bytes more, in the place of others if need be.

        Raises:
            RefusedError: there is no room, and no other body that is still arriving.
        """
        body.size += size
        self.held += size
        while self.held > self._most:
            others = [other for other in self._bodies if other is not body and other.size]
            if not others and body.size > self._most:
                return  # the application's own limit refuses it, and says so
            if not others:
                raise RefusedError("overloaded")
            oldest = min(others, key=lambda other: other.began)
            self._bodies.discard(oldest)
            self.held -= oldest.size
            oldest.size, oldest.given_up = 0, True
            if oldest.arriving is not None:
                oldest.arriving.cancel()
