"""The application: models, routes and the layers around them, ready for any ASGI server.

    app = create_app({"flowers": Predictor("runs/flowers")})

Everything a request can reach is decided here; the interactive documentation is left out because it loads
scripts from another host. The OpenAPI document is at ``/openapi.json``.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from tesela.runtime.predictor import Predictor
from tesela.serve.config import ServeConfig
from tesela.serve.errors import RefusedError, on_http, on_invalid, on_refused
from tesela.serve.metrics import MetricsLayer, ServerMetrics
from tesela.serve.page import page_routes
from tesela.serve.routes import image_routes, state_routes
from tesela.serve.security import KeyRing, SecurityLayer
from tesela.serve.served import ServedModel


def create_app(predictors: Mapping[str, Predictor], *, config: ServeConfig | None = None) -> FastAPI:
    """The application over loaded bundles.

    Args:
        predictors: name -> loaded bundle; the first one answers where a request names none.
        config: the limits.
    """
    config = config or ServeConfig()
    metrics = ServerMetrics()
    models = {
        name: ServedModel(name, predictor, config=config, metrics=metrics)
        for name, predictor in predictors.items()
    }
    ready = {"ready": False}

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for served in models.values():
            served.start()
        ready["ready"] = True
        yield
        ready["ready"] = False
        for served in models.values():
            await served.stop()

    app = FastAPI(
        title="tesela", version="1", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.include_router(image_routes(models, config))
    app.include_router(state_routes(metrics, ready))
    app.include_router(page_routes())
    app.add_exception_handler(RefusedError, on_refused)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_middleware(MetricsLayer, metrics=metrics)
    app.add_middleware(SecurityLayer, keys=KeyRing(config.api_keys), hosts=config.hosts)
    return app
