"""Application in front of replicas: passes requests on, and again where a replica died.

Keys, rate, sockets, bodies, metrics and the page are those of the application on one machine. A request that
was let in is sent to another replica where the one that had it died, or has no room. Nothing but its time is
lost, for an answer depends on the request alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response

from tesela.serve.app import enclosed_app
from tesela.serve.cluster.exchange import WholeAnswer, WholeRequest
from tesela.serve.config import ServeConfig
from tesela.serve.engine.admission import OverloadAdmission
from tesela.serve.engine.gate import Gate
from tesela.serve.engine.presence import for_client
from tesela.serve.errors import RefusedError, log
from tesela.serve.limits import checked_body
from tesela.serve.metrics import ServerMetrics
from tesela.serve.page import document_route
from tesela.serve.routes import EXPLAINING

#: Replicas that a request is given to at most, should each of them die of it.
TRIES = 5
#: Seconds after the loss of a replica in which nothing that was let in is refused for its deadline: others
#: may have to start, with all of PyTorch.
RECOVERY = 120.0
#: Seconds until a request is sent again, at first and at most.
SOON, LATER = 0.05, 1.0
#: Refusals of a replica that another one, or the same a little later, would not give.
PASSING = frozenset({"overloaded", "stopping"})
#: Headers that the application reads.
READ = ("content-type", "content-encoding")


class ReplicaLostError(Exception):
    """The replica that had a request ended before it answered."""


#: Gives a request to a replica and waits for its answer; raises ReplicaLostError.
Replicas = Callable[[WholeRequest], Awaitable[WholeAnswer]]


class Forwarder:
    """Has requests answered, whatever becomes of single replicas.

    Args:
        replicas: who answers.
        seconds: that a replica has for an answer; they begin anew where one was lost.
        recovery: seconds after the loss of any replica in which no request is given up.
    """

    def __init__(self, replicas: Replicas, *, seconds: float, recovery: float = RECOVERY) -> None:
        self._replicas, self._seconds, self._recovery = replicas, seconds, recovery
        self._lost_at = float("-inf")

    async def __call__(self, request: WholeRequest) -> WholeAnswer:
        """The answer.

        Raises:
            RefusedError: there was none in time, or every replica that had the request ended.
        """
        lost = 0
        while True:
            try:
                async with asyncio.timeout(self._seconds):
                    return await self._with_room(request)
            except ReplicaLostError as error:
                log.warning("a replica ended before it answered a request: %s", error)
                self._lost_at = time.monotonic()
                lost += 1
                if lost == TRIES:
                    raise RefusedError("internal_error") from None
                await asyncio.sleep(pause(lost - 1))
            except TimeoutError:
                if time.monotonic() - self._lost_at >= self._recovery:
                    raise RefusedError("deadline") from None

    async def _with_room(self, request: WholeRequest) -> WholeAnswer:
        """The answer of the first replica that has room."""
        refused = 0
        while True:
            answer = await self._replicas(request)
            if answer.code not in PASSING:
                return answer
            await asyncio.sleep(pause(refused))
            refused += 1


class _RemoteRefusalError(Exception):
    """Carries a refusal past the gate, which learns from answers alone."""

    def __init__(self, answer: WholeAnswer) -> None:
        super().__init__(answer.code)
        self.answer = answer


def create_front(
    replicas: Replicas, document: Mapping[str, Any], *, config: ServeConfig, most: int
) -> FastAPI:
    """The application that passes requests on.

    Args:
        replicas: who answers.
        document: the OpenAPI document of a replica, which lists the addresses.
        config: the limits; those of the queues count for each replica.
        most: replicas that there may be.
    """
    metrics, ready = ServerMetrics(), {"ready": False}

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        ready["ready"] = True
        yield
        ready["ready"] = False

    forwarder = Forwarder(replicas, seconds=config.deadline)
    explaining = Gate(config.explain_queue * most, seconds=config.deadline)
    gates: dict[str, list[Gate]] = {}
    router = APIRouter()
    for path, methods in document["paths"].items():
        if not path.startswith("/v1/"):
            continue
        gate = None
        if "post" in methods:
            shared = path.removeprefix("/v1/") in EXPLAINING
            gate = explaining if shared else Gate(config.queue * most, seconds=config.deadline)
            gates[path] = [gate]
        router.add_api_route(
            path,
            forwarding(forwarder, config, gate),
            methods=[method.upper() for method in methods],
            include_in_schema=False,
            response_class=Response,
        )
    app = enclosed_app(router, config, metrics=metrics, ready=ready, lifespan=lifespan)
    app.include_router(document_route(document))
    app.state.admission = OverloadAdmission(gates, metrics=metrics, prefix=config.prefix)
    return app


def forwarding(
    forwarder: Forwarder, config: ServeConfig, gate: Gate | None
) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that passes its requests on.

    Args:
        forwarder: has them answered.
        config: the limits of bodies.
        gate: counts what is inside; None for requests without a body.
    """

    async def forward(request: Request) -> Response:
        if gate is None:
            return response_of(await passed_on(request, b""))
        gate.check()
        body = await checked_body(request, config)
        try:
            with gate.enter():
                answer = await passed_on(request, body)
                if answer.status >= 400:
                    raise _RemoteRefusalError(answer)
        except _RemoteRefusalError as refusal:
            answer = refusal.answer
        return response_of(answer)

    async def passed_on(request: Request, body: bytes) -> WholeAnswer:
        headers = tuple(
            (name.encode("latin-1"), request.headers[name].encode("latin-1"))
            for name in READ
            if name in request.headers
        )
        whole = WholeRequest(
            request.method, request.scope["path"], request.scope["query_string"], headers, body
        )
        return await for_client(request, lambda: forwarder(whole), seconds=TRIES * config.deadline + RECOVERY)

    return forward


def response_of(answer: WholeAnswer) -> Response:
    """An answer as the framework's response."""
    response = Response(answer.body, answer.status)
    response.raw_headers = list(answer.headers)
    return response


def pause(times: int) -> float:
    """Seconds until a request is sent again that was sent back so many times before."""
    return min(SOON * 2.0**times, LATER)
