"""Whole requests and answers, as they travel between the front and the replicas."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from urllib.parse import quote

from starlette.types import ASGIApp, Message


@dataclass(frozen=True, slots=True)
class WholeRequest:
    """A request whose body has been read.

    Attributes:
        method: of HTTP.
        path: without the query, decoded.
        query: as it was sent.
        headers: those that the application reads; no key is among them.
        body: all of it.
    """

    method: str
    path: str
    query: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """An answer with its whole body."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = field(default=b"", repr=False)

    @property
    def code(self) -> str:
        """The code of a refusal; empty for any other answer."""
        if self.status < 400:
            return ""
        try:
            return str(json.loads(self.body)["code"])
        except (ValueError, KeyError, TypeError):
            return ""


async def exchange(app: ASGIApp, request: WholeRequest) -> WholeAnswer:
    """What an application answers; cancel it where nobody waits for the answer any more."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "http",
        "method": request.method,
        "path": request.path,
        "raw_path": quote(request.path).encode("ascii"),
        "root_path": "",
        "query_string": request.query,
        "headers": list(request.headers),
        "client": None,
        "server": None,
        "state": {},
    }
    sent = False
    status = 500
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body = bytearray()

    async def receive() -> Message:
        nonlocal sent
        if sent:
            await asyncio.Event().wait()  # the client has not gone away; if it does, this is cancelled
        sent = True
        return {"type": "http.request", "body": request.body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status = message["status"]
            headers = tuple((bytes(name), bytes(value)) for name, value in message.get("headers", ()))
        else:
            body.extend(message.get("body", b""))

    await app(scope, receive, send)
    return WholeAnswer(status, headers, bytes(body))
