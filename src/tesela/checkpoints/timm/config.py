"""Writer of timm's config.json for the hub, and the models that timm has a place for.

``architecture`` names a model that every timm has; ``model_args`` turn it into the one at hand.

Odd: timm's LayerNorms have an epsilon of 1e-6 that no argument changes. A smaller one (1e-12, of Hugging
Face's ViT) makes no difference that float32 shows and is let through with a remark; a larger one is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tesela.checkpoints.timm.names import TimmStyle
from tesela.core.errors import WeightsError
from tesela.imaging.spec import ImageSpec, timm_sides

_FITTING: dict[str, tuple[Any, ...]] = {
    "norm": ("pre",),
    "position": ("learned", "none"),
    "position_at": ("input",),
    "attention": ("full",),
    "pool": ("class", "mean", "attention"),
    "head": ("linear",),
    "position_mode": ("bicubic", "bicubic_antialias", "bicubic_offset"),
    "input_norm": ("none",),
}


def check_timm(family: str, fields: Mapping[str, Any]) -> list[str]:
    """Refuse a model that timm's VisionTransformer has no option for.

    Returns:
        remarks on what is not quite the same there.

    Raises:
        WeightsError: naming the option.
    """
    program = "timm's VisionTransformer"
    if family not in ("vit", "deit"):
        raise WeightsError(
            f"{program} has no place for a model of the family {family!r}", hint="ViT and DeiT models fit"
        )
    for name, known in _FITTING.items():
        if fields[name] not in known:
            fit = " or ".join(f"{name}={value}" for value in known)
            raise WeightsError(f"{program} has no {name}={fields[name]}", hint=f"only models with {fit} fit")
    if family == "vit" and fields["distillation"]:
        raise WeightsError(
            f"{program} has no distillation token without a head of its own",
            hint="train a deit model instead",
        )
    if family == "deit" and (fields["pooled_norm"] or fields["registers"]):
        raise WeightsError(f"{program} has no DeiT with registers or pooled_norm", hint="train without them")
    if fields["final_norm"] and fields["pooled_norm"]:
        raise WeightsError(
            f"{program} has one last norm, before or after the pool",
            hint="set final_norm or pooled_norm, not both",
        )
    if fields["mlp"] == "swiglu" and fields["pool"] == "attention":
        raise WeightsError(
            f"{program} has no mlp=swiglu beside pool=attention: its pool's MLP is twice as wide",
            hint="train with another pool or mlp=plain",
        )
    if fields["norm_eps"] > 1e-6:
        raise WeightsError(
            f"{program} has no norm_eps={fields['norm_eps']}", hint="only models with norm_eps=1e-6 fit"
        )
    remarks = []
    if fields["norm_eps"] != 1e-6:
        remarks.append(
            f"timm computes LayerNorms with an epsilon of 1e-6, the model with {fields['norm_eps']}"
        )
    if fields["position"] == "learned" and fields["position_mode"] != "bicubic_antialias":
        remarks.append(
            "at other image sizes timm interpolates positions with antialiasing, the model without"
        )
    return remarks


def style_for(fields: Mapping[str, Any], known: Mapping[str, Any] | None = None) -> TimmStyle:
    """Style in which timm would keep a model of ours.

    Args:
        fields: all fields of the configuration.
        known: the style of the timm checkpoint the model comes from.
    """
    if known and not known.get("official"):
        style = TimmStyle(**known)
        if not style.folded_class or fields["registers"] > 0:
            return style
    special = fields["pool"] == "class"
    rows = special and fields["prefix_positions"] and fields["position"] == "learned"
    return TimmStyle(class_row=rows, register_rows=rows and fields["registers"] > 0)


def timm_config(
    family: str,
    fields: Mapping[str, Any],
    style: TimmStyle,
    *,
    image: ImageSpec,
    labels: list[str],
    license: str,
    base: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The config.json.

    Args:
        family: ``vit`` or ``deit``.
        fields: all fields of the configuration.
        style: as ``style_for`` says.
        image: the preprocessing.
        labels: of the classes.
        license: of the weights.
        base: the config.json the model comes with from timm; its other entries stay.

    Raises:
        WeightsError: the preprocessing has no place there.
    """
    pretrained = _preprocessing(image)
    base = dict(base or {})
    gated = fields["mlp"] == "swiglu"
    usual = (
        "vit_giant_patch14_dinov2"
        if gated
        else "deit_base_distilled_patch16_224"
        if family == "deit"
        else "vit_base_patch16_224"
    )
    return {
        **base,
        "architecture": base.get("architecture") or usual,
        "num_classes": len(labels) if style.head else 0,
        "num_features": fields["width"],
        "global_pool": _POOLS[fields["pool"]],
        "label_names": labels,
        "model_args": dict(base.get("model_args") or {}) | _arguments(family, fields, style, gated=gated),
        "pretrained_cfg": {
            **(base.get("pretrained_cfg") or {}),
            "num_classes": len(labels) if style.head else 0,
            "input_size": [image.channels, image.height, image.width],
            "fixed_input_size": True,
            "interpolation": image.interpolation,
            **pretrained,
            "mean": list(image.mean),
            "std": list(image.std),
            "license": license,
            "first_conv": "patch_embed.proj",
            "classifier": ["head", "head_dist"] if family == "deit" else "head",
        },
    }


def _preprocessing(image: ImageSpec) -> dict[str, Any]:
    """crop_pct and crop_mode, with which timm resizes to the same whole pixels where it can.

    Raises:
        WeightsError: timm has no equal.
    """
    mode = {"crop": "center", "squash": "squash", "pad": "border"}.get(image.resize)
    if mode is None or (mode == "border" and image.arithmetic != "timm"):
        raise WeightsError(
            f"timm has no place for resize={image.resize}", hint="only models with resize squash or crop fit"
        )
    if image.arithmetic == "exact":
        return {"crop_pct": image.crop_ratio if mode == "center" else 1.0, "crop_mode": mode}
    pct = image.crop_ratio
    if timm_sides(image.size, pct, resize=image.resize) != image.resized:
        pct = math.nextafter(image.height / image.resized[0], 0)
    if timm_sides(image.size, pct, resize=image.resize) != image.resized:
        raise WeightsError(
            f"timm has no crop_pct that resizes images to {image.resized} for a view of {image.size}",
            hint="only one ratio for both sides has a place there",
        )
    return {"crop_pct": pct, "crop_mode": mode}


_POOLS = {"class": "token", "mean": "avg", "attention": "map"}


def _arguments(family: str, fields: Mapping[str, Any], style: TimmStyle, *, gated: bool) -> dict[str, Any]:
    """Arguments of timm's constructor."""
    hidden = round(fields["width"] * fields["mlp_ratio"])
    arguments: dict[str, Any] = {
        "img_size": list(fields["image_size"]),
        "patch_size": _side(fields["patch_size"]),
        "in_chans": fields["channels"],
        "embed_dim": fields["width"],
        "depth": fields["depth"],
        "num_heads": fields["heads"],
        "mlp_ratio": ratio(fields["width"], 2 * hidden if gated else hidden),
        "qkv_bias": fields["qkv_bias"],
        "init_values": fields["layer_scale"] or None,
    }
    if not gated:
        arguments["act_layer"] = fields["activation"]
    if family == "deit":
        return arguments
    token = fields["pool"] == "class" or style.folded_class
    return arguments | {
        "class_token": token,
        "no_embed_class": not style.class_row,
        "reg_tokens": fields["registers"] - style.folded_class,
        "global_pool": _POOLS[fields["pool"]],
        "pool_include_prefix": fields["pool"] == "attention" and fields["pool_prefix"],
        "fc_norm": fields["pooled_norm"],
        "final_norm": fields["final_norm"] or fields["pooled_norm"],
        "pos_embed": "learn" if fields["position"] == "learned" else "none",
    }


def ratio(width: int, hidden: int) -> float:
    """The ratio of which ``int(width * ratio)`` is ``hidden``."""
    found = hidden / width
    while int(width * found) < hidden:
        found = math.nextafter(found, math.inf)
    return found


def _side(sizes: Any) -> int | list[int]:
    return int(sizes[0]) if sizes[0] == sizes[1] else [int(side) for side in sizes]
