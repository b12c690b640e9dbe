"""Work that ends with its client, and at its deadline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from starlette.requests import Request

from tesela.serve.errors import RefusedError

_T = TypeVar("_T")


async def for_client(request: Request, work: Callable[[], Awaitable[_T]], *, seconds: float) -> _T:
    """The result of ``work`` on a request whose body has been read.

    Raises:
        RefusedError: the client has gone away, or the time is over; what still waited is not computed.
    """
    found: list[_T] = []
    failure: Exception | None = None
    late = False

    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(watch)
        with anyio.move_on_after(seconds) as limit:
            try:
                found.append(await work())
            except Exception as error:  # raised below, outside of the group, which would wrap it
                failure = error
        late = limit.cancelled_caught
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if late:
        raise RefusedError("deadline")
    if not found:
        raise RefusedError("bad_request")
    return found[0]
