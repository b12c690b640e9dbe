"""One real server on loopback, started by the command line: answers, overload, and a stop under load."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.runtime.bundles import digits_run, held_out

from tesela.core.errors import UsageError
from tesela.runtime.predictor import Predictor
from tesela.serve.server import address_of, bind

ROOT = Path(__file__).resolve().parents[2]
IMAGES = held_out(20)[0]


class Running:
    """``tesela serve`` in a process of its own."""

    def __init__(self, *words: str, failpoint: str = "") -> None:
        command = [
            sys.executable,
            "-m",
            "tesela",
            "serve",
            str(digits_run()),
            "--port",
            "0",
            "--json",
            *words,
        ]
        environment = {**os.environ, **({"TESELA_FAILPOINT": failpoint} if failpoint else {})}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )
        assert self.process.stdout is not None
        self.address: str = json.loads(self.process.stdout.readline())["address"]

    def post(
        self, image: bytes, path: str = "/v1/classify?top=10", *, kind: str = "image/png"
    ) -> tuple[int, dict[str, str], dict[str, object]]:
        """Status, headers and body."""
        connection = http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=30)
        connection.request("POST", path, image, {"content-type": kind})
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body

    def end(self, number: int = signal.SIGTERM) -> int:
        """The exit code after a signal."""
        self.process.send_signal(number)
        code = self.process.wait(30)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code


@pytest.fixture
def running() -> Iterator[Running]:
    server = Running("--max-batch", "2", "--queue", "4")
    yield server
    if server.process.poll() is None:
        server.end(signal.SIGKILL)


def test_equals_the_predictor_over_a_real_socket(running: Running) -> None:
    """Reference: the predictor in this process, to 1e-4; then Ctrl-C ends with exit code 0."""
    wanted = Predictor(digits_run()).predict(IMAGES[:5], top=10)
    for image, prediction in zip(IMAGES[:5], wanted, strict=True):
        status, headers, body = running.post(image)
        assert status == 200
        assert "server" not in headers
        assert body["label"] == prediction.scores[0].label
        found = {one["label"]: one["probability"] for one in body["top"]}  # type: ignore[attr-defined]
        assert found == pytest.approx(
            {score.label: score.probability for score in prediction.scores}, abs=1e-4
        )
    assert running.end(signal.SIGINT) == 0


def test_a_request_is_answered_without_delay(running: Running) -> None:
    """On a kept connection the server adds a few milliseconds, not the 40 ms of Nagle's algorithm with
    delayed acknowledgements."""
    connection = http.client.HTTPConnection(running.address.removeprefix("http://"), timeout=30)
    times = []
    for _ in range(40):
        started = time.perf_counter()
        connection.request("POST", "/v1/classify", IMAGES[0], {"content-type": "image/png"})
        connection.getresponse().read()
        times.append(time.perf_counter() - started)
    connection.close()
    assert sorted(times)[len(times) // 4] < 0.035


def test_overload_is_refused_at_once(running: Running) -> None:
    """24 clients at a queue of 4 for a second: every answer is 200, or 503 with Retry-After.

    Afterwards all is as before.
    """
    seen: list[int] = []
    faults: list[str] = []
    end = time.monotonic() + 1.0

    def ask() -> None:
        while time.monotonic() < end:
            try:
                status, headers, body = running.post(IMAGES[len(seen) % 20])
            except (OSError, http.client.HTTPException) as error:
                faults.append(repr(error))
                continue
            seen.append(status)
            if status == 503 and (headers["retry-after"] != "1" or body["code"] != "overloaded"):
                faults.append(str((headers, body)))

    clients = [threading.Thread(target=ask) for _ in range(24)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(30)
    assert faults == []
    assert set(seen) == {200, 503}
    assert running.post(IMAGES[0])[0] == 200


def test_a_stop_under_load_loses_no_accepted_request() -> None:
    """Six requests are inside (the first batch is held for 1.5 s) when SIGTERM comes.

    All are answered, the exit code is 0.
    """
    server = Running("--max-batch", "2", "--queue", "8", failpoint="serve.batch=sleep:1.5")
    statuses: list[int] = []
    clients = [
        threading.Thread(target=lambda index=index: statuses.append(server.post(IMAGES[index])[0]))
        for index in range(6)
    ]
    for client in clients:
        client.start()
    time.sleep(0.8)
    assert statuses == []
    code = server.end()
    for client in clients:
        client.join(30)
    assert statuses == [200] * 6
    assert code == 0


def test_collections_of_garbage_pass_over_what_was_loaded_before() -> None:
    """While it listens nothing of it is walked through; afterwards all is as before."""
    code = (
        "import gc, os, signal\n"
        "from tesela.serve.server import bind, listen\n"
        "async def app(scope, receive, send):\n"
        "    assert scope['type'] != 'lifespan'\n"
        "def started(address):\n"
        "    print(gc.get_freeze_count() > 10_000)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "listen(app, bind('127.0.0.1', 0), on_start=started)\n"
        "print(gc.get_freeze_count())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["True", "0"]


def test_the_address_is_guarded(tmp_path: Path) -> None:
    """0.0.0.0 without a key: exit code 2 and two lines, before any model is loaded."""
    command = [
        sys.executable,
        "-m",
        "tesela",
        "serve",
        str(tmp_path / "absent"),
        "--host",
        "0.0.0.0",
        "--port",
        "0",
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "TESELA_API_KEY": ""},
    )
    assert done.returncode == 2
    assert (
        done.stderr.splitlines()[0]
        == "error: 0.0.0.0 can be reached from other machines and no API key is set"
    )
    assert len(done.stderr.splitlines()) == 2


def test_a_taken_port_is_a_usage_error() -> None:
    taken = bind("127.0.0.1", 0)
    taken.listen()
    try:
        with pytest.raises(UsageError, match="cannot listen on"):
            bind("127.0.0.1", taken.getsockname()[1])
        assert address_of(taken).startswith("http://127.0.0.1:")
    finally:
        taken.close()


def test_places_of_requests_that_never_came_inside_are_given_up(running: Running) -> None:
    """Forty that are refused for their type, one after another at once, leave room for those that follow."""
    for _ in range(40):
        assert running.post(IMAGES[0], kind="text/plain")[0] == 415
    assert running.post(IMAGES[0])[0] == 200
