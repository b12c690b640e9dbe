"""All models by name, without torch: what ``tesela models`` lists and every ``--model`` looks up.

A row of a family's table becomes an entry; overrides go on top. Families that other distributions register under the
entry point group ``tesela.models`` can be created by config; named sizes are listed here.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tesela.core.config import build, to_mapping
from tesela.core.errors import ConfigError, UnknownNameError
from tesela.core.registry import Entry, lookup
from tesela.models.config import ModelConfig

# Each module registers its config and has a table MODELS: name -> fields.
FAMILIES = {
    "vit": "tesela.models.vit.config",
    "deit": "tesela.models.deit.config",
    "hybrid": "tesela.models.hybrid.config",
    "cct": "tesela.models.cct.config",
    "resnet": "tesela.models.resnet.config",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelEntry:
    """One named model.

    Attributes:
        name: such as ``vit_s16``.
        family: such as ``vit``; the name under which its class is registered.
        config: as it is without overrides.
        summary: one line.
    """

    name: str
    family: str
    config: ModelConfig
    summary: str


def family(name: str) -> Entry:
    """The registered family of that name, its config class and its network.

    Raises:
        UnknownNameError: there is no such family.
    """
    for module in FAMILIES.values():
        importlib.import_module(module)
    return lookup("model", name)


def family_of(config: ModelConfig) -> str:
    """The family a configuration belongs to.

    Raises:
        ConfigError: its class is not registered.
    """
    for name in FAMILIES:
        if family(name).config is type(config):
            return name
    raise ConfigError(
        f"{type(config).__name__} belongs to no family", hint="use one of " + ", ".join(FAMILIES)
    )


@functools.cache
def _entries() -> dict[str, ModelEntry]:
    found: dict[str, ModelEntry] = {}
    for name, module in FAMILIES.items():
        for model, row in importlib.import_module(module).MODELS.items():
            config = _config_class(name)(**row)
            found[model] = ModelEntry(name=model, family=name, config=config, summary=config.summary())
    return found


def _config_class(name: str) -> type[ModelConfig]:
    config = family(name).config
    assert config is not None
    return config


def names(pattern: str | None = None) -> list[str]:
    """All model names in the order of their tables; or those of a family, or that hold the text or match the glob ``pattern``."""
    if pattern is None:
        return list(_entries())
    if pattern in FAMILIES:
        return [name for name, entry in _entries().items() if entry.family == pattern]
    glob = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    return [name for name in _entries() if fnmatch.fnmatchcase(name, glob)]


def find(name: str) -> ModelEntry:
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
        image_size: side or (height, width); the model's own where None.
        channels: the model's own where None.
        overrides: fields of the family's config.

    Raises:
        UnknownNameError: no such model.
        ConfigError: an unknown field, a value that does not fit, or patches that do not divide the image.
    """
    if num_classes < 1:
        raise ConfigError(
            f"a classifier needs at least one class, not {num_classes}", hint="check the labels"
        )
    return changed(find(name).config, image_size=image_size, channels=channels, overrides=overrides)


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
