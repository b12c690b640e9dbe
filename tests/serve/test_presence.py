"""Clients that go away, and deadlines, end the work that nobody needs any more."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request
from starlette.types import Message

from tesela.serve.engine.presence import for_client
from tesela.serve.errors import RefusedError


def request(leaves_after: float) -> Request:
    async def receive() -> Message:
        await asyncio.sleep(leaves_after)
        return {"type": "http.disconnect"}

    return Request({"type": "http"}, receive)


@pytest.mark.parametrize(
    ("leaves", "seconds", "code"), [(0.01, 5.0, "bad_request"), (5.0, 0.01, "deadline"), (5.0, 5.0, "")]
)
def test_work_ends_with_its_client_or_in_time(leaves: float, seconds: float, code: str) -> None:
    done: list[int] = []

    async def work() -> int:
        await asyncio.sleep(0.2)
        done.append(1)
        return 7

    async def scenario() -> int:
        return await for_client(request(leaves), work, seconds=seconds)

    if code:
        with pytest.raises(RefusedError, match=code):
            asyncio.run(scenario())
        assert done == []
    else:
        assert asyncio.run(scenario()) == 7


def test_a_failure_comes_through_as_it_is() -> None:
    async def work() -> int:
        raise RefusedError("corrupt")

    with pytest.raises(RefusedError, match="corrupt"):
        asyncio.run(for_client(request(5.0), work, seconds=5.0))
