"""The shapes of what the API answers, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, create_model

from tesela.serve.errors import REFUSALS
from tesela.tasks.task import Task


class ErrorBody(BaseModel):
    """Any refusal: a code from a closed list, what is wrong, and what to do."""

    code: str
    message: str
    hint: str


class ScoreBody(BaseModel):
    """One class with its probability."""

    label: str
    index: int
    probability: float


def result_body(task: Task) -> type[BaseModel]:
    """The answer of a task's endpoint: the model's name and what its results hold."""
    name = task.name.title()
    fields: dict[str, Any] = {"model": (str, ...)}
    empty = task.unreadable()
    for field, kind in {**empty.schema, **empty.body_schema}.items():
        fields[field] = (_field_type(f"{name}{field.title()}", kind), ...)
    return create_model(f"{name}Body", __doc__=f"What a model of the task {task.name} says.", **fields)


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
    between 0 and 1; 0 is also what speaks against the class.
    """

    model: str
    method: str
    target: ScoreBody
    grid: tuple[int, int]
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


class StatusBody(BaseModel):
    """Health."""

    status: str


#: The request body of the image endpoints, for the OpenAPI document; ``limits.read_image`` reads it.
IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            **{
                kind: {"schema": {"type": "string", "format": "binary"}}
                for kind in ("image/jpeg", "image/png", "image/webp", "image/*", "application/octet-stream")
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
