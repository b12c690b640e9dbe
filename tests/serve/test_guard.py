"""Requests out of all proportion, and sockets whose clients keep the server waiting, over real sockets."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from tests.serve.test_server import IMAGES, Running

POST = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    running = Running("--max-connections", "12", "--decoders", "1")
    yield running
    if running.process.poll() is None:
        running.end(signal.SIGKILL)


def connect(server: Running) -> socket.socket:
    place = urlsplit(server.address)
    one = socket.create_connection((place.hostname, place.port or 80), timeout=10)
    one.settimeout(10)
    return one


def everything(one: socket.socket) -> bytes:
    """What comes until the server closes."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while chunk := one.recv(1 << 16):
            found += chunk
    one.close()
    return found


def sent(server: Running, data: bytes) -> bytes:
    one = connect(server)
    with contextlib.suppress(ConnectionError):
        one.sendall(data)
    return everything(one)


def chunks(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 2_000_000,
        b"GET /" + b"a" * 2_000_000,
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X-Many: 1\r\n" * 200_000,
        POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 2_000_000,
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X-Trailer: 1\r\n" * 200_000,
        b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2000,
    ],
    ids=["header", "target", "headers", "chunk extension", "trailers", "requests ahead"],
)
def test_requests_without_bound_are_cut_off(server: Running, data: bytes) -> None:
    """Within a second, with 400 if the client still reads; the next client is answered."""
    began = time.monotonic()
    answer = sent(server, data)
    assert time.monotonic() - began < 5
    assert b"HTTP/1.1 200" not in answer[:20] or data.startswith(b"GET /openapi")
    assert answer.count(b"HTTP/1.1 200") <= 20
    one = connect(server)
    one.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert everything(one).startswith(b"HTTP/1.1 200")


def test_a_body_in_small_chunks_is_taken(server: Running) -> None:
    """Three bytes each, which makes the framing twice as long as the image."""
    head = POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    answer = sent(server, head + chunks(IMAGES[0], 3) + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


def test_a_few_requests_ahead_are_answered_in_order(server: Running) -> None:
    one = connect(server)
    one.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5)
    one.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = everything(one)
    assert answer.count(b'{"status":"ok"}') == 5
    assert answer.endswith(b'{"status":"ready"}')


def test_slow_bodies_leave_room_for_others(server: Running) -> None:
    """Thirty clients begin a body each and send no more: there is room for a thirty-first at once."""
    slow = [connect(server) for _ in range(30)]
    for one in slow:
        with contextlib.suppress(ConnectionError):
            one.sendall(POST + b"Content-Length: 1000\r\n\r\nabc")
    began = time.monotonic()
    one = connect(server)
    one.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert everything(one).startswith(b"HTTP/1.1 200")
    assert time.monotonic() - began < 2
    for one in slow:
        one.close()


def test_a_refused_connection_can_be_used_again() -> None:
    """While the queue is full a kept connection gets 503 and the rest of its body is thrown away, then other
    answers; one that wants to be closed is, and a chunked body does no harm."""
    queue = Running("--queue", "1", "--decoders", "1", failpoint="serve.batch=sleep:1.5")
    try:
        first = connect(queue)
        first.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(IMAGES[0]) + IMAGES[0])
        time.sleep(0.5)
        kept = connect(queue)
        for body in (
            b"Content-Length: 300000\r\n\r\n" + b"x" * 300_000,
            b"Transfer-Encoding: chunked\r\n\r\n" + chunks(b"POST / HTTP/1.1\r\n\r\n" * 9, 7) + b"\r\n",
        ):
            kept.sendall(POST + body)
            assert kept.recv(1 << 16).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b'{"status":"ok"}'):
            answer += kept.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 200")
        kept.sendall(POST + b"Connection: close\r\nContent-Length: 5\r\n\r\nabcde")
        answer = everything(kept)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"\r\nconnection: close\r\n" in answer
        assert first.recv(1 << 16).startswith(b"HTTP/1.1 200")
        first.close()
    finally:
        assert queue.end() == 0
