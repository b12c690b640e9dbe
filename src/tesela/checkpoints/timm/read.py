"""Reader of timm checkpoints: safetensors or pickled tensors, with or without config.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tesela.checkpoints.files import license_of, read_weights
from tesela.checkpoints.foreign import Foreign, Place, image_spec
from tesela.checkpoints.timm.names import timm_fields, timm_table
from tesela.core.errors import ConfigError, WeightsError
from tesela.imaging.spec import ImageSpec

_FILTERS = {"bilinear": "bilinear", "bicubic": "bicubic", "nearest": "nearest"}


def find_timm(place: Place) -> Foreign | None:
    """The checkpoint of a folder with timm's config.json, or of a file with a VisionTransformer's names.

    None if it is another's.

    Raises:
        WeightsError: it is no VisionTransformer, or a file is damaged.
    """
    folder, weights = place.folder, place.weights
    stated_by_timm = "pretrained_cfg" in place.config
    config = place.config if stated_by_timm or weights is None else {}
    if weights is None and not stated_by_timm and "architecture" not in config:
        return None
    tensors, files = read_weights(folder, weights)
    if weights is not None and "patch_embed.proj.weight" not in tensors:
        return None
    stated, arguments = dict(config.get("pretrained_cfg") or {}), dict(config.get("model_args") or {})
    arguments.setdefault("global_pool", config.get("global_pool") or stated.get("global_pool"))
    size = stated.get("input_size")
    if "img_size" not in arguments and isinstance(size, list) and len(size) == 3:
        arguments["img_size"] = size[1:]
    family, fields, style = timm_fields(
        tensors, arguments=arguments, heads=place.heads, image_size=place.image_size
    )
    return Foreign(
        source=weights or folder,
        files=files,
        family=family,
        fields=fields,
        layout=timm_table(family, fields, style),
        tensors=tensors,
        image=_image(stated, fields),
        labels=_labels(config, stated),
        license=str(stated.get("license") or license_of(folder)),
        provenance={
            "format": "timm",
            "architecture": config.get("architecture"),
            "config": dict(config),
            "style": dataclasses.asdict(style),
        },
    )


def _image(stated: Mapping[str, Any], fields: Mapping[str, Any]) -> ImageSpec:
    """The preprocessing that the config states, else the usual one."""
    channels = fields["channels"]
    try:
        size = stated.get("input_size")
        view = (
            (int(size[1]), int(size[2]))
            if isinstance(size, list) and len(size) == 3
            else fields["image_size"]
        )
        if not stated:
            return image_spec(view, channels)
        return image_spec(
            view,
            channels,
            mean=tuple(float(value) for value in stated.get("mean", (0.5,) * channels)),
            std=tuple(float(value) for value in stated.get("std", (0.5,) * channels)),
            resize="squash" if stated.get("crop_mode") == "squash" else "crop",
            crop_ratio=float(stated.get("crop_pct", 0.875)),
            interpolation=_FILTERS.get(str(stated.get("interpolation", "bicubic")), "bicubic"),
        )
    except (TypeError, ValueError, KeyError, ConfigError) as error:
        raise WeightsError(
            f"config.json does not make sense: {error}", hint="use the config.json that came with the weights"
        ) from error


def _labels(config: Mapping[str, Any], stated: Mapping[str, Any]) -> list[str] | None:
    names = config.get("label_names") or stated.get("label_names")
    return [str(name) for name in names] if isinstance(names, list) and names else None
