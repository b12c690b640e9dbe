"""Listen until a signal comes, then finish accepted requests and exit with code 0.

Odd: uvicorn raises the signal again after it has drained, so that a process dies of it; handlers of our own
are in place before, which makes a stop that was asked for a success.
"""

from __future__ import annotations

import gc
import logging
import math
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from tesela.core.errors import UsageError
from tesela.serve.config import ServeConfig
from tesela.serve.connections import Admission, check_all, guarded, raise_descriptors


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens on the address; port 0 takes a free one.

    Raises:
        UsageError: the address is taken, unknown or not allowed.
    """
    listening: socket.socket | None = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # asyncio switches Nagle's algorithm off only for sockets that say they are TCP; with it an answer
        # waits 40 ms.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        if listening is not None:
            listening.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"cannot listen on {host} port {port}: {reason}",
            hint="choose another --port (0 takes a free one)",
        ) from error
    return listening


def listen(
    app: ASGIApp,
    listening: socket.socket,
    *,
    config: ServeConfig | None = None,
    on_start: Callable[[str], None],
    admission: Admission | None = None,
) -> None:
    """Serve ``app`` until SIGINT or SIGTERM.

    Args:
        app: the application.
        listening: a bound socket.
        config: the limits of sockets.
        on_start: called with the address once the server accepts requests.
        admission: what refuses a request by its target.
    """
    logging.getLogger("tesela.serve").addHandler(logging.StreamHandler())
    limits = config or ServeConfig()
    raise_descriptors(limits.max_connections)
    settings = uvicorn.Config(
        app,
        http=guarded(
            most=limits.max_connections,
            head_seconds=limits.head_seconds,
            read_seconds=limits.body_seconds,
            admission=admission,
        ),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=math.ceil(limits.drain_seconds),
        ws="none",
    )
    server = _Announcing(settings, on_start=lambda: on_start(address_of(listening)))
    before = [(number, signal.signal(number, _leave_quietly)) for number in (signal.SIGINT, signal.SIGTERM)]
    gc.collect()
    gc.freeze()  # a collection that walks through all of PyTorch holds up every request for 80 ms
    try:
        server.run(sockets=[listening])
    finally:
        gc.unfreeze()
        for number, handler in before:
            signal.signal(number, handler)
        listening.close()


def address_of(listening: socket.socket) -> str:
    """The URL of a bound socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Announcing(uvicorn.Server):
    """Calls back when it has started."""

    def __init__(self, config: uvicorn.Config, *, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start()

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # about once a second
            check_all(self.server_state.connections)
        return await super().on_tick(counter)


def _leave_quietly(number: int, frame: FrameType | None) -> None:
    """Do nothing: uvicorn has stopped already when this runs."""
