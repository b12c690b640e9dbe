"""The shapes of what the API answers, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, Field, create_model

from tesela.serve.errors import PROBLEM, REFUSALS
from tesela.tasks.task import Task

#: Rows and columns; a list, for many programs that read the document know no arrays of fixed places.
GridSize: TypeAlias = Annotated[list[int], Field(min_length=2, max_length=2)]


class ErrorBody(BaseModel):
    """Any refusal (RFC 9457): a code from a closed list, what is wrong, and what to do.

    ``message`` and ``hint`` are ``title`` and ``detail``.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    message: str
    hint: str


class ScoreBody(BaseModel):
    """One class with its probability."""

    label: str
    index: int
    probability: float


class FaultBody(BaseModel):
    """Why an image of a batch has no answer."""

    code: str
    message: str
    hint: str


class FailedBody(BaseModel):
    """An image of a batch without an answer."""

    name: str
    error: FaultBody


def result_body(task: Task) -> Any:
    """The answer of a task's endpoint: the model's name with what its result holds, or a list for a batch."""
    name = task.name.title()
    fields: dict[str, Any] = {}
    empty = task.unreadable()
    for field, kind in {**empty.schema, **empty.body_schema}.items():
        fields[field] = (_field_type(f"{name}{field.title()}", kind), ...)
    model: dict[str, Any] = {"model": (str, ...)}
    one = create_model(
        f"{name}Body", __doc__=f"What a model of the task {task.name} says.", **model, **fields
    )
    part = create_model(
        f"{name}Part", __doc__="The answer for an image of a batch.", name=(str, ...), **model, **fields
    )
    several: dict[str, Any] = {"results": (list[part | FailedBody], ...)}  # type: ignore[valid-type]
    batch = create_model(f"{name}Batch", __doc__="The answers for a batch, in order.", **model, **several)
    return one | batch


def _field_type(name: str, kind: Any) -> Any:
    """The type of a field of ``Result.schema``."""
    if isinstance(kind, list):
        return list[_field_type(name, kind[0])]  # type: ignore[misc]
    if isinstance(kind, dict):
        fields: dict[str, Any] = {
            field: (_field_type(field.title(), inner), ...) for field, inner in kind.items()
        }
        return create_model(name, **fields)
    return {"string": str, "int64": int, "float64": float, "bool": bool}[kind]


class ExplainBody(BaseModel):
    """Evidence for a class by place in the image.

    ``heatmap`` is a PNG (base64) of the image's size, shrunk to 1,024 pixels at most, transparent where
    nothing spoke for the class; ``tokens`` is the same per patch, rows of ``grid`` from top to bottom,
    between 0 and 1; 0 is also what speaks against the class. ``prefix_mass`` is null where an exported
    program explains itself. Probabilities of a segmenter are means: of the target over the explained pixels,
    of ``top`` over the image.
    """

    model: str
    method: str
    target: ScoreBody
    grid: GridSize
    tokens: list[list[float]]
    prefix_mass: float | None
    width: int
    height: int
    heatmap: str
    top: list[ScoreBody]


class ModelBody(BaseModel):
    """A served model."""

    name: str
    task: str
    architecture: str
    backend: str
    labels: list[str]
    height: int
    width: int
    channels: int
    explainable: bool
    license: str


class ModelsBody(BaseModel):
    """All served models; the first one answers where none is named."""

    models: list[ModelBody]


class InspectionBody(BaseModel):
    """A network from inside; ``filters`` and ``positions`` are PNG sheets (base64).

    ``distance`` is the mean attention distance in pixels (layers x heads), where it was measured.
    """

    distance: list[list[float]] | None
    filters: str | None
    positions: str | None


class ModelDetailBody(ModelBody):
    """All of a served model; null is what an exported graph does not tell.

    ``examples`` is the number of example images; ``explain_options`` are the parameters of ``/v1/explain``,
    beside method and top, that this model takes.
    """

    image: dict[str, Any]
    card: str
    parameters: int | None
    metrics: dict[str, Any]
    colors: list[str]
    methods: list[str]
    explain_options: list[str]
    layers: int | None
    heads: int | None
    grid: GridSize | None
    examples: int
    inspection: InspectionBody | None


class AttentionBody(BaseModel):
    """Where a patch, or what the head of the model reads, attends to.

    ``weights`` are rows of ``grid`` from top to bottom, as they are; with ``prefix_mass`` they have sum 1.
    """

    model: str
    grid: GridSize
    layers: int
    heads: int
    layer: int
    head: int | None
    row: int | None
    column: int | None
    weights: list[list[float]]
    prefix_mass: float


class HeadsBody(BaseModel):
    """Attention of what the head of the model reads, in all layers and heads.

    ``maps`` is a grey PNG (base64) of layers x rows by heads x columns, each map scaled to its maximum;
    ``entropy`` is in nats, over all tokens.
    """

    model: str
    grid: GridSize
    layers: int
    heads: int
    maps: str
    entropy: list[list[float]]


class StatusBody(BaseModel):
    """Health."""

    status: str


def image_body(most: int = 1) -> dict[str, Any]:
    """The request body of an image endpoint, for the OpenAPI document; ``limits.read_upload`` reads it."""
    images = {"type": "string", "format": "binary"}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "file": {"type": "string", "format": "binary"},
                            "image": {"type": "array", "items": images, "minItems": 1, "maxItems": most},
                        },
                    }
                },
                **{
                    kind: {"schema": {"type": "string", "format": "binary"}}
                    for kind in (
                        *("image/jpeg", "image/png", "image/webp", "image/*"),
                        "application/octet-stream",
                    )
                },
            },
        }
    }


def refusals(*, without: tuple[int, ...] = ()) -> dict[int | str, dict[str, Any]]:
    """The documented refusals of an endpoint: every status of the list, with the codes it stands for."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({refusal.status for refusal in REFUSALS.values()} - set(without)):
        codes = ", ".join(code for code, refusal in REFUSALS.items() if refusal.status == status)
        found[status] = {"model": ErrorBody, "description": f"One of: {codes}"}
    return found


def with_problems(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with the content type that refusals have."""
    for path in document["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and "application/json" in answer.get("content", {}):
                    answer["content"] = {PROBLEM: answer["content"]["application/json"]}
    return document
