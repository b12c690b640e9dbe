"""Fields that a checkpoint of timm's Eva or Beit implies: EVA-02, DINOv3, PE, BEiT.

What turns, and how fast, is in no tensor; the architecture's arguments say it. Every argument is computed
as it says or refused by its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tesela.checkpoints.image_size import native_size
from tesela.checkpoints.timm.arguments import HARMLESS, norm_of
from tesela.checkpoints.timm.fields import inner_norm_of, shape_of
from tesela.checkpoints.timm.names import TimmStyle
from tesela.core.errors import WeightsError

#: Arguments whose effect stands in the tensors: what is there is computed.
_SHOWN = frozenset(
    (
        *(
            "patch_size",
            "in_chans",
            "embed_dim",
            "depth",
            "mlp_ratio",
            "qkv_bias",
            "qkv_fused",
            "class_token",
        ),
        *("num_reg_tokens", "use_abs_pos_emb", "use_rel_pos_bias", "scale_mlp", "scale_attn_inner"),
        *("use_pre_transformer_norm", "use_post_transformer_norm", "use_fc_norm", "swiglu_align_to"),
        *("swiglu_mlp", "attn_pool_mlp_ratio", "init_values", "attn_type", "head_init_scale", "num_classes"),
    )
)
#: Arguments that are computed here as they say.
_COMPUTED = frozenset(
    (
        *("use_rot_pos_emb", "rope_type", "rope_temperature", "rope_rotate_half", "rope_grid_indexing"),
        *(
            "ref_feat_shape",
            "rope_grid_offset",
            "use_post_norm",
            "norm_layer",
            "attn_pool_num_heads",
            "no_embed_class",
        ),
    )
)
#: Arguments that matter while training alone.
_TRAINING = frozenset(("rope_shift_coords", "rope_jitter_coords", "rope_rescale_coords"))
#: Arguments of which there are these values alone.
_FIXED: dict[str, tuple[Any, ...]] = {
    "num_kv_heads": (None,),
    "attn_only_layer_scale": (False,),
    "qk_norm": (False,),
    "rope_mrope_section": (None,),
    "use_shared_rel_pos_bias": (False,),
    "dynamic_img_pad": (False,),
}
_POOLS = {"avg": "mean", "token": "class", "map": "attention"}


def eva_fields(
    kind: str,
    tensors: Mapping[str, Tensor],
    *,
    arguments: Mapping[str, Any],
    image_size: tuple[int, int] | None = None,
) -> tuple[dict[str, Any], TimmStyle]:
    """The fields of our configuration, and the style.

    Args:
        kind: ``Eva`` or ``Beit``.
        tensors: the checkpoint.
        arguments: of the class's constructor, those of the architecture included.
        image_size: (height, width) where the user says so.

    Raises:
        WeightsError: it uses what we have not, or the config does not fit the tensors.
    """
    _check(kind, arguments)
    width, channels, *patch = shape_of(tensors, "patch_embed.proj.weight", 4)
    token = "cls_token" in tensors
    registers = tensors["reg_token"].shape[1] if "reg_token" in tensors else 0
    pool = _pool(arguments, token=token)
    folded = token and pool != "class"
    rows = "pos_embed" in tensors and not arguments.get("no_embed_class")
    prefix = token + registers if rows else 0
    split_qkv = "blocks.0.attn.q_proj.weight" in tensors
    keys = f"blocks.0.attn.{'k_proj' if split_qkv else 'qkv'}.bias" in tensors
    query = f"blocks.0.attn.{'q_proj.bias' if split_qkv else 'q_bias'}" in tensors
    hidden = shape_of(tensors, "blocks.0.mlp.fc2.weight", 2)[1]
    split_gate = "blocks.0.mlp.fc1_g.weight" in tensors
    gated = split_gate or shape_of(tensors, "blocks.0.mlp.fc1.weight", 2)[0] == 2 * hidden
    norm_kind, norm_eps = norm_of(arguments.get("norm_layer"))
    rotation, order = _rotation(arguments)
    image, position = _positions(tensors, arguments, (patch[0], patch[1]), prefix, image_size)
    if rotation:
        position = "learned_rotary" if position == "learned" else "rotary"
    fields: dict[str, Any] = {
        "image_size": image,
        "patch_size": (patch[0], patch[1]),
        "channels": channels,
        "width": width,
        "depth": 1 + max(int(found[1]) for name in tensors if (found := re.match(r"blocks\.(\d+)\.", name))),
        "heads": arguments.get("num_heads", 12),
        "mlp": "swiglu" if gated else "plain",
        "mlp_ratio": hidden / width,
        "activation": "gelu",
        "qkv_bias": keys or query,
        "norm": "branch" if arguments.get("use_post_norm") else "pre",
        "norm_kind": norm_kind,
        "norm_eps": norm_eps,
        "embedded_norm": "tokens" if "norm_pre.weight" in tensors else "none",
        "cut_edges": image[0] % patch[-2] != 0 or image[1] % patch[-1] != 0,
        "patch_bias": "patch_embed.proj.bias" in tensors,
        "inner_norm": inner_norm_of(tensors),
        "layer_scale": float(arguments.get("init_values") or 1e-5) if "blocks.0.gamma_1" in tensors else 0.0,
        "final_norm": "norm.weight" in tensors,
        "pooled_norm": "fc_norm.weight" in tensors,
        "pool": pool,
        "pool_prefix": True,
        "registers": registers + folded,
        "position": position,
        "prefix_positions": prefix > 0 and not folded,
        "position_mode": "bicubic_antialias",
        **rotation,
    }
    if pool == "attention":
        pooling = shape_of(tensors, "attn_pool.mlp.fc1.weight", 2)[0]
        fields |= {
            "pool_heads": int(arguments.get("attn_pool_num_heads") or 0),
            "pool_mlp_ratio": pooling / width,
        }
    _check_depth(arguments, fields)
    return fields, TimmStyle(
        kind=kind,
        class_row=token and prefix > 0,
        register_rows=registers > 0 and prefix > 0,
        folded_class=folded,
        split_bias=query and not keys,
        split_qkv=split_qkv,
        split_gate=split_gate,
        flat_scale=True,
        rotary=order if rotation else "",
        head="head.weight" in tensors,
    )


def _check(kind: str, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that are computed otherwise or not known."""
    for name, value in arguments.items():
        if name in _FIXED:
            if value not in _FIXED[name]:
                raise WeightsError(
                    f"timm's {name}={value!r} of {kind} is not computed here",
                    hint="another program has to run this one",
                )
        elif name not in HARMLESS | _SHOWN | _COMPUTED | _TRAINING:
            raise WeightsError(
                f"timm's argument {name}={value!r} is not known, and may change the result",
                hint=f"take {name} out of model_args in config.json if it does not",
            )


def _check_depth(arguments: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Refuse a number of blocks or a width other than the architecture's."""
    for name, own in (("depth", "depth"), ("embed_dim", "width")):
        stated = arguments.get(name)
        if stated is not None and stated != fields[own]:
            raise WeightsError(
                f"the config states {name}={stated!r}, and the tensors are of {fields[own]!r}",
                hint="use the config.json that came with the weights",
            )


def _pool(arguments: Mapping[str, Any], *, token: bool) -> str:
    stated = arguments.get("global_pool") or "avg"
    if stated not in _POOLS or (stated == "token" and not token):
        raise WeightsError(
            f"the pooling {stated!r} is not known",
            hint="known are token, avg and map",
        )
    return _POOLS[stated]


def _rotation(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Our fields of rotary positions, and the order of the channels; nothing where there are none."""
    if not arguments.get("use_rot_pos_emb"):
        return {}, ""
    kind, offset = arguments.get("rope_type", "cat"), float(arguments.get("rope_grid_offset", 0.0))
    if kind not in ("cat", "dinov3"):
        raise WeightsError(
            f"timm's rope_type={kind!r} is not computed here", hint="another program has to run this one"
        )
    order = "half" if arguments.get("rope_rotate_half") else "interleaved"
    order += "_xy" if arguments.get("rope_grid_indexing") == "xy" else ""
    base = float(arguments.get("rope_temperature", 10000.0))
    fields: dict[str, Any] = {"rotary_base": base, "rotary_offset": offset}
    reference = arguments.get("ref_feat_shape")
    if kind == "dinov3":
        fields["rotary_places"] = "centred"
    elif reference is not None:
        sides = (reference, reference) if isinstance(reference, int) else reference
        fields |= {"rotary_places": "reference", "rotary_grid": (int(sides[0]), int(sides[1]))}
    return fields, order


def _positions(
    tensors: Mapping[str, Tensor],
    arguments: Mapping[str, Any],
    patch: tuple[int, int],
    prefix: int,
    image_size: tuple[int, int] | None,
) -> tuple[tuple[int, int], str]:
    """The image size that the tables belong to, and our name of what they are."""
    size = arguments.get("img_size", 224)
    wanted = image_size or ((size, size) if isinstance(size, int) else (int(size[0]), int(size[1])))
    bias = tensors.get("blocks.0.attn.relative_position_bias_table")
    if bias is not None and "pos_embed" in tensors:
        raise WeightsError(
            "learned positions beside an offset bias are not computed here",
            hint="another program has to run this one",
        )
    if bias is not None:
        grid = wanted[0] // patch[0], wanted[1] // patch[1]
        count = bias.shape[0] - 3
        if (2 * grid[0] - 1) * (2 * grid[1] - 1) == count:
            return wanted, "offset_bias"
        side = (math.isqrt(count) + 1) // 2
        return (side * patch[0], side * patch[1]), "offset_bias"
    if "pos_embed" in tensors:
        return native_size(shape_of(tensors, "pos_embed", 3)[1] - prefix, patch, wanted), "learned"
    return wanted, "none"
