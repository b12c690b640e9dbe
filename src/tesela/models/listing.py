"""Facts of the models in the catalogue: size, operations, image, classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tesela.core.config import to_mapping
from tesela.core.errors import UnknownNameError
from tesela.models import catalog

if TYPE_CHECKING:
    from tesela.models.config import ModelConfig


def list_models(pattern: str | None = None) -> list[dict[str, Any]]:
    """A row for each model: name, family, classes, image size, parameters, GFLOPs of an image, summary.

    Args:
        pattern: a family such as resnet, part of a name, or a glob such as ``vit_s*``; all if None.

    Raises:
        UnknownNameError: no model is called so.
    """
    rows = [_row(name) for name in catalog.model_names(pattern)]
    if not rows:
        raise UnknownNameError("model", str(pattern), catalog.model_names())
    return rows


def model_facts(name: str, config: ModelConfig, classes: int) -> dict[str, Any]:
    """One model's facts, with its configuration and decoder."""
    entry = catalog.find_model(name)
    return {
        "name": name,
        "family": entry.family,
        "num_classes": classes,
        "image_size": list(config.image_size),
        "grid": list(config.grid()),
        "parameters": entry.parameter_count(config, classes),
        "gflops": round(entry.flops(config, classes) / 1e9, 4),
        "decoder": dict(entry.decoder),
        "config": to_mapping(config),
    }


def _row(name: str) -> dict[str, Any]:
    config = catalog.find_model(name).config
    facts = model_facts(name, config, catalog.find_model(name).classes)
    return {key: value for key, value in facts.items() if key not in ("config", "grid", "decoder")} | {
        "summary": catalog.find_model(name).summary
    }
