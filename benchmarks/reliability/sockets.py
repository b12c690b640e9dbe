"""Slow sockets beside clients that ask: R15.

A third sends the head of a request byte by byte, a third its body, and a third asks for large answers and
does not read them. One that the server closes comes again after some seconds; they do not keep step.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import socket
from typing import Any

from benchmarks.reliability.load import answered, percentile
from benchmarks.reliability.overload import unloaded
from benchmarks.reliability.plan import Plan

#: Seconds between two bytes, and until a closed socket comes again.
BETWEEN, AGAIN = 1.0, 5.0
#: Seconds within which all of them have come for the first time.
ARRIVING = 2.0
#: Requests beside them, however slow the machine is.
LEAST = 20
HEAD = b"GET /healthz HTTP/1.1\r\nX-Slow: "
BODY = b"POST /v1/classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n"
LARGE = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 8


async def slow(address: tuple[str, int], kind: int) -> None:
    """A slow client, for ever."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(random.uniform(0, ARRIVING))
    while True:
        one = socket.socket()
        one.setblocking(False)
        if kind == 2:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        try:
            await asyncio.wait_for(loop.sock_connect(one, address), 10)
            await loop.sock_sendall(one, (HEAD, BODY, LARGE)[kind])
            while True:
                await asyncio.sleep(BETWEEN)
                if kind < 2:
                    await loop.sock_sendall(one, b"a")
                else:
                    one.send(b"")
                    if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                        break
        except (OSError, TimeoutError):
            pass
        finally:
            one.close()
        await asyncio.sleep(AGAIN * random.uniform(0.5, 1.5))


async def measure(plan: Plan) -> dict[str, Any]:
    """The figures of R15."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = plan.size.sockets + 1500
    with plan.start() as server:
        if soft < wanted:  # this process alone: servers have what the system gives them
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
        load = plan.load(server)
        rate = 0.15 / await unloaded(load, plan.size.capacity_seconds)
        seconds = max(6.0, plan.size.overload_seconds / 2, LEAST / rate)
        calm = await load.open_loop(rate, seconds)
        crowd = [asyncio.create_task(slow(server.address, index % 3)) for index in range(plan.size.sockets)]
        await asyncio.sleep(ARRIVING + BETWEEN)
        shots = await load.open_loop(rate, seconds)
        await load.close()
        for one in crowd:
            one.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*crowd, return_exceptions=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return {
        "sockets": plan.size.sockets,
        "requests": len(shots),
        "failures": len(shots) - len(answered(shots)),
        "p99_times": percentile(shots, 0.99) / percentile(calm, 0.99),
    }
