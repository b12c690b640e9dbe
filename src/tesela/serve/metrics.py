"""Prometheus metrics in a registry per application.

Labels come from closed sets, never from clients.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
HTTP_METHODS = frozenset({"GET", "HEAD", "POST"})


class ServerMetrics:
    """What the server counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "tesela_requests", "Answers", ["route", "method", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "tesela_request_seconds",
            "Seconds per request",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "tesela_batch_images",
            "Images per computed batch",
            ["model"],
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self.inside = Gauge("tesela_requests_inside", "Requests being worked on", registry=self.registry)
        self.waiting = Gauge(
            "tesela_images_waiting", "Images that no batch has taken yet", ["model"], registry=self.registry
        )

    def text(self) -> bytes:
        """The exposition in text form."""
        text: bytes = generate_latest(self.registry)
        return text


class MetricsLayer:
    """Counts and times every request; a route that does not exist is counted as ``other``.

    Args:
        app: the application.
        metrics: where to count.
        clock: seconds, for tests.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: ServerMetrics, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._app, self._metrics, self._clock = app, metrics, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and count its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = "none"
        started = self._clock()

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        with self._metrics.inside.track_inprogress():
            try:
                await self._app(scope, receive, watch)
            finally:
                route = getattr(scope.get("route"), "path", "other")
                method = scope["method"] if scope["method"] in HTTP_METHODS else "other"
                self._metrics.requests.labels(route, method, status).inc()
                self._metrics.seconds.labels(route).observe(self._clock() - started)
