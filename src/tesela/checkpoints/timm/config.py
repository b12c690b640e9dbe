"""Writer of timm's config.json for the hub, and the models that timm has a place for.

``architecture`` names a model that every timm has; ``model_args`` turn it into the one at hand.

Odd: no argument changes the epsilon of timm's norms; it comes with the architecture, 1e-6 or 1e-5. A
smaller one (1e-12, of Hugging Face's ViT) makes no difference that float32 shows and is let through with a
remark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tesela.checkpoints.timm.eva_arguments import POOLS, other_arguments, shape_arguments
from tesela.checkpoints.timm.hybrid import FITTING_HYBRIDS, HYBRIDS, hybrid_root
from tesela.checkpoints.timm.names import TimmStyle
from tesela.core.errors import WeightsError
from tesela.imaging.spec import ImageSpec, timm_sides

#: Module of a Vision Transformer that the image goes into.
_PATCHES = "patch_embed.proj"
_COMMON: dict[str, tuple[Any, ...]] = {
    "position_at": ("input",),
    "attention": ("full",),
    "pool": ("class", "mean", "attention"),
    "head": ("linear",),
    "class_tokens": (1,),
    "position_mode": ("bicubic", "bicubic_antialias", "bicubic_offset"),
    "input_norm": ("none",),
}
_FITTING: dict[str, dict[str, tuple[Any, ...]]] = {
    "VisionTransformer": {
        **_COMMON,
        "norm": ("pre", "branch", "parallel"),
        "position": ("learned", "none"),
    },
    "Eva": {
        **_COMMON,
        "norm": ("pre", "branch"),
        "position": ("rotary", "learned_rotary", "learned", "none"),
        "activation": ("gelu",),
        "dense_bias": (True,),
        "qk_norm": (False,),
        "embedded_norm": ("none", "tokens"),
    },
    "Beit": {
        **_COMMON,
        "norm": ("pre",),
        "position": ("offset_bias",),
        "pool": ("class", "mean"),
        "activation": ("gelu",),
        "dense_bias": (True,),
        "qk_norm": (False,),
        "embedded_norm": ("none",),
        "inner_norm": ("none", "mlp"),
        "patch_bias": (True,),
    },
}
#: Of a distilled model, whose class takes fewer arguments.
_FITTING_DISTILLED: dict[str, tuple[Any, ...]] = {
    "norm": ("pre",),
    "position": ("learned",),
    "prefix_positions": (True,),
    "embedded_norm": ("none",),
    "inner_norm": ("none",),
    "qk_norm": (False,),
    "dense_bias": (True,),
    "final_norm": (True,),
    "mlp": ("plain",),
}
#: Of blocks whose branches are parallel.
_FITTING_PARALLEL: dict[str, tuple[Any, ...]] = {
    "mlp": ("plain",),
    "inner_norm": ("none",),
    "dense_bias": (True,),
}
#: Architectures to change by arguments: by class (of a VisionTransformer with the place of the norms),
#: whether the MLP is gated, kind and epsilon of the norms.
_BASES = {
    ("VisionTransformer pre", False, "layer", 1e-6): "vit_base_patch16_224",
    ("VisionTransformer pre", False, "layer", 1e-5): "vit_base_patch16_clip_224",
    ("VisionTransformer pre", True, "layer", 1e-6): "vit_giant_patch14_dinov2",
    ("VisionTransformer branch", False, "layer", 1e-6): "vit_base_patch16_rpn_224",
    ("VisionTransformer parallel", False, "layer", 1e-6): "vit_pwee_patch16_reg1_gap_256",
    ("VisionTransformer parallel", False, "rms", 1e-6): "vit_base_patch16_xp_224",
    ("Eva", False, "layer", 1e-6): "vit_small_patch16_rope_224",
    ("Eva", False, "layer", 1e-5): "vit_small_patch16_dinov3",
    ("Eva", True, "layer", 1e-6): "eva02_small_patch14_224",
    ("Eva", True, "layer", 1e-5): "vit_small_plus_patch16_dinov3",
    ("Beit", False, "layer", 1e-6): "beit_base_patch16_224",
}


def timm_kind(fields: Mapping[str, Any], known: Mapping[str, Any] | None = None) -> str:
    """The class of timm that a model of ours is of.

    Args:
        fields: all fields of the configuration.
        known: the style of the timm checkpoint the model comes from.
    """
    if known and known.get("kind"):
        return str(known["kind"])
    position = str(fields.get("position", "none"))
    return (
        "Eva" if position.endswith("rotary") else "Beit" if position == "offset_bias" else "VisionTransformer"
    )


def check_timm(family: str, fields: Mapping[str, Any], *, kind: str = "VisionTransformer") -> list[str]:
    """Refuse a model that a class of timm has no option for.

    Returns:
        remarks on what is not quite the same there.

    Raises:
        WeightsError: naming the option.
    """
    program = f"timm's {kind}"
    if family not in ("vit", "deit", "hybrid"):
        raise WeightsError(
            f"{program} has no place for a model of the family {family!r}",
            hint="ViT, DeiT, hybrid, Swin, ConvNeXt, TinyViT and ResNet models fit",
        )
    more = {"hybrid": FITTING_HYBRIDS, "deit": _FITTING_DISTILLED}
    fitting = {**_FITTING[kind], **more.get(family, {})}
    for name, known in fitting.items():
        value = fields.get(name, known[0])
        value = tuple(value) if isinstance(value, list) else value
        if value not in known:
            fit = " or ".join(f"{name}={one}" for one in known)
            raise WeightsError(f"{program} has no {name}={value}", hint=f"only models with {fit} fit")
    if fields["norm"] == "parallel":
        for name, known in _FITTING_PARALLEL.items():
            if fields[name] not in known:
                raise WeightsError(
                    f"{program} has no {name}={fields[name]} beside norm=parallel",
                    hint=f"only models with {name}={known[0]} fit",
                )
    biased = fields["embedded_norm"] != "tokens" or kind == "Beit"
    if fields.get("patch_bias", True) is not biased:
        beside = f"embedded_norm={fields['embedded_norm']}"
        raise WeightsError(
            f"{program} has no patch_bias={fields.get('patch_bias', True)} beside {beside}",
            hint="only patches without a bias fit before a norm of the tokens, and with one elsewhere",
        )
    if family == "vit" and fields["distillation"]:
        raise WeightsError(
            f"{program} has no distillation token without a head of its own",
            hint="train a deit model instead",
        )
    if family == "deit" and (fields["pooled_norm"] or fields["registers"]):
        raise WeightsError(f"{program} has no DeiT with registers or pooled_norm", hint="train without them")
    if kind == "Beit" and fields["registers"] != (fields["pool"] != "class"):
        raise WeightsError(
            f"{program} has a class token and no registers", hint="only one register beside pool=mean fits"
        )
    if fields["final_norm"] and fields["pooled_norm"]:
        raise WeightsError(
            f"{program} has one last norm, before or after the pool",
            hint="set final_norm or pooled_norm, not both",
        )
    if kind == "VisionTransformer" and fields["mlp"] == "swiglu" and fields["pool"] == "attention":
        raise WeightsError(
            f"{program} has no mlp=swiglu beside pool=attention: its pool's MLP is twice as wide",
            hint="train with another pool or mlp=plain",
        )
    if fields["norm_eps"] not in (1e-6, 1e-5) and fields["norm_eps"] > 1e-6:
        raise WeightsError(
            f"{program} has no norm_eps={fields['norm_eps']}",
            hint="only models with norm_eps 1e-6 or 1e-5 fit",
        )
    remarks = []
    if fields["norm_eps"] < 1e-6:
        remarks.append(
            f"timm computes LayerNorms with an epsilon of 1e-6, the model with {fields['norm_eps']}"
        )
    if str(fields["position"]).startswith("learned") and fields["position_mode"] != "bicubic_antialias":
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
    kind, special = timm_kind(fields), fields["pool"] == "class"
    rows = special and fields["prefix_positions"] and str(fields["position"]).startswith("learned")
    return TimmStyle(
        kind=kind,
        folded_class=kind == "Beit" and not special,
        class_row=rows,
        register_rows=rows and fields["registers"] > 0,
        flat_scale=kind != "VisionTransformer",
        split_bias=kind == "Beit" and fields["qkv_bias"],
        split_gate=kind == "Eva" and fields["mlp"] == "swiglu" and fields["inner_norm"] != "none",
        rotary="interleaved" if kind == "Eva" and str(fields["position"]).endswith("rotary") else "",
    )


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
        family: ``vit``, ``deit`` or ``hybrid``.
        fields: all fields of the configuration.
        style: as ``style_for`` says.
        image: the preprocessing.
        labels: of the classes.
        license: of the weights.
        base: the config.json the model comes with from timm; its other entries stay.

    Raises:
        WeightsError: the preprocessing has no place there.
    """
    base, classes = dict(base or {}), len(labels) if style.head else 0
    gated = fields["mlp"] == "swiglu"
    architecture = base.get("architecture") or _base(family, fields, style.kind, gated=gated)
    make = _arguments if style.kind == "VisionTransformer" else other_arguments
    return {
        **base,
        "architecture": architecture,
        "num_classes": classes,
        "num_features": fields["width"],
        "global_pool": POOLS[fields["pool"]],
        "label_names": labels,
        "model_args": dict(base.get("model_args") or {}) | make(family, fields, style),
        "pretrained_cfg": pretrained_cfg(
            image,
            classes=classes,
            license=license,
            classifier=["head", "head_dist"] if family == "deit" else "head",
            base=base,
            first_conv=hybrid_root(fields["stages"]) if family == "hybrid" else _PATCHES,
        ),
    }


def pretrained_cfg(
    image: ImageSpec,
    *,
    classes: int,
    license: str,
    classifier: str | list[str],
    base: Mapping[str, Any],
    first_conv: str = _PATCHES,
    fixed: bool = True,
) -> dict[str, Any]:
    """The entry of config.json that says how a model sees images.

    Args:
        image: the preprocessing.
        classes: of the classifier; 0 without one.
        license: of the weights.
        classifier: name of its module.
        base: the config.json the model comes with from timm; its other entries stay.
        first_conv: name of the module that the image goes into.
        fixed: whether the model is made for one image size, an argument of its class.

    Raises:
        WeightsError: the preprocessing has no place there.
    """
    return {
        **(base.get("pretrained_cfg") or {}),
        "num_classes": classes,
        "input_size": [image.channels, image.height, image.width],
        "fixed_input_size": fixed,
        "interpolation": image.interpolation,
        **_preprocessing(image),
        "mean": list(image.mean),
        "std": list(image.std),
        "license": license,
        "first_conv": first_conv,
        "classifier": classifier,
    }


def _base(family: str, fields: Mapping[str, Any], kind: str, *, gated: bool) -> str:
    """The architecture that the arguments are to change.

    Raises:
        WeightsError: none has these norms.
    """
    eps, norms = max(fields["norm_eps"], 1e-6), fields["norm_kind"]
    fixed = {
        "deit": "deit_base_distilled_patch16_224",
        "hybrid": HYBRIDS.get(tuple(fields.get("stages", ()))),
    }.get(family)
    placed = f"{kind} {fields['norm']}" if kind == "VisionTransformer" else kind
    found = _BASES.get((placed, gated, norms, eps)) if fixed is None else fixed
    if fields["embedded_norm"] == "patches" or (fixed is not None and (norms, eps) != ("layer", 1e-6)):
        found = None
    if found is None:
        raise WeightsError(
            f"timm has no {family} of its {kind} with norm={fields['norm']}, norm_kind={norms}, "
            f"norm_eps={eps}, embedded_norm={fields['embedded_norm']} and mlp={fields['mlp']}",
            hint="only models with LayerNorms and an epsilon of 1e-6 fit in any case",
        )
    return found


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


def _arguments(family: str, fields: Mapping[str, Any], style: TimmStyle) -> dict[str, Any]:
    """Arguments of the constructor of timm's VisionTransformer."""
    arguments = shape_arguments(fields, packed=not style.split_gate)
    if fields["norm"] == "branch":
        arguments["init_values"] = 1e-5
    if fields["mlp"] != "swiglu":
        arguments["act_layer"] = fields["activation"]
    if family == "deit":
        return arguments
    token = fields["pool"] == "class" or style.folded_class
    return arguments | {
        "class_token": token,
        "no_embed_class": not (style.class_row or style.register_rows),
        "reg_tokens": fields["registers"] - style.folded_class,
        "global_pool": POOLS[fields["pool"]],
        "pre_norm": fields["embedded_norm"] == "tokens",
        "qk_norm": fields["qk_norm"],
        "scale_attn_norm": fields["inner_norm"] == "both",
        "scale_mlp_norm": fields["inner_norm"] != "none",
        "proj_bias": fields["dense_bias"],
        "pool_include_prefix": fields["pool"] == "attention" and fields["pool_prefix"],
        "fc_norm": fields["pooled_norm"],
        "final_norm": fields["final_norm"] or fields["pooled_norm"],
        "pos_embed": "learn" if fields["position"] == "learned" else "none",
    }
