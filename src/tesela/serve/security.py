"""Who may ask, under which name, and what a browser may do with the answers.

API keys are kept as digests and compared in constant time. The headers forbid everything that the page does
not need: no inline script, no other host, no framing. Odd: the checks are one plain ASGI layer outside the
framework's routing, so they also cover what it answers by itself, and an unforeseen exception ends here as
``internal_error``.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tesela.core.errors import UsageError
from tesela.serve.errors import log, respond
from tesela.serve.rate import RateLimit

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
}
#: What asks for a key when keys are set; the page, the OpenAPI document and the health checks stay open.
PROTECTED = ("/v1/", "/metrics")


class KeyRing:
    """The accepted API keys, as SHA-256 digests.

    Args:
        keys: in the clear; only their digests are kept.
        digests: of others, hexadecimal.
    """

    def __init__(self, keys: Sequence[str], *, digests: Sequence[str] = ()) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._digests += [bytes.fromhex(digest) for digest in digests]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def accepted(self, headers: Headers) -> bytes | None:
        """The digest of the key in ``Authorization: Bearer`` or ``X-API-Key``; None if it is not accepted."""
        scheme, _, value = headers.get("authorization", "").partition(" ")
        offered = value.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        digest = hashlib.sha256(offered.encode("utf-8", "surrogateescape")).digest()
        # all are compared, whatever matches
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return digest if any(matches) else None


class SecurityLayer:
    """Checks host and key before the application, and sets the headers on every answer.

    Args:
        app: the application.
        keys: accepted keys; empty means that none is needed.
        hosts: accepted host names; empty means any.
        rate: of requests for each key or address.
        prefix: path under which a proxy publishes the server.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: KeyRing,
        hosts: Sequence[str] = (),
        rate: RateLimit | None = None,
        prefix: str = "",
    ) -> None:
        self._app = app
        self._rate, self._prefix = rate, prefix
        self._keys = keys
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                answer = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    answer[name] = value
                answer.setdefault("Cache-Control", "no-store")
            await send(message)

        path = scope["path"]
        if self._prefix and path.startswith(self._prefix + "/"):
            path = path.removeprefix(self._prefix)
            scope = {**scope, "path": path, "raw_path": path.encode("utf-8")}
        application: ASGIApp
        if self._prefix and path == self._prefix:
            application = RedirectResponse(self._prefix + "/")
        else:
            application = self._refusal(path, headers, scope) or self._app
        try:
            await application(scope, receive, send_with_headers)
        except Exception as error:  # the last resort: nothing of it reaches the client
            log.error("a request failed", exc_info=error)
            if not started:
                await respond("internal_error")(scope, receive, send_with_headers)

    def _refusal(self, path: str, headers: Headers, scope: Scope) -> ASGIApp | None:
        if self._hosts and host_name(headers.get("host", "")) not in self._hosts:
            return respond("wrong_host")
        if not path.startswith(PROTECTED):
            return None
        if "origin" in headers and not same_origin(headers["origin"], headers.get("host", "")):
            return respond("wrong_origin")
        client = (scope.get("client") or ("",))[0].encode()
        if self._keys:
            digest = self._keys.accepted(headers)
            if digest is None:
                return respond("unauthorized")
            client = digest
        if self._rate is not None and (wait := self._rate.take(client)):
            return respond("rate_limited", headers={"Retry-After": str(math.ceil(wait))})
        return None


def host_name(header: str) -> str:
    """The name in a Host header, without its port."""
    text = header.strip().lower()
    if text.startswith("["):
        return text.partition("]")[0].lstrip("[")
    return text.partition(":")[0]


def same_origin(origin: str, host: str) -> bool:
    """Whether a page's Origin is the host that its request names; a proxy may have left its port out."""
    try:
        page, asked = urlsplit(origin), urlsplit(f"//{host}")
        ports = page.port or {"http": 80, "https": 443}.get(page.scheme), asked.port
    except ValueError:
        return False
    return bool(page.hostname) and page.hostname == asked.hostname and ports[1] in (None, ports[0])


def read_digests(file: Path) -> tuple[str, ...]:
    """Digests of API keys, one a line, as ``sha256sum`` writes them; # begins a comment.

    Raises:
        UsageError: the file cannot be read, or holds something else.
    """
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(f"{file} cannot be read: {reason}", hint="check the path of --api-keys") from error
    found = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if words and not re.fullmatch(r"[0-9a-fA-F]{64}", words[0]):
            raise UsageError(
                f"line {number} of {file} does not begin with a SHA-256 digest",
                hint='add a key with: printf %s "$KEY" | sha256sum >> FILE',
            )
        found += words[:1]
    if not found:
        raise UsageError(f"{file} holds no key", hint='add one with: printf %s "$KEY" | sha256sum >> FILE')
    return tuple(found)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address.

    A name other than localhost counts as reachable from outside.
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_address(
    host: str, *, keys: Sequence[str], allow_anonymous: bool = False, names: Sequence[str] = ()
) -> tuple[str, ...]:
    """Refuse an address that others reach unless a key guards it; return the host names to accept.

    Args:
        host: the address.
        keys: that guard it.
        allow_anonymous: let everybody in without one.
        names: further ones to accept. Where there are any, the machine's own are too, so that a health check
            on it is answered; on an address that others reach any name is accepted where there are none.

    Raises:
        UsageError: the address is not loopback, and there is neither a key nor the explicit flag.
    """
    own = ("localhost", "127.0.0.1", "::1", host.strip("[]").lower())
    if is_loopback(host):
        return (*own, *names)
    if not keys and not allow_anonymous:
        raise UsageError(
            f"{host} can be reached from other machines and no API key is set",
            hint="set TESELA_API_KEY or give --api-key; or listen on 127.0.0.1",
        )
    return (*own, *names) if names else ()
