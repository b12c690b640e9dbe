"""Arguments of timm's constructors for a model of ours: common ones, Eva's and Beit's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tesela.checkpoints.timm.names import TimmStyle

#: Our pools, and timm's.
POOLS = {"class": "token", "mean": "avg", "attention": "map"}


def shape_arguments(fields: Mapping[str, Any], *, packed: bool) -> dict[str, Any]:
    """Arguments that every class has.

    Args:
        fields: all fields of our configuration.
        packed: whether gate and value of a gated MLP are one tensor there, whose width is meant.
    """
    hidden = round(fields["width"] * fields["mlp_ratio"])
    wide = packed and fields["mlp"] == "swiglu"
    return {
        "img_size": list(fields["image_size"]),
        "patch_size": _side(fields["patch_size"]),
        "in_chans": fields["channels"],
        "embed_dim": fields["width"],
        "depth": fields["depth"],
        "num_heads": fields["heads"],
        "mlp_ratio": ratio(fields["width"], 2 * hidden if wide else hidden),
        "qkv_bias": fields["qkv_bias"],
        "init_values": fields["layer_scale"] or None,
    }


def other_arguments(family: str, fields: Mapping[str, Any], style: TimmStyle) -> dict[str, Any]:
    """Arguments of Eva or Beit.

    Args:
        family: of ours, always ``vit``.
        fields: all fields of our configuration.
        style: naming variants.
    """
    del family
    gated = fields["mlp"] == "swiglu"
    common = {
        **shape_arguments(fields, packed=False),
        "global_pool": POOLS[fields["pool"]],
        "swiglu_mlp": gated,
        "scale_mlp": fields["inner_norm"] != "none",
        "use_fc_norm": fields["pooled_norm"],
        "use_abs_pos_emb": str(fields["position"]).startswith("learned"),
    }
    if style.kind == "Beit":
        return common | {"use_rel_pos_bias": True}
    pooled = fields["pool"] == "attention"
    biased = fields["qkv_bias"] and not style.split_bias
    return common | {
        **({"attn_type": "rope"} if biased else {"attn_type": "eva"} if style.split_bias else {}),
        **_rotation(fields, style),
        "qkv_fused": not style.split_qkv,
        "swiglu_align_to": int(gated and style.split_gate),
        "scale_attn_inner": fields["inner_norm"] == "both",
        "class_token": fields["pool"] == "class" or style.folded_class,
        "num_reg_tokens": fields["registers"] - style.folded_class,
        "no_embed_class": not (style.class_row or style.register_rows),
        "use_post_norm": fields["norm"] == "branch",
        "use_pre_transformer_norm": fields["embedded_norm"] == "tokens",
        "use_post_transformer_norm": fields["final_norm"],
        "attn_pool_num_heads": (fields["pool_heads"] or fields["heads"]) if pooled else None,
        "attn_pool_mlp_ratio": (fields["pool_mlp_ratio"] or fields["mlp_ratio"]) if pooled else None,
    }


def _rotation(fields: Mapping[str, Any], style: TimmStyle) -> dict[str, Any]:
    """Arguments of rotary positions."""
    rotates = str(fields["position"]).endswith("rotary")
    if not rotates:
        return {"use_rot_pos_emb": False}
    reference = fields["rotary_places"] == "reference"
    return {
        "use_rot_pos_emb": True,
        "rope_type": "dinov3" if fields["rotary_places"] == "centred" else "cat",
        "rope_temperature": fields["rotary_base"],
        "rope_grid_offset": fields["rotary_offset"],
        "rope_grid_indexing": "xy" if style.rotary.endswith("_xy") else "ij",
        "rope_rotate_half": style.rotary.startswith("half"),
        "ref_feat_shape": list(fields["rotary_grid"]) if reference else None,
    }


def ratio(width: int, hidden: int) -> float:
    """The ratio of which ``int(width * ratio)`` is ``hidden``."""
    found = hidden / width
    while int(width * found) < hidden:
        found = math.nextafter(found, math.inf)
    return found


def _side(sizes: Any) -> int | list[int]:
    return int(sizes[0]) if sizes[0] == sizes[1] else [int(side) for side in sizes]
