"""The application: models, routes and the layers around them, ready for any ASGI server.

    app = create_app({"flowers": Predictor("runs/flowers")})

Everything a request can reach is decided here; the interactive documentation is left out because it loads
scripts from another host. The OpenAPI document is at ``/openapi.json``.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from tesela.runtime.predictor import Predictor
from tesela.serve.bodies import BODIES, BodyLayer
from tesela.serve.config import ServeConfig
from tesela.serve.engine.admission import OverloadAdmission
from tesela.serve.engine.decoding import Decoders
from tesela.serve.engine.served import ServedModel
from tesela.serve.errors import RefusedError, on_http, on_invalid, on_refused
from tesela.serve.metrics import MetricsLayer, ServerMetrics
from tesela.serve.page import document_route, page_routes
from tesela.serve.rate import RateLimit
from tesela.serve.routes import EXPLAINING, image_routes, state_routes
from tesela.serve.schema import with_problems
from tesela.serve.security import KeyRing, SecurityLayer
from tesela.tasks.task import Task


def create_app(
    predictors: Mapping[str, Predictor],
    *,
    config: ServeConfig | None = None,
    tasks: Iterable[Task] | None = None,
) -> FastAPI:
    """The application over loaded bundles.

    Args:
        predictors: name -> loaded bundle; the first one answers where a request names none.
        config: the limits.
        tasks: that have an address; those of the models by default.
    """
    config = config or ServeConfig()
    metrics = ServerMetrics()
    decoders = Decoders(config)
    models = {
        name: ServedModel(name, predictor, config=config, decoders=decoders, metrics=metrics)
        for name, predictor in predictors.items()
    }
    ready = {"ready": False}

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await decoders.start()
        for served in models.values():
            await served.start()
        ready["ready"] = True
        yield
        ready["ready"] = False
        for served in models.values():
            await served.stop()
        await decoders.stop()

    if tasks is None:
        tasks = {served.predictor.task.name: served.predictor.task for served in models.values()}.values()
    routes = image_routes(models, config, tasks)
    app = enclosed_app(routes, config, metrics=metrics, ready=ready, lifespan=lifespan)
    app.state.admission = OverloadAdmission(
        {
            **{
                f"/v1/{task}": [one.gate for one in models.values() if one.predictor.task.name == task]
                for task in {one.predictor.task.name for one in models.values()}
            },
            **{f"/v1/{verb}": [one.explain_gate for one in models.values()] for verb in EXPLAINING},
        },
        metrics=metrics,
        prefix=config.prefix,
    )
    document = with_problems(app.openapi())
    app.openapi = lambda: document  # type: ignore[method-assign]
    app.include_router(document_route(document))
    return app


def enclosed_app(
    routes: APIRouter,
    config: ServeConfig,
    *,
    metrics: ServerMetrics,
    ready: dict[str, bool],
    lifespan: Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]],
) -> FastAPI:
    """An application over the addresses of models: its layers, the page and its state.

    Args:
        routes: the addresses of models.
        config: the limits.
        metrics: where requests are counted.
        ready: whether requests are taken, under ``ready``.
        lifespan: what is done before the first request and after the last.
    """
    app = FastAPI(
        title="tesela",
        version="1",
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        servers=[{"url": config.prefix}] if config.prefix else None,
    )
    app.include_router(routes)
    app.include_router(state_routes(metrics, ready))
    app.include_router(page_routes())
    app.add_exception_handler(RefusedError, on_refused)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_middleware(BodyLayer, most=BODIES * config.max_bytes)
    app.add_middleware(MetricsLayer, metrics=metrics)
    app.add_middleware(
        SecurityLayer,
        keys=KeyRing(config.api_keys, digests=config.key_digests),
        hosts=config.hosts,
        rate=RateLimit(config.rate) if config.rate else None,
        prefix=config.prefix,
    )
    return app
