"""Ray Serve as the engine of a server: replicas of the application, as many as needed.

Ray Serve starts them, watches over them, scales them and chooses who gets a request; its own HTTP servers
stay off, for the front listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tesela.core.errors import TeselaError, UsageError
from tesela.runtime.backends.base import Precision
from tesela.runtime.predictor import Predictor
from tesela.runtime.scoring.cluster import connected_ray
from tesela.serve.app import create_app
from tesela.serve.cluster.exchange import WholeAnswer, WholeRequest, exchange
from tesela.serve.cluster.front import ReplicaLostError
from tesela.serve.config import ServeConfig

#: Seconds that the first replicas have to start.
START_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class ModelPlace:
    """A model as each replica opens it.

    Attributes:
        run: a run or bundle, under a path that all machines see.
        backend: what computes.
        precision: of the network.
    """

    run: str
    backend: str
    precision: Precision


class ModelReplica:
    """The application in a process of the cluster.

    Args:
        models: name -> model; the first one answers where a request names none.
        config: the limits; keys, hosts and rate are the front's.
    """

    def __init__(self, models: Mapping[str, ModelPlace], config: ServeConfig) -> None:
        self._app = create_app(
            {
                name: Predictor(one.run, backend=one.backend, precision=one.precision, threads=1)
                for name, one in models.items()
            },
            config=replace(config, api_keys=(), key_digests=(), hosts=(), rate=0.0),
        )
        self._stack = contextlib.AsyncExitStack()
        self._starting = asyncio.Lock()
        self._started = False

    async def __call__(self, request: WholeRequest) -> WholeAnswer:
        """The answer to a request."""
        await self.check_health()
        return await exchange(self._app, request)

    async def check_health(self) -> None:
        """Start the decoders where that was not done yet; Ray Serve asks before it sends a request."""
        async with self._starting:
            if not self._started:
                await self._stack.enter_async_context(self._app.router.lifespan_context(self._app))
                self._started = True

    async def stop(self) -> None:
        """Finish what was accepted and end the decoders."""
        await self._stack.aclose()


class RayReplicas:
    """Replicas that Ray Serve runs.

    Args:
        predictors: the models, opened here: they say what computes.
        runs: where they are, in the same order.
        config: the limits of each replica.
        reach: replicas at least and at most, as of ``replica_reach``; each takes a processor.

    Attributes:
        most: replicas that there may be.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: the cluster has too few processors.
        TeselaError: they could not be started.
    """

    def __init__(
        self,
        predictors: Mapping[str, Predictor],
        runs: tuple[str, ...],
        *,
        config: ServeConfig,
        reach: tuple[int, int | None],
    ) -> None:
        self._ray = ray = connected_ray("ray.serve")
        least, cpus = reach[0], int(ray.cluster_resources().get("CPU", 1))
        if least > cpus:
            raise UsageError(
                f"{least} replicas need {least} processors, and the cluster has {cpus}",
                hint=f"add machines to the cluster, or give --replicas {max(1, cpus)}",
            )
        self.most = reach[1] or max(least, cpus)
        self._name = f"tesela-{uuid.uuid4().hex[:8]}"  # others on the same cluster keep theirs
        models = {
            name: ModelPlace(absolute_run(run), predictor.backend.name, predictor.backend.precision)
            for (name, predictor), run in zip(predictors.items(), runs, strict=True)
        }
        logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
        quiet = {"log_level": "ERROR", "enable_access_log": False}
        ray.serve.start(proxy_location="Disabled", logging_config=quiet)
        deployment = ray.serve.deployment(
            ModelReplica,
            name="models",
            ray_actor_options={"num_cpus": 1},
            max_ongoing_requests=config.queue + config.explain_queue,
            graceful_shutdown_timeout_s=config.drain_seconds,
            autoscaling_config={
                "min_replicas": least,
                "max_replicas": self.most,
                "target_ongoing_requests": min(config.max_batch, config.queue),
            },
        )
        target = ray.serve.RunTarget(
            deployment.bind(models, config), name=self._name, route_prefix=None, logging_config=quiet
        )
        try:
            self._handle = ray.serve.run_many([target], wait_for_applications_running=False)[0]
            self._wait_for_start()
        except BaseException:
            self.close()
            raise

    def _wait_for_start(self) -> None:
        until = time.monotonic() + START_SECONDS
        while (state := self._ray.serve.status().applications[self._name]).status != "RUNNING":
            if state.status == "DEPLOY_FAILED" or time.monotonic() > until:
                told = [state.message, *(one.message for one in state.deployments.values())]
                lines = [line.strip() for text in told for line in text.splitlines() if line.strip()]
                raise TeselaError(
                    f"Ray Serve could not start the replicas: {(lines or ['no reason given'])[-1][:200]}",
                    hint="see 'ray status'; all machines need tesela, and the run under the same path",
                )
            time.sleep(0.2)

    def document(self) -> dict[str, Any]:
        """The OpenAPI document, as a replica gives it."""
        answer = self._handle.remote(WholeRequest("GET", "/openapi.json")).result(timeout_s=START_SECONDS)
        found: dict[str, Any] = json.loads(answer.body)
        return found

    async def __call__(self, request: WholeRequest) -> WholeAnswer:
        """The answer of one of the replicas.

        Raises:
            ReplicaLostError: it ended before it answered.
        """
        response = self._handle.remote(request)
        try:
            answer: WholeAnswer = await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except self._ray.exceptions.RayTaskError:
            raise  # a fault of the application, which it would have again
        except (self._ray.exceptions.RayError, self._ray.serve.exceptions.ReplicaUnavailableError) as error:
            raise ReplicaLostError(type(error).__name__) from error
        return answer

    def close(self) -> None:
        """End the replicas, and leave the cluster."""
        with contextlib.suppress(Exception):  # what is left of a cluster that has gone
            self._ray.serve.delete(self._name)
        self._ray.shutdown()


def replica_reach(text: str) -> tuple[int, int | None]:
    """Replicas at least and at most, from ``MIN..MAX`` or a number.

    Args:
        text: as given; empty for 1 to as many as there are processors, which is None.

    Raises:
        UsageError: it is something else.
    """
    if not text:
        return 1, None
    match = re.fullmatch(r"(\d{1,6})(?:\.\.(\d{1,6}))?", text)
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= least <= most:
        raise UsageError(
            f"{text!r} is no number of replicas",
            hint="write --replicas 2, or --replicas 1..4",
        )
    return least, most


def absolute_run(run: str) -> str:
    """The path of a run as other processes find it; a name of another kind as it is."""
    return str(Path(run).absolute()) if Path(run).exists() else run
