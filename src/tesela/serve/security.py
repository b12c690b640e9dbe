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
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tesela.core.errors import UsageError
from tesela.serve.errors import log, respond

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
#: What asks for a key when keys are set; the page itself and the health checks stay open.
PROTECTED = ("/v1/", "/metrics", "/openapi.json")


class KeyRing:
    """The accepted API keys, as SHA-256 digests."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def accepts(self, headers: Headers) -> bool:
        """Whether the request carries an accepted key, in ``Authorization: Bearer`` or ``X-API-Key``."""
        scheme, _, value = headers.get("authorization", "").partition(" ")
        offered = value.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        digest = hashlib.sha256(offered.encode("utf-8", "surrogateescape")).digest()
        # all are compared, whatever matches
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches)


class SecurityLayer:
    """Checks host and key before the application, and sets the headers on every answer.

    Args:
        app: the application.
        keys: accepted keys; empty means that none is needed.
        hosts: accepted host names; empty means any.
    """

    def __init__(self, app: ASGIApp, *, keys: KeyRing, hosts: Sequence[str] = ()) -> None:
        self._app = app
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

        refused = self._refusal(scope["path"], headers)
        application = respond(refused) if refused else self._app
        try:
            await application(scope, receive, send_with_headers)
        except Exception as error:  # the last resort: nothing of it reaches the client
            log.error("a request failed", exc_info=error)
            if not started:
                await respond("internal_error")(scope, receive, send_with_headers)

    def _refusal(self, path: str, headers: Headers) -> str | None:
        if self._hosts and host_name(headers.get("host", "")) not in self._hosts:
            return "wrong_host"
        if self._keys and path.startswith(PROTECTED) and not self._keys.accepts(headers):
            return "unauthorized"
        return None


def host_name(header: str) -> str:
    """The name in a Host header, without its port."""
    text = header.strip().lower()
    if text.startswith("["):
        return text.partition("]")[0].lstrip("[")
    return text.partition(":")[0]


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


def check_address(host: str, *, keys: Sequence[str], allow_anonymous: bool = False) -> tuple[str, ...]:
    """Refuse an address that others reach unless a key guards it; return the host names to accept.

    Raises:
        UsageError: the address is not loopback, and there is neither a key nor the explicit flag.
    """
    if is_loopback(host):
        return ("localhost", "127.0.0.1", "::1", host.strip("[]").lower())
    if not keys and not allow_anonymous:
        raise UsageError(
            f"{host} can be reached from other machines and no API key is set",
            hint="set TESELA_API_KEY or give --api-key; or listen on 127.0.0.1",
        )
    return ()
