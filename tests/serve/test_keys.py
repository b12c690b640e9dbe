"""Files of keys, rates, origins and prefixes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from tests.runtime.bundles import held_out
from tests.serve.clients import client

from tesela.core.errors import ConfigError, UsageError
from tesela.serve.config import ServeConfig
from tesela.serve.rate import RateLimit
from tesela.serve.security import read_digests, same_origin

KEY = "correct horse"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()
IMAGE = held_out(1)[0][0]


def test_keys_come_from_a_file_of_digests(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# keys\n\n{DIGEST}  -\n{'ab' * 32} # another\n")
    digests = read_digests(file)
    assert digests == (DIGEST, "ab" * 32)
    with client(onnx_only=True, key_digests=digests) as api:
        assert api.get("/v1/models").status_code == 401
        assert api.get("/v1/models", headers={"x-api-key": DIGEST}).status_code == 401
        assert api.get("/v1/models", headers={"x-api-key": KEY}).status_code == 200


@pytest.mark.parametrize("text", ["", "# nothing\n", KEY, DIGEST[:-1], "\xff"])
def test_a_file_without_digests_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError) as caught:
        read_digests(file)
    assert KEY not in str(caught.value)
    with pytest.raises(UsageError, match="cannot be read"):
        read_digests(tmp_path / "none")


def test_buckets_fill_at_the_rate() -> None:
    now = [0.0]
    limit = RateLimit(2.0, clock=lambda: now[0])
    assert [limit.take(b"a") for _ in range(3)] == [0.0, 0.0, 0.5]
    assert limit.take(b"b") == 0.0
    now[0] = 0.5
    assert limit.take(b"a") == 0.0
    assert limit.take(b"a") == pytest.approx(0.5)
    now[0] = 100.0
    assert [limit.take(b"a") > 0 for _ in range(3)] == [False, False, True]


def test_each_key_has_its_own_rate() -> None:
    with client(onnx_only=True, api_keys=(KEY, "another key"), rate=0.01) as api:
        first = [api.get("/v1/models", headers={"x-api-key": KEY}) for _ in range(2)]
        assert [answer.status_code for answer in first] == [200, 429]
        assert first[1].json()["code"] == "rate_limited"
        assert 1 <= int(first[1].headers["retry-after"]) <= 100
        assert api.get("/v1/models", headers={"x-api-key": "another key"}).status_code == 200
        assert api.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("https://models.example", "models.example", True),
        ("https://models.example", "models.example:443", True),
        ("https://models.example:8443", "models.example", True),
        ("http://127.0.0.1:3000", "127.0.0.1:8000", False),
        ("http://evil.example", "127.0.0.1:8000", False),
        ("http://127.0.0.1.evil.example", "127.0.0.1", False),
        ("null", "127.0.0.1:8000", False),
        ("", "", False),
        ("http://[", "127.0.0.1", False),
    ],
)
def test_origins(origin: str, host: str, same: bool) -> None:
    assert same_origin(origin, host) is same


def test_pages_of_other_sites_are_refused() -> None:
    with client(onnx_only=True) as api:
        for origin, status in (("http://evil.example", 403), ("null", 403), ("http://testserver", 200)):
            answer = api.post("/v1/classify", content=IMAGE, headers={"origin": origin})
            assert answer.status_code == status
            assert "access-control-allow-origin" not in answer.headers
        refused = api.post("/v1/classify", content=IMAGE, headers={"origin": "http://evil.example"})
        assert refused.json()["code"] == "wrong_origin"


def test_a_prefix_is_the_same_server_and_keeps_its_guard() -> None:
    with client(onnx_only=True, prefix="/ml/tesela", api_keys=(KEY,)) as api:
        for path in ("/v1/models", "/ml/tesela/v1/models"):
            assert api.get(path).status_code == 401
            assert api.get(path, headers={"x-api-key": KEY}).status_code == 200
        assert api.get("/ml/tesela/healthz").json() == {"status": "ok"}
        assert api.get("/ml/tesela/").content == api.get("/").content
        moved = api.get("/ml/tesela", follow_redirects=False)
        assert (moved.status_code, moved.headers["location"]) == (307, "/ml/tesela/")
        assert api.get("/ml/teselav1/models", headers={"x-api-key": KEY}).status_code == 404
        document = api.get("/openapi.json", headers={"x-api-key": KEY}).json()
        assert document["servers"] == [{"url": "/ml/tesela"}]


@pytest.mark.parametrize(
    "limits", [{"prefix": "tesela"}, {"prefix": "/a/"}, {"rate": -1}, {"head_seconds": 0}]
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        ServeConfig(**limits)  # type: ignore[arg-type]
