"""Room for bodies: the slow ones make way, and everything that was held is given back."""

from __future__ import annotations

import asyncio

from starlette.types import Message, Receive, Scope, Send

from tesela.serve.bodies import BodyLayer
from tesela.serve.errors import RefusedError

HTTP = {"type": "http"}


async def nobody(_: Message) -> None:
    """Take an answer."""


class Reader:
    """An application that reads a body, waits, and keeps in mind how it ended."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.ended: dict[str, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            while (await receive()).get("more_body"):
                pass
            await self.release.wait()
            self.ended[scope["path"]] = "answered"
        except RefusedError as error:
            self.ended[scope["path"]] = error.code


def sending(*sizes: int, whole: bool) -> Receive:
    """Chunks of some sizes; then the end, or nothing more."""
    chunks = list(sizes)

    async def receive() -> Message:
        await asyncio.sleep(0)
        if chunks:
            size = chunks.pop(0)
            return {"type": "http.request", "body": bytes(size), "more_body": bool(chunks) or not whole}
        await asyncio.sleep(3600)
        return {"type": "http.disconnect"}

    return receive


def test_the_body_that_arrives_for_longest_makes_way() -> None:
    """Room for 100 bytes: two that stop after 40 are given up one after the other, the whole one is kept."""

    async def scenario() -> None:
        app = Reader()
        layer = BodyLayer(app, most=100)

        def begin(path: str, receive: Receive) -> asyncio.Task[None]:
            return asyncio.create_task(layer({**HTTP, "path": path}, receive, nobody))

        tasks = []
        for path in ("first", "second"):
            tasks.append(begin(path, sending(20, 20, whole=False)))
            await asyncio.sleep(0.01)
        tasks.append(begin("third", sending(30, 20, whole=True)))
        await asyncio.sleep(0.01)
        assert app.ended == {"first": "overloaded"}
        assert layer.held == 90
        tasks.append(begin("fourth", sending(50, whole=True)))
        await asyncio.sleep(0.01)
        assert app.ended == {"first": "overloaded", "second": "overloaded"}
        tasks.append(begin("fifth", sending(1, whole=True)))
        await asyncio.sleep(0.01)
        assert app.ended["fifth"] == "overloaded"  # all others are whole and wait for their answers
        app.release.set()
        await asyncio.gather(*tasks)
        assert (app.ended["third"], app.ended["fourth"], layer.held) == ("answered", "answered", 0)

    asyncio.run(scenario())


def test_other_kinds_of_connections_pass() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    asyncio.run(BodyLayer(app, most=1)({"type": "lifespan"}, sending(whole=True), nobody))
    assert seen == ["lifespan"]
