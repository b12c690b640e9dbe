"""Make a model by name or config, with weights drawn from a seed."""

from __future__ import annotations

from typing import Any

import torch

from tesela.models import catalog
from tesela.models.config import ModelConfig
from tesela.models.encoder.network import Encoder
from tesela.models.resnet.network import ResNet

Model = Encoder[Any] | ResNet


def create_model(
    name_or_config: str | ModelConfig,
    *,
    num_classes: int = 10,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    seed: int | None = None,
    **overrides: Any,
) -> Model:
    """A new classifier with initial weights, in training mode, on the CPU.

    Args:
        name_or_config: a name of ``tesela models``, or a configuration.
        num_classes: K.
        image_size: side or (height, width); the model's own where None.
        channels: of the images; the model's own where None.
        seed: of the weights; where None they come from torch's global generator.
        **overrides: fields of the family's config, such as ``depth=6``.

    Raises:
        UnknownNameError: no such model.
        ConfigError: a field is unknown or does not fit.
    """
    if isinstance(name_or_config, str):
        config = catalog.resolve(
            name_or_config,
            num_classes=num_classes,
            image_size=image_size,
            channels=channels,
            overrides=overrides,
        )
    else:
        config = catalog.changed(
            name_or_config, image_size=image_size, channels=channels, overrides=overrides
        )
    model = empty_model(config, num_classes=num_classes).to_empty(device="cpu")
    model.initialise(None if seed is None else torch.Generator().manual_seed(seed))
    return model


def empty_model(config: ModelConfig, *, num_classes: int) -> Model:
    """The network on the meta device: shapes without values."""
    network = catalog.family(catalog.family_of(config)).load()
    with torch.device("meta"):
        model: Model = network(config, num_classes=num_classes)
    return model
