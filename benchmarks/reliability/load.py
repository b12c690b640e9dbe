"""Load on an HTTP server from one thread: open loop by a clock, or closed loop by a number of clients.

In the open loop a request has a time at which it is due, whatever happened to those before it, and its
latency counts from that time; what finds no socket waits for one and is late. Connections are kept and as
many are opened as are needed, up to a limit. A client that has no answer within its patience closes its
connection.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

#: Status of a request whose connection ended, and of one that had no answer within its patience.
LOST, NO_ANSWER = 0, -1
#: Sockets that the load opens at most; the server's own limit is 1,000.
MOST_SOCKETS = 800


def request_bytes(
    path: str, body: bytes = b"", *, kind: str = "image/jpeg", method: str = "POST", headers: bytes = b""
) -> bytes:
    """A request as it goes over the socket."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Content-Type: " + kind.encode() + b"\r\n" + headers + b"\r\n" + body


@dataclass(slots=True)
class Shot:
    """A request's fate; times are seconds of the loop's clock."""

    due: float
    done: float = 0.0
    status: int = NO_ANSWER
    retry_after: bool = False
    sent: float = 0.0

    @property
    def seconds(self) -> float:
        """From the time at which it was due to its answer."""
        return self.done - self.due


class Connection(asyncio.Protocol):
    """A kept connection that carries one request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.shot: Shot | None = None
        self.buffer = bytearray()
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.open = True

    def ask(self, shot: Shot, data: bytes) -> None:
        """Send a request."""
        self.shot = shot
        shot.sent = self._load.now()
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Gather an answer until it is complete."""
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.buffer[:end]).lower()
        if head.startswith(b"http/1.1 100"):
            del self.buffer[: end + 4]
            self.data_received(b"")
            return
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.buffer) < end + 4 + length:
            return
        self.buffer.clear()
        shot, self.shot = self.shot, None
        closing = b"connection: close" in head
        if closing:
            self.open = False
            self.transport.close()
        if shot is not None:
            shot.retry_after = b"\r\nretry-after:" in head
            self._load.finish(shot, int(head[9:12]))
        if self.open:
            self._load.free(self)
        else:
            self._load.gone(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Count the request on it, if any, as lost."""
        self.open = False
        shot, self.shot = self.shot, None
        if shot is not None:
            self._load.finish(shot, LOST)
        self._load.gone(self)


@dataclass(slots=True)
class Load:
    """What sends requests to a server and remembers what became of them.

    Attributes:
        address: host and port.
        requests: bytes of requests, sent in turn.
        patience: seconds after which a client leaves.
        most: sockets.
    """

    address: tuple[str, int]
    requests: Sequence[bytes]
    patience: float = 10.0
    most: int = MOST_SOCKETS
    shots: list[Shot] = field(default_factory=list)
    _idle: list[Connection] = field(default_factory=list)
    _all: set[Connection] = field(default_factory=set)
    _opening: int = 0
    _waiting: deque[Shot] = field(default_factory=deque)
    _unfinished: int = 0
    _again: float = 0.0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _number: int = 0

    def now(self) -> float:
        """Seconds of the loop's clock."""
        return asyncio.get_running_loop().time()

    async def open_loop(
        self, rate: float, seconds: float, *, poisson: bool = False, settle: bool = True
    ) -> list[Shot]:
        """Requests at a rate for so long, evenly spaced or at random times; and the answers to them.

        Without ``settle`` it ends with the last request; ``settled`` waits for the answers.
        """
        draw = random.Random(0)
        due, end = self.now() + 0.05, self.now() + 0.05 + seconds
        begin = len(self.shots)
        keeper = asyncio.create_task(self._keep_patience())
        while due < end:
            if (wait := due - self.now()) > 0:
                await asyncio.sleep(wait)
            self.send(due)
            due += draw.expovariate(rate) if poisson else 1 / rate
        if settle:
            await self.settled()
            keeper.cancel()
        else:
            self._tasks.add(keeper)
        return self.shots[begin:]

    async def closed_loop(self, clients: int, seconds: float) -> list[Shot]:
        """Requests of clients that each ask again when they have their answer."""
        begin = len(self.shots)
        keeper = asyncio.create_task(self._keep_patience())
        self._again = self.now() + seconds
        for _ in range(clients):
            self.send(self.now())
        while self.now() < self._again:
            await asyncio.sleep(0.01)
        await self.settled()
        keeper.cancel()
        self._again = 0.0
        return self.shots[begin:]

    async def close(self) -> None:
        """Close all connections."""
        for task in list(self._tasks):
            task.cancel()
        for one in list(self._all):
            one.transport.abort()
        await asyncio.sleep(0.01)

    def send(self, due: float) -> None:
        """Send a request now, or as soon as there is a socket for it."""
        shot = Shot(due)
        self.shots.append(shot)
        self._unfinished += 1
        while self._idle:
            one = self._idle.pop()
            if one.open:
                one.ask(shot, self._next())
                return
        self._waiting.append(shot)
        self._open_another()

    def _open_another(self) -> None:
        if self._opening < len(self._waiting) and len(self._all) + self._opening < self.most:
            self._opening += 1
            task = asyncio.get_running_loop().create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def finish(self, shot: Shot, status: int) -> None:
        """Write down what became of a request."""
        shot.done, shot.status = self.now(), status
        self._unfinished -= 1
        if self._again and shot.done < self._again:
            if status in (200, NO_ANSWER):
                self.send(shot.done)
            else:  # a refused client waits a little
                asyncio.get_running_loop().call_later(0.02, self._send_again)

    def _send_again(self) -> None:
        if self.now() < self._again:
            self.send(self.now())

    def free(self, one: Connection) -> None:
        """Use a connection for what waits, or keep it."""
        while self._waiting:
            shot = self._waiting.popleft()
            if shot.status == NO_ANSWER and not shot.done:
                one.ask(shot, self._next())
                return
        self._idle.append(one)

    def gone(self, one: Connection) -> None:
        """Forget a connection, and open another where a request waits for one."""
        self._all.discard(one)
        self._open_another()

    def _next(self) -> bytes:
        self._number += 1
        return self.requests[self._number % len(self.requests)]

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.patience):
                _, one = await loop.create_connection(lambda: Connection(self), *self.address)
        except OSError:  # refused, reset, or not accepted in time
            self._opening -= 1
            if self._waiting:
                shot = self._waiting.popleft()
                if not shot.done:
                    self.finish(shot, LOST)
            return
        self._opening -= 1
        self._all.add(one)
        self.free(one)

    async def settled(self) -> None:
        """Wait until each request has an answer or its client has left."""
        while self._unfinished:
            await asyncio.sleep(0.005)

    async def _keep_patience(self) -> None:
        """Let clients go whose patience is over."""
        while True:
            await asyncio.sleep(0.02)
            oldest = self.now() - self.patience
            for one in [one for one in self._all if one.shot is not None and one.shot.due < oldest]:
                shot, one.shot = one.shot, None
                one.transport.abort()
                if shot is not None:
                    self.finish(shot, NO_ANSWER)
            while self._waiting and self._waiting[0].due < oldest:
                shot = self._waiting.popleft()
                if not shot.done:
                    self.finish(shot, NO_ANSWER)


def percentile(shots: Sequence[Shot], share: float) -> float:
    """Seconds within which that share of the requests had their answer; NaN without any."""
    return float(np.quantile([shot.seconds for shot in shots], share)) if shots else float("nan")


def answered(shots: Sequence[Shot], *, within: float = float("inf")) -> list[Shot]:
    """Requests that were served, in time."""
    return [shot for shot in shots if shot.status == 200 and shot.seconds <= within]


def refused(shots: Sequence[Shot]) -> list[Shot]:
    """Requests that were told to come again."""
    return [shot for shot in shots if shot.status in (429, 503)]
