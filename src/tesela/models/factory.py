"""Make a model by name or config, with weights drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from tesela.core.registry import lookup, register
from tesela.models import catalog
from tesela.models.backbone import Backbone
from tesela.models.classifier import Classifier
from tesela.models.config import ModelConfig
from tesela.models.model import Model
from tesela.models.segmenter.segmenter import Segmenter

M = TypeVar("M", bound=Model)

register(
    "head",
    "embedder",
    target="tesela.models.embedder:Embedder",
    summary="pool: one vector per image, no classes",
)


def create_model(
    name_or_config: str | ModelConfig,
    *,
    num_classes: int = 10,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    seed: int | None = None,
    **overrides: Any,
) -> Classifier:
    """A new classifier with initial weights, in training mode, on the CPU.

    Args:
        name_or_config: a name of ``tesela models``, or a configuration.
        num_classes: K.
        image_size: side or (height, width); the model's own if None.
        channels: of the images; the model's own if None.
        seed: of the weights; if None they come from torch's global generator.
        **overrides: fields of the family's config, such as ``depth=6``.

    Raises:
        UnknownNameError: no such model.
        ConfigError: a field is unknown or does not fit.
    """
    config = _resolved(name_or_config, num_classes, image_size, channels, overrides)
    return build_model(config, lambda backbone: Classifier(backbone, num_classes=num_classes), seed=seed)


def create_segmenter(
    name_or_config: str | ModelConfig,
    *,
    num_classes: int,
    decoder: str | Mapping[str, Any] | None = None,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    seed: int | None = None,
    **overrides: Any,
) -> Segmenter:
    """A new segmenter with initial weights, in training mode, on the CPU.

    Args:
        name_or_config: a name of ``tesela models``, or a configuration.
        num_classes: K.
        decoder: its name, or its settings with the key ``name``; the model's own, or ``light``, if None.
        image_size: side or (height, width); the model's own if None.
        channels: of the images; the model's own if None.
        seed: of the weights; if None they come from torch's global generator.
        **overrides: fields of the family's config, such as ``depth=6``.

    Raises:
        UnknownNameError: no such model or decoder.
        ConfigError: a field is unknown or does not fit, or the decoder does not go with the model.
    """
    config = _resolved(name_or_config, num_classes, image_size, channels, overrides)
    own = catalog.find_model(name_or_config).decoder if isinstance(name_or_config, str) else {}
    settings = {"name": decoder} if isinstance(decoder, str) else own if decoder is None else decoder
    return build_model(
        config,
        lambda backbone: Segmenter(backbone, num_classes=num_classes, decoder=settings),
        seed=seed,
    )


def _resolved(
    name_or_config: str | ModelConfig,
    num_classes: int,
    image_size: int | tuple[int, int] | None,
    channels: int | None,
    overrides: Mapping[str, Any],
) -> ModelConfig:
    images: dict[str, Any] = {"image_size": image_size, "channels": channels}
    if isinstance(name_or_config, str):
        return catalog.resolve(name_or_config, num_classes=num_classes, overrides=overrides, **images)
    return catalog.changed(name_or_config, overrides=overrides, **images)


def build_model(config: ModelConfig, build: Callable[[Backbone[Any]], M], *, seed: int | None = None) -> M:
    """A new model with initial weights, in training mode, on the CPU.

    Args:
        config: of the backbone.
        build: puts a head on a backbone.
        seed: of the weights; if None they come from torch's global generator.
    """
    model = empty_with_head(config, build).to_empty(device="cpu")
    model.initialise(None if seed is None else torch.Generator().manual_seed(seed))
    return model


def empty_with_head(config: ModelConfig, build: Callable[[Backbone[Any]], M]) -> M:
    """A model on the meta device: shapes without values."""
    with torch.device("meta"):
        return build(catalog.family(catalog.family_of(config)).load()(config))


def empty_model(config: ModelConfig, *, num_classes: int) -> Classifier:
    """A classifier on the meta device."""
    return empty_with_head(config, lambda backbone: Classifier(backbone, num_classes=num_classes))


def model_class(head: str) -> type[Model]:
    """The class of models with that head: ``classifier``, or what another distribution registered.

    Raises:
        UnknownNameError: with the nearest names.
    """
    found: type[Model] = lookup("head", head).load()
    return found
