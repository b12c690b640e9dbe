"""A timm checkpoint: a safetensors file or a pickle of tensors, and config.json where timm wrote one beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tesela.checkpoints.found import Found, image_spec
from tesela.checkpoints.huggingface.read import license_of, read_weights
from tesela.checkpoints.timm.names import layout, read_fields
from tesela.core.errors import ConfigError, WeightsError
from tesela.imaging.spec import ImageSpec
from tesela.models.tensors import Tensors

_FILTERS = {"bilinear": "bilinear", "bicubic": "bicubic", "nearest": "nearest"}


def is_timm(tensors: Mapping[str, Any]) -> bool:
    """Whether names look like a VisionTransformer's there."""
    return "patch_embed.proj.weight" in tensors


def find_timm(
    folder: Path,
    config: Mapping[str, Any] | None,
    *,
    weights: Path | None = None,
    tensors: Tensors | None = None,
    heads: int | None = None,
    image_size: tuple[int, int] | None = None,
) -> Found:
    """The checkpoint of a folder, or of one file.

    Args:
        folder: with the files.
        config: its config.json, if timm wrote one.
        weights: the file; the one with the usual name where None.
        tensors: of ``weights``, where they were read already.
        heads: of an attention, where the user says so.
        image_size: (height, width) of the positions, where the user says so.

    Raises:
        WeightsError: it is no VisionTransformer, or a file is damaged.
    """
    if tensors is None:
        tensors, files = read_weights(folder, weights)
    else:
        files = [weights] if weights is not None else []
    config = config or {}
    stated, arguments = dict(config.get("pretrained_cfg") or {}), dict(config.get("model_args") or {})
    arguments.setdefault("global_pool", config.get("global_pool") or stated.get("global_pool"))
    size = stated.get("input_size")
    if "img_size" not in arguments and isinstance(size, list) and len(size) == 3:
        arguments["img_size"] = size[1:]
    family, fields, style = read_fields(tensors, arguments=arguments, heads=heads, image_size=image_size)
    return Found(
        source=weights or folder,
        files=files,
        family=family,
        fields=fields,
        layout=layout(family, fields, style),
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
