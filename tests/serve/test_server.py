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

from tesela.runtime.predictor import Predictor
from tesela.serve.server import address_of, bind

ROOT = Path(__file__).resolve().parents[2]
IMAGES = held_out(20)[0]


class Running:
    """``tesela serve`` in a process of its own."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "tesela", "serve", str(digits_run()), "--port", "0", "--json", *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=dict(os.environ))
        assert self.process.stdout is not None
        self.address: str = json.loads(self.process.stdout.readline())["address"]

    def post(self, image: bytes, path: str = "/v1/classify?top=10") -> tuple[int, dict[str, str], dict[str, object]]:
        """Status, headers and body."""
        connection = http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=30)
        connection.request("POST", path, image, {"content-type": "image/png"})
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
    wanted = Predictor(digits_run()).classify(IMAGES[:5], top=10)
    for image, prediction in zip(IMAGES[:5], wanted, strict=True):
        status, headers, body = running.post(image)
        assert status == 200
        assert "server" not in headers
        assert body["label"] == prediction.scores[0].label
        found = {one["label"]: one["probability"] for one in body["top"]}  # type: ignore[attr-defined]
        assert found == pytest.approx({score.label: score.probability for score in prediction.scores}, abs=1e-4)
    assert running.end(signal.SIGINT) == 0


def test_overload_is_refused_at_once_and_a_stop_loses_nothing(running: Running) -> None:
    """24 clients at a queue of 4: answers are 200 or 503 with Retry-After. SIGTERM meanwhile: whoever was connected gets an answer, exit code 0."""
    seen: list[int] = []
    lost: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                status, headers, _ = running.post(IMAGES[len(seen) % 20])
            except ConnectionRefusedError:
                return  # the server no longer listens: this request was never accepted
            except (OSError, http.client.HTTPException) as error:
                lost.append(repr(error))
                return
            seen.append(status)
            if status == 503 and not headers["retry-after"].isdigit():
                lost.append("no Retry-After")

    clients = [threading.Thread(target=ask) for _ in range(24)]
    for client in clients:
        client.start()
    time.sleep(1.5)
    code = running.end()
    stop.set()
    for client in clients:
        client.join(30)
    assert code == 0
    assert set(seen) <= {200, 503}
    assert seen.count(200) > 10
    refused = [text for text in lost if "ConnectionReset" not in text and "RemoteDisconnected" not in text]
    assert refused == []
    assert len(lost) <= 24  # connections that the system had queued but the server never took


def test_the_address_is_guarded(tmp_path: Path) -> None:
    """0.0.0.0 without a key: exit code 2 and two lines, before any model is loaded."""
    command = [sys.executable, "-m", "tesela", "serve", str(tmp_path / "absent"), "--host", "0.0.0.0", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "TESELA_API_KEY": ""})
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "error: 0.0.0.0 can be reached from other machines and no API key is set"
    assert len(done.stderr.splitlines()) == 2


def test_a_taken_port_is_a_usage_error() -> None:
    from tesela.core.errors import UsageError

    taken = bind("127.0.0.1", 0)
    taken.listen()
    try:
        with pytest.raises(UsageError, match="cannot listen on"):
            bind("127.0.0.1", taken.getsockname()[1])
        assert address_of(taken).startswith("http://127.0.0.1:")
    finally:
        taken.close()
