"""Sockets that say nothing, speak slowly or do not read, beside a client that asks."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from scripts.hostile_images import flat, png, with_scans
from tests.serve.test_server import IMAGES, Running


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    running = Running(
        "--max-connections", "20", "--head-seconds", "1.5", "--body-seconds", "1.5", "--decoders", "1"
    )
    yield running
    if running.process.poll() is None:
        running.end(signal.SIGKILL)


def sockets(server: Running, count: int) -> list[socket.socket]:
    place = urlsplit(server.address)
    return [socket.create_connection((place.hostname, place.port or 80), timeout=10) for _ in range(count)]


def closed(one: socket.socket, within: float) -> bool:
    one.settimeout(within)
    try:
        return one.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_idle_sockets_leave_room_for_others_and_are_closed(server: Running) -> None:
    idle = sockets(server, 60)
    began = time.monotonic()
    assert server.post(IMAGES[0])[0] == 200
    assert time.monotonic() - began < 2
    assert all(closed(one, 5) for one in idle)
    for one in idle:
        one.close()


def test_a_head_that_comes_byte_by_byte_is_cut_off(server: Running) -> None:
    (slow,) = sockets(server, 1)
    began = time.monotonic()
    with contextlib.suppress(OSError):
        for byte in b"GET /healthz HTTP/1.1\r\nX-Slow: " + b"a" * 1000:
            slow.send(bytes([byte]))
            if closed(slow, 0.1):
                break
    assert 1 < time.monotonic() - began < 6
    slow.close()


def test_a_body_that_comes_slowly_is_refused(server: Running) -> None:
    (slow,) = sockets(server, 1)
    slow.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
    slow.settimeout(6)
    assert slow.recv(100).startswith(b"HTTP/1.1 408")
    slow.close()


def test_hostile_images_hold_up_nobody(server: Running) -> None:
    """Progressive JPEGs of very many scans and large PNGs, whose clients leave at once: the process is alive
    and a digit is recognised all the while."""
    large = png((2500, 4000))
    attacks = sockets(server, 6)
    for index, one in enumerate(attacks):
        body = with_scans(flat((512, 512)), 20_000) if index % 2 else large
        one.sendall(
            b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        one.sendall(body)
    for one in attacks:
        one.close()
    for _ in range(5):
        began = time.monotonic()
        assert server.post(IMAGES[0])[0] == 200
        assert time.monotonic() - began < 2


def test_a_client_that_does_not_read_is_cut_off(server: Running) -> None:
    """It asks 300 times for a document of 60 kB; what it reads later is less than that, and then the end."""
    (lazy,) = sockets(server, 1)
    with contextlib.suppress(OSError):
        lazy.settimeout(1)
        lazy.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 300)
    time.sleep(4)
    lazy.settimeout(5)
    read = 0
    with contextlib.suppress(ConnectionError):
        while chunk := lazy.recv(1 << 20):
            read += len(chunk)
    assert read < 300 * 50_000
    lazy.close()
    assert server.post(IMAGES[0])[0] == 200
