"""A server alone with its models: no file, host or log has anything to do with what a client sends."""

from __future__ import annotations

import hmac
import io
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from starlette.datastructures import Headers
from tests.runtime.bundles import digits
from tests.serve.clients import client

from tesela.runtime.predictor import Predictor
from tesela.serve.security import KeyRing

#: In everything that a client says here.
MARK = "zq7-client-9xk"
#: Events of the interpreter that mean a file, a host, a process or a module.
TOUCHING = (
    "open",
    "os.",
    "shutil.",
    "socket.connect",
    "socket.getaddrinfo",
    "subprocess.",
    "urllib.",
    "import",
)


class Witness:
    """Events of the interpreter while it looks on; a hook cannot be taken away again."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[tuple[str, str]] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, values: tuple[Any, ...]) -> None:
        if self.on and event.startswith(TOUCHING):
            self.seen.append((event, repr(values)))


@pytest.fixture(scope="module")
def witness() -> Witness:
    return Witness()


def with_exif() -> bytes:
    """A digit whose EXIF has a position and a description."""
    exif = Image.Exif()
    exif[0x010E] = MARK
    exif.get_ifd(0x8825)[29] = MARK
    stream = io.BytesIO()
    Image.fromarray(digits()[0][1500, :, :, 0]).save(stream, "JPEG", exif=exif)
    assert stream.getvalue().count(MARK.encode()) == 2
    return stream.getvalue()


def asked(image: bytes) -> Iterator[dict[str, Any]]:
    """Requests that name files, hosts and models in every place that a client has."""
    for words in (f"../../{MARK}", f"/{MARK}/bundle", f"file:///{MARK}", f"http://{MARK}.example/a.png"):
        yield {"url": "/v1/classify", "params": {"model": words}, "content": image}
        yield {"url": "/v1/explain", "params": {"target": words}, "content": image}
        yield {"url": "/v1/classify", "files": {"file": (words, image, words)}}
        yield {"url": "/v1/classify", "files": [("image", (words, image)), ("image", (words, b"no image"))]}
        yield {"url": "/v1/classify", "content": words.encode(), "headers": {"content-type": "text/uri-list"}}
        yield {"url": "/v1/classify", "json": {"url": words, "model": words, "path": words}}
        yield {
            "url": "/v1/classify",
            "content": image,
            "headers": {"referer": words, "x-forwarded-for": words},
        }
        yield {"url": f"/v1/models/{words}", "content": b""}
        yield {"url": f"/static/{words}", "content": b""}


def test_nothing_that_a_client_says_reaches_a_file_a_host_or_a_module(witness: Witness) -> None:
    """The interpreter tells of every file, socket, process and import: none has to do with a request."""
    image = with_exif()
    with client() as api:
        api.post("/v1/classify", content=image)
        api.post("/v1/explain", content=image)
        witness.on = True
        try:
            answers = [api.request("POST", **words) for words in asked(image)]
            open_before = [api.get(f"/v1/models/../../{MARK}"), api.get(f"/static/%2e%2e/{MARK}")]
        finally:
            witness.on = False
    assert {answer.status_code for answer in answers} <= {200, 400, 404, 405, 415, 422}
    assert {answer.status_code for answer in open_before} == {404}
    assert [one for one in witness.seen if MARK in one[1]] == []
    assert [one for one in witness.seen if one[0].startswith(("socket.", "subprocess.", "urllib."))] == []
    assert sum(answer.status_code == 200 for answer in answers) >= 8  # a file's name harms nothing


def test_what_an_image_says_of_its_maker_is_neither_answered_nor_logged(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither where all is well, nor where the image is refused, nor where the server fails on it."""
    image, answers = with_exif(), []

    def outputs(self: Predictor, images: Any) -> Any:
        raise RuntimeError("the network failed")

    with client() as api:
        for path in ("/v1/classify", "/v1/explain", "/v1/heads"):
            answers.append(api.post(path, content=image))
            answers.append(api.post(path, content=image[:-40]))
        monkeypatch.setattr(Predictor, "outputs", outputs)
        answers.append(api.post("/v1/classify", content=image))
        answers.append(api.get("/metrics"))
    assert {answer.status_code for answer in answers} >= {200, 422, 500}
    assert not any(MARK.encode() in answer.content for answer in answers)
    assert not any(MARK in value for answer in answers for value in answer.headers.values())
    said = capfd.readouterr()
    assert "the network failed" in caplog.text
    assert MARK not in said.out + said.err + caplog.text


def test_every_key_is_compared_whichever_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often for the first key as for the last and for none, each time by the library's own comparison."""
    keys = [f"correct horse {number}" for number in range(5)]
    ring, compare, counted = KeyRing(keys), hmac.compare_digest, threading.local()

    def counting(one: bytes, other: bytes) -> bool:
        counted.times += 1
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    for offered, good in ((keys[0], True), (keys[-1], True), ("wrong", False), ("", False)):
        counted.times = 0
        assert (ring.accepted(Headers({"x-api-key": offered})) is not None) is good
        assert counted.times == len(keys)
    kept = repr([getattr(ring, name) for name in vars(ring)])
    assert not any(key in kept for key in keys)
