"""Endpoints of the API.

Models were loaded at the start; no request can load another.

Image endpoints read the body themselves (``limits``), so that it is counted while it arrives.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable
from itertools import starmap
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from tesela.attribution.methods.table import AUTO_METHOD
from tesela.serve.config import ServeConfig
from tesela.serve.engine.presence import for_client
from tesela.serve.engine.served import SETTINGS, ServedModel
from tesela.serve.errors import RefusedError, problem
from tesela.serve.limits import read_image, read_upload
from tesela.serve.looking.attention import HeadAttention, OutOfRangeError
from tesela.serve.looking.facts import QUICK
from tesela.serve.metrics import ServerMetrics
from tesela.serve.schema import (
    AttentionBody,
    ExplainBody,
    HeadsBody,
    ModelDetailBody,
    ModelsBody,
    StatusBody,
    image_body,
    refusals,
    result_body,
)
from tesela.tasks.score import Score
from tesela.tasks.task import Task

#: Addresses below ``/v1`` that ask a network about itself; they share the queue of explanations.
EXPLAINING = ("explain", "attention", "heads")

ModelName = Annotated[
    str | None, Query(max_length=200, description="Which model; the first one where none is named.")
]
Top = Annotated[int, Query(ge=1, le=1000, description="How many classes to list.")]
TargetQuery = Annotated[
    str | None,
    Query(max_length=200, description="A class by name or number; the predicted one where none is named."),
]
MethodQuery = Annotated[
    str, Query(pattern=f"^({'|'.join((AUTO_METHOD, *QUICK))})$", description="How the map is computed.")
]
LayerQuery = Annotated[int | None, Query(ge=0, le=1000, description="A layer, from 0; the last by default.")]
HeadQuery = Annotated[int | None, Query(ge=0, le=1000, description="A head, from 0; the mean by default.")]
PlaceQuery = Annotated[int | None, Query(ge=0, le=10_000, description="Row or column of a patch, from 0.")]
RegionQuery = Annotated[
    str | None,
    Query(
        pattern=r"^\d{1,6},\d{1,6},\d{1,6},\d{1,6}$",
        description="LEFT,TOP,WIDTH,HEIGHT in pixels of the image; segmenters only.",
    ),
]
ShareQuery = Annotated[float | None, Query(ge=0, le=1, description="As of `tesela explain`; rollouts only.")]


def image_routes(models: dict[str, ServedModel], config: ServeConfig, tasks: Iterable[Task]) -> APIRouter:
    """``/v1``: each task, explanations, attention, the models."""
    router = APIRouter(prefix="/v1")

    for task in tasks:
        _add_task(router, task, models, config)

    @router.post("/explain", openapi_extra=image_body(), responses=refusals(), response_model=ExplainBody)
    async def explain(
        request: Request,
        model: ModelName = None,
        target: TargetQuery = None,
        method: MethodQuery = "auto",
        top: Top = 5,
        layer: LayerQuery = None,
        head: HeadQuery = None,
        discard: ShareQuery = None,
        residual: ShareQuery = None,
        region: RegionQuery = None,
    ) -> Any:
        """Where in an image the evidence for a class lies; of a segmenter, for its pixels or for a region."""
        served = served_model(models, model)
        served.explain_gate.check()
        data = await read_image(request, config)
        left, top_row, width, height = map(int, region.split(",")) if region else (0, 0, 0, 0)
        box = (left, top_row, width, height) if region else None
        options = dict(zip(SETTINGS, (layer, head, discard, residual), strict=True))
        found = await for_client(
            request,
            lambda: served.explain(data, target=target, method=method, top=top, region=box, options=options),
            seconds=config.deadline,
        )
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

    @router.post("/attention", openapi_extra=image_body(), responses=refusals(), response_model=AttentionBody)
    async def attention(
        request: Request,
        model: ModelName = None,
        layer: LayerQuery = None,
        head: HeadQuery = None,
        row: PlaceQuery = None,
        column: PlaceQuery = None,
    ) -> Any:
        """Where a patch attends to, or, without one, what the head of the model reads."""
        if (row is None) != (column is None):
            raise RefusedError("bad_parameter")
        patch = None if row is None or column is None else (row, column)
        served, found = await rows_of(request, model, patch)
        try:
            chosen, weights, prefix = found.one(layer, head)
        except OutOfRangeError:
            raise RefusedError("bad_parameter") from None
        layers, heads = found.prefix.shape
        return {
            "model": served.name,
            "grid": found.grid,
            "layers": layers,
            "heads": heads,
            "layer": chosen,
            "head": head,
            "row": row,
            "column": column,
            "weights": weights.tolist(),
            "prefix_mass": prefix,
        }

    @router.post("/heads", openapi_extra=image_body(), responses=refusals(), response_model=HeadsBody)
    async def heads(request: Request, model: ModelName = None) -> Any:
        """Attention of what the head of the model reads, in all layers and heads."""
        served, found = await rows_of(request, model, None)
        layers, count = found.prefix.shape
        return {
            "model": served.name,
            "grid": found.grid,
            "layers": layers,
            "heads": count,
            "maps": base64.b64encode(found.sheet()).decode("ascii"),
            "entropy": found.entropy.tolist(),
        }

    async def rows_of(
        request: Request, model: str | None, patch: tuple[int, int] | None
    ) -> tuple[ServedModel, HeadAttention]:
        served = served_model(models, model)
        served.explain_gate.check()
        data = await read_image(request, config)
        found = await for_client(
            request, lambda: served.attention(data, patch=patch), seconds=config.deadline
        )
        return served, found

    @router.get("/models/{name}", responses=refusals(), response_model=ModelDetailBody)
    async def model_detail(name: str) -> Any:
        """A served model with its card, what it wants of images, and what its network says of itself."""
        return await served_model(models, name).detail()

    @router.get(
        "/models/{name}/examples/{number}",
        responses={200: {"content": {"image/png": {"schema": {"type": "string"}}}}, **refusals()},
        response_class=Response,
    )
    async def model_example(name: str, number: Annotated[int, Path(ge=0, le=1000)]) -> Response:
        """One of the example images of a model, as many as it says it has, as PNG."""
        files = served_model(models, name).example_files
        if number >= len(files):
            raise RefusedError("not_found")
        return Response(files[number], media_type="image/png")

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
        openapi_extra=image_body(config.max_parts),
        responses=refusals(),
        response_model=result_body(task),
        summary=f"{task.noun.capitalize()}: the answer for an image, or those of a form",
    )
    async def predict(
        request: Request,
        options: dict[str, Any] = Depends(options_of),  # noqa: B008 - how FastAPI takes a local dependency
        model: ModelName = None,
    ) -> Any:
        served = served_model(able, model)
        served.gate.check()
        upload = await read_upload(request, config)

        async def one(data: bytes) -> dict[str, Any]:
            return {"model": served.name, **(await served.predict(data, **options)).body()}

        if not upload.batch:
            return await for_client(request, lambda: one(upload.images[0][1]), seconds=config.deadline)
        turns = asyncio.Semaphore(min(config.max_batch, config.queue))

        async def part(name: str, data: bytes) -> dict[str, Any]:
            async with turns:
                try:
                    return {"name": name, **await one(data)}
                except RefusedError as error:
                    fault = problem(error.code)
                    return {"name": name, "error": {key: fault[key] for key in ("code", "message", "hint")}}

        results = await for_client(
            request, lambda: asyncio.gather(*starmap(part, upload.images)), seconds=config.deadline
        )
        return {"model": served.name, "results": results}


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
