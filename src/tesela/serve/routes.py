"""Endpoints of the API.

Models were loaded at the start; no request can load another.

Image endpoints read the body themselves (``limits``), so that it is counted while it arrives.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from tesela.attribution.methods.table import AUTO_METHOD, methods
from tesela.serve.config import ServeConfig
from tesela.serve.errors import RefusedError
from tesela.serve.limits import read_image
from tesela.serve.metrics import ServerMetrics
from tesela.serve.schema import IMAGE_BODY, ExplainBody, ModelsBody, StatusBody, refusals, result_body
from tesela.serve.served import ServedModel
from tesela.tasks.score import Score
from tesela.tasks.task import Task

ModelName = Annotated[
    str | None, Query(max_length=200, description="Which model; the first one where none is named.")
]
Top = Annotated[int, Query(ge=1, le=1000, description="How many classes to list.")]
TargetQuery = Annotated[
    str | None,
    Query(max_length=200, description="A class by name or number; the predicted one where none is named."),
]
#: Methods that need no further passes; one request of another would hold up all that wait.
QUICK = [AUTO_METHOD, *(name for name, method in methods().items() if not method.passes)]
MethodQuery = Annotated[str, Query(pattern=f"^({'|'.join(QUICK)})$", description="How the map is computed.")]


def image_routes(models: dict[str, ServedModel], config: ServeConfig) -> APIRouter:
    """``/v1``: each task of the served models, explain, list."""
    router = APIRouter(prefix="/v1")

    for task in {served.predictor.task.name: served.predictor.task for served in models.values()}.values():
        _add_task(router, task, models, config)

    @router.post("/explain", openapi_extra=IMAGE_BODY, responses=refusals(), response_model=ExplainBody)
    async def explain(
        request: Request,
        model: ModelName = None,
        target: TargetQuery = None,
        method: MethodQuery = "auto",
        top: Top = 5,
    ) -> Any:
        """Where in an image the evidence for a class lies."""
        served = served_model(models, model)
        served.explain_gate.check()
        found = await served.explain(await read_image(request, config), target=target, method=method, top=top)
        return {
            "model": served.name,
            "method": found.method,
            "target": score_body(found.target),
            "grid": found.grid,
            "tokens": found.tokens,
            "prefix_mass": found.prefix_mass,
            "width": found.width,
            "height": found.height,
            "heatmap": base64.b64encode(found.heatmap).decode("ascii"),
            "top": [score_body(score) for score in found.scores],
        }

    @router.get("/models", responses=refusals(), response_model=ModelsBody)
    async def list_models() -> Any:
        """The served models with their classes."""
        return {"models": [served.describe() for served in models.values()]}

    return router


def _add_task(router: APIRouter, task: Task, models: dict[str, ServedModel], config: ServeConfig) -> None:
    """``/v1/TASK``: what a model of that task says about an image."""
    able = {name: served for name, served in models.items() if served.predictor.task.name == task.name}

    def with_top(top: Top = 5) -> dict[str, Any]:
        return {"top": top}

    def without_options() -> dict[str, Any]:
        return {}

    options_of = with_top if "top" in task.decode_options else without_options

    @router.post(
        f"/{task.name}",
        name=task.name,
        openapi_extra=IMAGE_BODY,
        responses=refusals(),
        response_model=result_body(task),
        summary=f"{task.noun.capitalize()}: the answer for an image, sent as the body or as a form's file",
    )
    async def predict(
        request: Request,
        options: dict[str, Any] = Depends(options_of),  # noqa: B008 - how FastAPI takes a local dependency
        model: ModelName = None,
    ) -> Any:
        served = served_model(able, model)
        served.gate.check()
        result = await served.predict(await read_image(request, config), **options)
        return {"model": served.name, **result.body()}


def served_model(models: dict[str, ServedModel], name: str | None) -> ServedModel:
    """The model of that name; the first one by default.

    Raises:
        RefusedError: there is none.
    """
    if name is None:
        return next(iter(models.values()))
    if name not in models:
        raise RefusedError("unknown_model")
    return models[name]


def state_routes(metrics: ServerMetrics, ready: dict[str, bool]) -> APIRouter:
    """Health and counters."""
    router = APIRouter()

    @router.get("/healthz", responses=refusals(), response_model=StatusBody)
    async def healthz() -> Any:
        """The process is alive."""
        return {"status": "ok"}

    @router.get("/readyz", responses=refusals(), response_model=StatusBody)
    async def readyz() -> Any:
        """The models are loaded and requests are taken."""
        if not ready["ready"]:
            raise RefusedError("stopping")
        return {"status": "ready"}

    @router.get("/metrics", responses=refusals(), response_class=Response)
    async def read_metrics() -> Response:
        """Counters in Prometheus' text form."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def score_body(score: Score) -> dict[str, Any]:
    """A score as JSON."""
    return {"label": score.label, "index": score.index, "probability": score.probability}
