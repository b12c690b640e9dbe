"""Refusal of requests by their first line, where no model that could answer has room."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tesela.serve.engine.gate import Gate
from tesela.serve.errors import RefusedError, respond
from tesela.serve.metrics import ServerMetrics
from tesela.serve.security import HEADERS


class OverloadAdmission:
    """From a request's target to the whole answer that refuses it.

    A request that names its model waits for the application where another one has room.

    Args:
        gates: path -> gates of the models that answer there.
        metrics: where refusals are counted.
        prefix: path under which a proxy publishes the server.
    """

    def __init__(
        self, gates: Mapping[str, Sequence[Gate]], *, metrics: ServerMetrics, prefix: str = ""
    ) -> None:
        self._answers: dict[str, bytes] = {}
        self._routes = {}
        for path, found in gates.items():
            counts = metrics.requests.labels(path, "POST", "503"), metrics.seconds.labels(path)
            for start in {"", prefix}:
                self._routes[f"{start}{path}".encode()] = (tuple(found), counts)

    def __call__(self, target: bytes) -> bytes | Callable[[], None] | None:
        """The refusal of a POST to that target, from its first header on.

        Where there is room: what gives it up, to be called when the request has ended. None for any other
        target.
        """
        path, _, query = target.partition(b"?")
        route = self._routes.get(path)
        if route is None:
            return None
        gates, (requests, seconds) = route
        asked = gates if b"model=" in query else gates[:1]
        waits = [gate.excess for gate in asked]
        if None in waits:
            return asked[waits.index(None)].expect()
        if not waits:
            return None
        requests.inc()
        seconds.observe(0.0)
        error = RefusedError("overloaded", wait=min(wait for wait in waits if wait is not None))
        return self._answer(error)

    def _answer(self, error: RefusedError) -> bytes:
        after = error.headers.get("Retry-After", "")
        if after not in self._answers:
            response = respond(error.code, headers={**error.headers, **HEADERS, "Cache-Control": "no-store"})
            head = b"".join(name + b": " + value + b"\r\n" for name, value in response.raw_headers)
            self._answers[after] = head + b"\r\n" + bytes(response.body)
        return self._answers[after]
