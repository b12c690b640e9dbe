"""Keys, addresses, host names, headers, and the page's own promises."""

from __future__ import annotations

import re

import pytest
from tests.runtime.bundles import held_out
from tests.serve.clients import client

from tesela.core.errors import ConfigError, UsageError
from tesela.serve.config import ServeConfig
from tesela.serve.page import page_files
from tesela.serve.security import check_address, host_name, is_loopback

PNG = {"content-type": "image/png"}
KEY = "correct horse"


def test_keys_guard_the_api_and_the_counters_but_not_the_page() -> None:
    image = held_out(1)[0][0]
    with client(api_keys=(KEY, "another key")) as api:
        for headers in (
            {},
            {"authorization": "Bearer wrong key"},
            {"authorization": f"Basic {KEY}"},
            {"x-api-key": ""},
            {"x-api-key": KEY + "x"},
        ):
            answer = api.post("/v1/classify", content=image, headers={**PNG, **headers})
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
        for headers in (
            {"authorization": f"Bearer {KEY}"},
            {"authorization": "bearer another key"},
            {"x-api-key": KEY},
        ):
            assert api.post("/v1/classify", content=image, headers={**PNG, **headers}).status_code == 200
        for path in ("/v1/models", "/v1/models/graph", "/v1/models/graph/examples/0", "/metrics"):
            assert api.get(path).status_code == 401, path
        for path in ("/", "/static/app.js", "/openapi.json", "/healthz", "/readyz"):
            assert api.get(path).status_code == 200, path


def test_short_keys_are_refused() -> None:
    with pytest.raises(ConfigError, match="8 characters"):
        ServeConfig(api_keys=("short",))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    assert "127.0.0.1" in check_address(host, keys=())


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "192.168.1.5", "example.org", "", "localhost.example.org", "127.0.0.1.example.org"],
)
def test_other_addresses_need_a_key_or_the_flag(host: str) -> None:
    with pytest.raises(UsageError, match="no API key is set"):
        check_address(host, keys=())
    assert check_address(host, keys=(KEY,)) == check_address(host, keys=(), allow_anonymous=True) == ()


def test_a_health_check_on_the_machine_is_answered_beside_a_proxys_name() -> None:
    """On every address, as a container has it, the named hosts and the machine's own are taken."""
    hosts = check_address("0.0.0.0", keys=(KEY,), names=("models.example.org",))
    with client(onnx_only=True, hosts=hosts) as api:
        for good in ("models.example.org", "127.0.0.1:8000", "localhost:8000"):
            assert api.get("/readyz", headers={"host": good}).status_code == 200
        assert api.get("/readyz", headers={"host": "evil.example"}).status_code == 421


def test_foreign_host_names_are_refused_on_loopback() -> None:
    """A page of another site whose name was pointed to 127.0.0.1 (DNS rebinding) names its own host and
    gets nothing."""
    with client(hosts=check_address("127.0.0.1", keys=())) as api:
        for good in ("127.0.0.1:8000", "localhost", "LocalHost:80", "[::1]:8000"):
            assert api.get("/healthz", headers={"host": good}).status_code == 200
        for bad in ("evil.example", "127.0.0.1.evil.example:8000", "localhost@evil", ""):
            answer = api.get("/healthz", headers={"host": bad})
            assert (answer.status_code, answer.json()["code"]) == (421, "wrong_host")
    assert host_name("[::1]:80") == "::1"


def test_headers_are_on_every_answer() -> None:
    with client() as api:
        for path, status in (
            ("/", 200),
            ("/static/app.css", 200),
            ("/v1/models", 200),
            ("/nothing", 404),
            ("/v1/classify", 405),
        ):
            answer = api.get(path)
            assert answer.status_code == status
            policy = dict(
                part.strip().partition(" ")[::2]
                for part in answer.headers["content-security-policy"].split(";")
            )
            assert policy["default-src"] == "'none'"
            assert policy["frame-ancestors"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"


def test_the_page_keeps_to_its_policy() -> None:
    """No inline script, style or handler, and no other host; ``tests/web`` looks at the rest of the app."""
    files = {path: content.decode() for path, (_, content) in page_files().items()}
    page = files["/"]
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon[a-z]+=", page)
    for text in files.values():
        assert set(re.findall(r"https?://[^/\s\"'`]+", text)) <= {"http://www.w3.org"}
    parts = re.findall(r'(?:src|href)="\./(static/[^"]+)"', page)
    assert {"static/app.js", "static/app.css"} <= set(parts)
    assert all(f"/{part}" in files for part in parts)
