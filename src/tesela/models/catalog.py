"""Catalogue of named models, without torch.

A row of a family's table becomes an entry; overrides go on top. Other distributions add families, with such a
table, under the entry point group ``tesela.models``.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tesela.core.config import build, to_mapping
from tesela.core.errors import ConfigError, UnknownNameError
from tesela.core.registry import Entry, entries, lookup
from tesela.models.config import ModelConfig
from tesela.models.segmenter.config import decoder_config

# Importing a family's configuration registers it. Its module may have a table MODELS: name -> fields.
for _family in (
    "vit",
    "deit",
    "hybrid",
    "cct",
    "resnet",
    "convnext",
    "swin",
    "tiny_vit",
    "segformer",
    "unet",
):
    importlib.import_module(f"tesela.models.{_family}.config")

# The classes that published parameter counts are for: ImageNet's at 224 px, ten on small images.
IMAGENET_CLASSES, SMALL_CLASSES = 1000, 10


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelEntry:
    """One named model.

    Attributes:
        name: such as ``vit_s16``.
        family: such as ``vit``; the name under which its class is registered.
        config: as it is without overrides.
        summary: one line.
        decoder: settings of the decoder that it has as a segmenter, by its authors; empty if it has none.
        classes: what published parameter counts are for.
    """

    name: str
    family: str
    config: ModelConfig
    summary: str
    decoder: Mapping[str, Any] = field(default_factory=dict)
    classes: int = 1000

    def parameter_count(self, config: ModelConfig, num_classes: int) -> int:
        """Number of trainable values with its own head or decoder."""
        if not self.decoder:
            return config.parameter_count(num_classes)
        _, decoder = decoder_config(self.decoder)
        return config.backbone_parameters() + decoder.parameter_count(config, num_classes)

    def flops(self, config: ModelConfig, num_classes: int) -> int:
        """Operations of one image's way to the logits."""
        if not self.decoder:
            return config.flops(num_classes)
        _, decoder = decoder_config(self.decoder)
        products = config.backbone_products(config.image_size)
        return 2 * (products + decoder.products(config, num_classes, config.image_size))


def family(name: str) -> Entry:
    """The registered family of that name, its config class and its network.

    Raises:
        UnknownNameError: there is no such family.
    """
    return lookup("model", name)


def family_names() -> list[str]:
    """All families in the order of their registration, those of other distributions last."""
    return [entry.name for entry in entries("model")]


def family_of(config: ModelConfig) -> str:
    """The family a configuration belongs to.

    Raises:
        ConfigError: its class is not registered.
    """
    for entry in entries("model"):
        if entry.config is type(config):
            return entry.name
    raise ConfigError(
        f"{type(config).__name__} belongs to no family", hint="use one of " + ", ".join(family_names())
    )


@functools.cache
def _entries() -> dict[str, ModelEntry]:
    found: dict[str, ModelEntry] = {}
    for entry in entries("model"):
        assert entry.config is not None
        module = sys.modules[entry.config.__module__]
        decoders, classes = getattr(module, "DECODERS", {}), getattr(module, "CLASSES", {})
        for name, row in getattr(module, "MODELS", {}).items():
            config: ModelConfig = entry.config(**row)
            usual = IMAGENET_CLASSES if config.image_size[0] >= 224 else SMALL_CLASSES
            found[name] = ModelEntry(
                name=name,
                family=entry.name,
                config=config,
                summary=config.summary(),
                decoder=decoders.get(name, {}),
                classes=classes.get(name, usual),
            )
    return found


def model_names(pattern: str | None = None) -> list[str]:
    """All model names in the order of their tables.

    Or those of a family, or that hold the text or match the glob ``pattern``.
    """
    if pattern is None:
        return list(_entries())
    if pattern in family_names():
        return [name for name, entry in _entries().items() if entry.family == pattern]
    glob = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    return [name for name in _entries() if fnmatch.fnmatchcase(name, glob)]


def find_model(name: str) -> ModelEntry:
    """The model of that name.

    Raises:
        UnknownNameError: with the nearest names.
    """
    if name not in _entries():
        raise UnknownNameError("model", name, _entries())
    return _entries()[name]


def resolve(
    name: str,
    *,
    num_classes: int = 10,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> ModelConfig:
    """The configuration of a named model for given images.

    Args:
        name: a model's name.
        num_classes: checked only; it is no part of the configuration.
        image_size: side or (height, width); the model's own if None.
        channels: the model's own if None.
        overrides: fields of the family's config.

    Raises:
        UnknownNameError: no such model.
        ConfigError: an unknown field, a value that does not fit, or patches that do not divide the image.
    """
    if num_classes < 1:
        raise ConfigError(
            f"a classifier needs at least one class, not {num_classes}", hint="check the labels"
        )
    return changed(find_model(name).config, image_size=image_size, channels=channels, overrides=overrides)


def changed(
    config: ModelConfig,
    *,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> ModelConfig:
    """A configuration with some fields replaced; arguments as of ``resolve``."""
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    images = {
        key: value for key, value in (("image_size", size), ("channels", channels)) if value is not None
    }
    result: ModelConfig = build(type(config), to_mapping(config), images, dict(overrides or {}))
    return result
