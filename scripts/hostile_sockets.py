"""Hostile clients of a server: sockets that say nothing, speak slowly, do not read, or ask without end.

Each is a function of the server's place (host, port) and an event that ends it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

#: Sockets of the attacks by number.
MANY = 1100
_POST = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
_GET = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
#: Bytes of a body that almost arrives.
_NEARLY = 19 << 20


def opened(place: tuple[str, int], count: int) -> list[socket.socket]:
    """Sockets that do not wait; fewer where the system allows no more."""
    found = []
    with contextlib.suppress(OSError):
        for _ in range(count):
            one = socket.create_connection(place, timeout=5)
            one.setblocking(False)
            found.append(one)
    return found


def dripping(
    place: tuple[str, int], stopped: threading.Event, *, count: int, first: bytes, drops: bytes, pause: float
) -> None:
    """Sockets that send their beginning and then a byte each in turn; the closed ones are opened again."""
    sockets = opened(place, count)
    for one in sockets:
        with contextlib.suppress(OSError):
            one.sendall(first)
    at = 0
    while not stopped.wait(pause):
        for index, one in enumerate(sockets):
            try:
                if drops:
                    one.send(drops[at % len(drops) :][:1])
            except OSError:
                one.close()
                sockets[index : index + 1] = opened(place, 1) or [one]
        at += 1
    for one in sockets:
        one.close()


def idle(place: tuple[str, int], stopped: threading.Event) -> None:
    """Connect and say nothing."""
    dripping(place, stopped, count=MANY, first=b"", drops=b"", pause=0.2)


def slow_heads(place: tuple[str, int], stopped: threading.Event) -> None:
    """Heads that come byte by byte."""
    dripping(place, stopped, count=500, first=b"GET / HTTP/1.1\r\nX-Slow: ", drops=b"a", pause=0.5)


def slow_bodies(place: tuple[str, int], stopped: threading.Event) -> None:
    """Bodies that come byte by byte."""
    head = _POST + b"Content-Length: 100000\r\n\r\n"
    dripping(place, stopped, count=500, first=head, drops=b"\x89", pause=0.5)


def slow_chunks(place: tuple[str, int], stopped: threading.Event) -> None:
    """Chunked bodies in chunks of one byte."""
    head = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
    dripping(place, stopped, count=500, first=head, drops=b"1\r\na\r\n", pause=0.5)


def unanswered(place: tuple[str, int], stopped: threading.Event) -> None:
    """Announce a body, ask whether to send it, and never do."""
    head = _POST + b"Content-Length: 100000\r\nExpect: 100-continue\r\n\r\n"
    dripping(place, stopped, count=500, first=head, drops=b"", pause=0.5)


def nearly_whole(place: tuple[str, int], stopped: threading.Event) -> None:
    """Large bodies of which the last byte never comes, from thirty clients."""

    def send() -> None:
        while not stopped.is_set():
            with contextlib.suppress(OSError), socket.create_connection(place, timeout=5) as one:
                one.sendall(_POST + b"Content-Length: %d\r\n\r\n" % (_NEARLY + 1))
                for _ in range(_NEARLY >> 20):
                    one.sendall(bytes(1 << 20))
                one.settimeout(0.5)
                while not stopped.is_set():
                    try:
                        if not one.recv(4096):
                            break
                    except TimeoutError:
                        continue
            stopped.wait(1.0)

    _together(send, 30)


def not_reading(place: tuple[str, int], stopped: threading.Event) -> None:
    """Ask for a document again and again, and take no answer."""
    sockets = opened(place, 100)
    while not stopped.wait(2.0):
        for one in sockets:
            with contextlib.suppress(OSError):
                one.send(_GET * 2)
    for one in sockets:
        one.close()


def pipelined(place: tuple[str, int], stopped: threading.Event) -> None:
    """Many requests in one go on each of twenty sockets, whose answers are thrown away."""

    def send() -> None:
        while not stopped.is_set():
            with contextlib.suppress(OSError), socket.create_connection(place, timeout=5) as one:
                one.sendall(b"GET /v1/none HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
                one.settimeout(1)
                while not stopped.is_set() and one.recv(1 << 16):
                    pass
            stopped.wait(4.0)

    _together(send, 20)


def endless_heads(place: tuple[str, int], stopped: threading.Event) -> None:
    """Heads without an end, as fast as they are taken."""

    def send() -> None:
        while not stopped.is_set():
            with contextlib.suppress(OSError), socket.create_connection(place, timeout=5) as one:
                one.sendall(b"GET / HTTP/1.1\r\n")
                while not stopped.is_set():
                    one.sendall(b"X-Filler: " + b"a" * 4000 + b"\r\n")
            stopped.wait(0.1)

    _together(send, 10)


def _together(call: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=call, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


#: Name -> attack; the first is the one that was seen first.
SOCKETS: dict[str, Callable[[tuple[str, int], threading.Event], None]] = {
    "1,100 idle sockets": idle,
    "500 heads byte by byte": slow_heads,
    "500 bodies byte by byte": slow_bodies,
    "500 chunked bodies byte by byte": slow_chunks,
    "500 bodies that are announced and not sent": unanswered,
    "30 bodies of 19 MB without their last byte": nearly_whole,
    "100 clients that take no answer": not_reading,
    "20 clients with 20 requests in one go": pipelined,
    "10 heads without end": endless_heads,
}
