"""Classes of transformers beside ViT, DeiT and DINOv2 that are read, and their fields.

DINOv3, SigLIP, CLIP's vision tower, MAE, MSN, I-JEPA, BEiT, Data2Vec, AIMv2 and Pixio. Every option of their
config.json that changes the result is computed as it says or refused by its name.

Odd: a bare body has no classifier; the pool that its library would take (``pooler_output``) is taken.
CLIP's classifier averages tokens that its last norm never saw. AIMv2's own pooling has no equal here, so
its patches are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tesela.checkpoints.huggingface.config import activation_name, gated_activation, pair, refuse_changed
from tesela.core.errors import WeightsError


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneClass:
    """A class of transformers.

    Attributes:
        family: of those that share names and fields.
        model_types: of its config.json.
        prefix: of the body's names; empty for a bare model.
        head: whether it has a classifier, or parts beside the body.
        nested: whether the fields stand in ``vision_config``.
    """

    family: str
    model_types: tuple[str, ...]
    prefix: str = ""
    head: Literal["classifier", "other", "none"] = "none"
    nested: bool = False


_TOWER = "vision_model."


def _towers(family: str, name: str) -> dict[str, BackboneClass]:
    types = (family, f"{family}_vision_model")
    return {
        f"{name}ForImageClassification": BackboneClass(
            family=family, model_types=types, prefix=_TOWER, head="classifier", nested=True
        ),
        f"{name}Model": BackboneClass(
            family=family, model_types=types, prefix=_TOWER, head="other", nested=True
        ),
        f"{name}VisionModel": BackboneClass(family=family, model_types=types),
    }


def _bodies(family: str, name: str, prefix: str, *, model_type: str = "") -> dict[str, BackboneClass]:
    types = (model_type or family,)
    return {
        f"{name}Model": BackboneClass(family=family, model_types=types),
        f"{name}ForImageClassification": BackboneClass(
            family=family, model_types=types, prefix=prefix, head="classifier"
        ),
    }


BACKBONES: dict[str, BackboneClass] = {
    "DINOv3ViTModel": BackboneClass(family="dinov3", model_types=("dinov3_vit",)),
    **_towers("siglip", "Siglip"),
    **_towers("clip", "CLIP"),
    "CLIPVisionModelWithProjection": BackboneClass(
        family="clip", model_types=("clip_vision_model", "clip"), prefix=_TOWER, head="other"
    ),
    "ViTMAEModel": BackboneClass(family="mae", model_types=("vit_mae",)),
    "ViTMAEForPreTraining": BackboneClass(
        family="mae", model_types=("vit_mae",), prefix="vit.", head="other"
    ),
    **_bodies("msn", "ViTMSN", "vit.", model_type="vit_msn"),
    **_bodies("ijepa", "IJepa", "ijepa."),
    **_bodies("beit", "Beit", "beit."),
    "BeitForMaskedImageModeling": BackboneClass(
        family="beit", model_types=("beit",), prefix="beit.", head="other"
    ),
    **_bodies("beit", "Data2VecVision", "data2vec_vision.", model_type="data2vec-vision"),
    "PixioModel": BackboneClass(family="pixio", model_types=("pixio",)),
    "Aimv2VisionModel": BackboneClass(family="aimv2", model_types=("aimv2_vision_model",)),
}


def backbone_name(config: Mapping[str, Any]) -> str | None:
    """The entry of ``BACKBONES`` that a config.json is of; None if it is of none."""
    stated = config.get("architectures")
    if isinstance(stated, list) and stated:
        return str(stated[0]) if stated[0] in BACKBONES else None
    kinds: list[str | None] = [
        name for name, kind in BACKBONES.items() if config.get("model_type") in kind.model_types
    ]
    bare = [name for name in kinds if name and BACKBONES[name].head == "none"]
    return (bare or kinds or [None])[0]


def backbone_fields(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The fields of our configuration.

    Args:
        config: config.json.
        name: an entry of ``BACKBONES``.

    Raises:
        WeightsError: the config uses what we have not, or is damaged.
    """
    kind = BACKBONES[name]
    refuse_changed(config)
    if config.get("model_type") not in (None, *kind.model_types):
        raise WeightsError(
            f"config.json states model_type={config['model_type']!r} and the architecture {name}",
            hint="use the config.json that came with the weights",
        )
    vision = config.get("vision_config") if kind.nested or "vision_config" in config else config
    try:
        stated = {**_DEFAULTS[kind.family], **dict(vision or {})}
        return _common(stated) | _FIELDS[kind.family](stated, kind.head == "classifier")
    except (TypeError, ValueError, ZeroDivisionError, IndexError, KeyError) as error:
        raise WeightsError(
            f"config.json does not make sense: {error!r}",
            hint="use the config.json that came with the weights",
        ) from error


def _common(stated: Mapping[str, Any]) -> dict[str, Any]:
    width = int(stated["hidden_size"])
    hidden = int(
        stated["intermediate_size"] if "intermediate_size" in stated else width * stated["mlp_ratio"]
    )
    image, patch = pair(stated["image_size"]), pair(stated["patch_size"])
    return {
        "image_size": image,
        "patch_size": patch,
        "cut_edges": bool(image[0] % patch[0] or image[1] % patch[1]),
        "channels": int(stated["num_channels"]),
        "width": width,
        "depth": int(stated["num_hidden_layers"]),
        "heads": int(stated["num_attention_heads"]),
        "mlp_ratio": hidden / width,
        "norm_eps": float(stated.get("layer_norm_eps", 1e-6)),
        "qkv_bias": bool(stated.get("qkv_bias", True)),
        "dropout": float(stated.get("hidden_dropout_prob", 0.0)),
        "attention_dropout": float(
            stated.get("attention_probs_dropout_prob", stated.get("attention_dropout", 0.0))
        ),
        "position_mode": "bicubic",
    }


def _dinov3(stated: Mapping[str, Any], classifier: bool) -> dict[str, Any]:
    del classifier
    biases = tuple(bool(stated[f"{part}_bias"]) for part in ("query", "key", "value"))
    _fixed(stated, "query_bias", biases[2])
    _fixed(stated, "mlp_bias", bool(stated["proj_bias"]))
    gated = bool(stated["use_gated_mlp"])
    theta = stated.get("rope_theta") or (stated.get("rope_parameters") or {}).get("rope_theta", 100.0)
    return {
        "qkv_bias": biases[0] or biases[1],
        "dense_bias": bool(stated["proj_bias"]),
        "mlp": "swiglu" if gated else "plain",
        "activation": gated_activation(stated["hidden_act"])
        if gated
        else activation_name(stated["hidden_act"]),
        "layer_scale": float(stated["layerscale_value"]) or 1.0,
        "drop_path": float(stated["drop_path_rate"]),
        "registers": int(stated["num_register_tokens"]),
        "position": "rotary",
        "rotary_places": "centred",
        "rotary_base": float(theta),
        "pool": "class",
    }


def _siglip(stated: Mapping[str, Any], classifier: bool) -> dict[str, Any]:
    pooled = bool(stated["vision_use_head"]) and not classifier
    return {
        "activation": activation_name(stated["hidden_act"]),
        "pool": "attention" if pooled else "mean",
    }


def _clip(stated: Mapping[str, Any], classifier: bool) -> dict[str, Any]:
    return {
        "activation": activation_name(stated["hidden_act"]),
        "embedded_norm": "tokens",
        "patch_bias": False,
        "pool": "mean" if classifier else "class",
        "registers": int(classifier),
        "prefix_positions": not classifier,
        "final_norm": not classifier,
    }


def _plain(stated: Mapping[str, Any], classifier: bool) -> dict[str, Any]:
    del classifier
    return {"activation": activation_name(stated["hidden_act"])}


def _pixio(stated: Mapping[str, Any], classifier: bool) -> dict[str, Any]:
    return _plain(stated, classifier) | {
        "drop_path": float(stated["drop_path_rate"]),
        "pool": "class",
        "class_tokens": int(stated["n_cls_tokens"]),
    }


def _ijepa(stated: Mapping[str, Any], classifier: bool) -> dict[str, Any]:
    return _plain(stated, classifier) | {"pool": "mean", "prefix_positions": False}


def _beit(stated: Mapping[str, Any], classifier: bool) -> dict[str, Any]:
    del classifier
    _fixed(stated, "use_shared_relative_position_bias", False)
    table, bias = stated["use_absolute_position_embeddings"], stated["use_relative_position_bias"]
    if table and bias:
        raise WeightsError(
            "learned positions beside relative ones (use_absolute_position_embeddings and "
            "use_relative_position_bias) are not computed here",
            hint="another program has to run this one",
        )
    image, patch = pair(stated["image_size"]), pair(stated["patch_size"])
    if bias and image[0] // patch[0] != image[1] // patch[1]:
        raise WeightsError(
            "transformers mixes up rows and columns of relative positions on a grid that is not square",
            hint="only models with a square grid are read",
        )
    mean = bool(stated["use_mean_pooling"])
    return {
        "activation": activation_name(stated["hidden_act"]),
        "layer_scale": max(0.0, float(stated["layer_scale_init_value"])),
        "drop_path": float(stated["drop_path_rate"]),
        "position": "offset_bias" if bias else "learned" if table else "none",
        "pool": "mean" if mean else "class",
        "registers": int(mean),
        "prefix_positions": not mean,
        "final_norm": not mean,
        "pooled_norm": mean,
    }


def _aimv2(stated: Mapping[str, Any], classifier: bool) -> dict[str, Any]:
    del classifier
    _fixed(stated, "is_native", False)
    gated_activation(stated["hidden_act"])
    return {
        "norm_kind": "rms",
        "norm_eps": float(stated["rms_norm_eps"]),
        "embedded_norm": "patches",
        "mlp": "swiglu",
        "dense_bias": bool(stated["mlp_bias"]),
        "qkv_bias": _fixed(stated, "qkv_bias", bool(stated["mlp_bias"])),
        "pool": "mean",
    }


def _fixed(stated: Mapping[str, Any], name: str, value: bool) -> bool:
    """The value of an option that has no other here."""
    if bool(stated[name]) is not value:
        raise WeightsError(
            f"{name}={stated[name]!r} in config.json is not computed here",
            hint="another program has to run this one",
        )
    return value


_SHAPE: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "gelu",
}
_OLDER: dict[str, Any] = {**_SHAPE, "layer_norm_eps": 1e-12}
#: What each configuration of transformers has where config.json says nothing.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "dinov3": {
        **_SHAPE,
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_attention_heads": 6,
        "layer_norm_eps": 1e-5,
        "query_bias": True,
        "key_bias": False,
        "value_bias": True,
        "proj_bias": True,
        "mlp_bias": True,
        "layerscale_value": 1.0,
        "drop_path_rate": 0.0,
        "use_gated_mlp": False,
        "num_register_tokens": 0,
    },
    "siglip": {
        **_SHAPE,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "vision_use_head": True,
    },
    "clip": {**_SHAPE, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    "mae": _OLDER,
    "msn": {**_SHAPE, "layer_norm_eps": 1e-6},
    "ijepa": _OLDER,
    "pixio": {
        **{name: value for name, value in _SHAPE.items() if name != "intermediate_size"},
        "hidden_size": 1280,
        "mlp_ratio": 4,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "image_size": 256,
        "layer_norm_eps": 1e-6,
        "drop_path_rate": 0.0,
        "n_cls_tokens": 8,
    },
    "beit": {
        **_OLDER,
        "use_absolute_position_embeddings": False,
        "use_relative_position_bias": False,
        "use_shared_relative_position_bias": False,
        "layer_scale_init_value": 0.1,
        "drop_path_rate": 0.1,
        "use_mean_pooling": True,
    },
    "aimv2": {
        **_SHAPE,
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 24,
        "num_attention_heads": 8,
        "patch_size": 14,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "qkv_bias": False,
        "mlp_bias": False,
        "is_native": False,
    },
}
_FIELDS = {
    "dinov3": _dinov3,
    "siglip": _siglip,
    "clip": _clip,
    "mae": _plain,
    "msn": _plain,
    "ijepa": _ijepa,
    "pixio": _pixio,
    "beit": _beit,
    "aimv2": _aimv2,
}
