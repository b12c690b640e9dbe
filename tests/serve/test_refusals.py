"""What a client can do wrong.

Each ends in a code of the closed list, and no answer tells of the server's inside.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from tests.runtime.bundles import digits_run, held_out, png
from tests.serve.clients import client

from tesela.imaging.decode import CODES
from tesela.imaging.preprocess import WRONG_SIZE
from tesela.runtime.predictor import Predictor
from tesela.serve.errors import REFUSALS

PNG = {"content-type": "image/png"}
GOOD = held_out(1)[0][0]


@pytest.fixture(scope="module")
def api() -> Iterator[TestClient]:
    with client(max_bytes=100_000, max_pixels=10_000) as found:
        yield found


def check(answer: Any, code: str) -> None:
    """The status and body that belong to a code, with the headers that every answer has and nothing of the
    inside."""
    row = REFUSALS[code]
    assert answer.json() == {
        "type": "about:blank",
        "title": row.message,
        "status": row.status,
        "detail": row.hint,
        "code": code,
        "message": row.message,
        "hint": row.hint,
    }
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.status_code == REFUSALS[code].status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers
    assert not re.search(
        r"Traceback|File \"|/usr|/home|/work|/tmp|python|starlette|\d+\.\d+\.\d+", answer.text
    )


def test_every_image_code_is_on_the_list() -> None:
    assert {*CODES, WRONG_SIZE} <= set(REFUSALS)
    assert {refusal.status for code, refusal in REFUSALS.items() if code in CODES} <= {413, 415, 422}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty"),
        (b"<html><script>alert(1)</script></html>", "not_an_image"),
        (GOOD[:70], "truncated"),
        (b"GIF89a" + bytes(100), "format_not_allowed"),
        (png(np.zeros((101, 100, 3), np.uint8)), "too_many_pixels"),
        (bytes(100_001), "body_too_large"),
    ],
)
def test_bad_images(api: TestClient, content: bytes, code: str) -> None:
    for path in ("/v1/classify", "/v1/explain"):
        check(api.post(path, content=content, headers=PNG), code)
        if content:
            check(api.post(path, files={"file": ("x.png", content)}), code)


def test_a_body_without_announced_length_is_counted_while_it_arrives(api: TestClient) -> None:
    """A stream that would be 100 MB is refused after 100 kB: the generator is not drawn any further."""
    drawn = 0

    def stream() -> Iterator[bytes]:
        nonlocal drawn
        for _ in range(1000):
            drawn += 1
            yield bytes(100_000)

    check(api.post("/v1/classify", content=stream(), headers=PNG), "body_too_large")


@pytest.mark.parametrize(
    ("path", "options", "code"),
    [
        (
            "/v1/classify",
            {"content": gzip.compress(GOOD), "headers": {**PNG, "content-encoding": "gzip"}},
            "content_encoding",
        ),
        ("/v1/classify", {"content": GOOD, "headers": {"content-type": "text/html"}}, "content_type"),
        ("/v1/classify", {"content": GOOD, "headers": {"content-type": "text/plain"}}, "content_type"),
        ("/v1/classify", {"content": GOOD, "headers": {"content-type": "application/json"}}, "content_type"),
        ("/v1/classify", {"json": {"url": "http://example.org/x.png"}}, "content_type"),
        (
            "/v1/classify",
            {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
            "bad_multipart",
        ),
        (
            "/v1/classify",
            {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=a"}},
            "bad_multipart",
        ),
        ("/v1/classify", {"files": {"file": ("a", GOOD), "other": ("b", GOOD)}}, "bad_multipart"),
        (
            "/v1/classify",
            {"files": {"file": ("a", GOOD)}, "data": {str(index): "x" for index in range(9)}},
            "bad_multipart",
        ),
        ("/v1/classify", {"files": {"file": (None, "text")}}, "missing_file"),
        ("/v1/classify?top=0", {"content": GOOD, "headers": PNG}, "bad_parameter"),
        ("/v1/classify?top=many", {"content": GOOD, "headers": PNG}, "bad_parameter"),
        ("/v1/classify?model=../../etc/passwd", {"content": GOOD, "headers": PNG}, "unknown_model"),
        ("/v1/explain?target=cat", {"content": GOOD, "headers": PNG}, "unknown_class"),
        ("/v1/explain?target=10", {"content": GOOD, "headers": PNG}, "unknown_class"),
        ("/v1/explain?method=magic", {"content": GOOD, "headers": PNG}, "bad_parameter"),
        ("/v1/none", {"content": GOOD, "headers": PNG}, "not_found"),
        ("/static/../app.py", {"content": GOOD, "headers": PNG}, "not_found"),
        ("/healthz", {"content": GOOD, "headers": PNG}, "method_not_allowed"),
    ],
)
def test_bad_requests(api: TestClient, path: str, options: dict[str, Any], code: str) -> None:
    check(api.post(path, **options), code)


def test_an_unforeseen_failure_is_a_plain_500(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network itself fails: no word of the exception comes out, and the next request is served."""

    class BrokenError(Exception):
        pass

    good = Predictor.outputs

    def outputs(self: Predictor, images: Any) -> Any:
        raise BrokenError(f"secret of {digits_run()}")

    with client() as api:
        monkeypatch.setattr(Predictor, "outputs", outputs)
        check(api.post("/v1/classify", content=GOOD, headers=PNG), "internal_error")
        monkeypatch.setattr(Predictor, "outputs", good)
        assert api.post("/v1/classify", content=GOOD, headers=PNG).status_code == 200


def test_malformed_images_never_make_a_5xx() -> None:
    """500 mutations of a PNG and a JPEG (bytes flipped, cut, doubled): 200 or a 4xx of the closed list."""
    random = np.random.default_rng(0)
    with client() as api:
        for index in range(500):
            data = bytearray(GOOD if index % 2 else jpeg())
            for place in random.integers(0, len(data), random.integers(1, 6)):
                data[place] = random.integers(256)
            if index % 5 == 0:
                del data[random.integers(len(data)) :]
            answer = api.post("/v1/classify", content=bytes(data), headers=PNG)
            assert answer.status_code == 200 or answer.json()["code"] in CODES, answer.text


def jpeg() -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 24, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()
