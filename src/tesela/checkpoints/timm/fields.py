"""Fields of our configuration that a checkpoint of timm's VisionTransformer implies.

Odd: the number of heads is in no shape. It is taken from the architecture or the config, else from the
table of published widths, else 64 numbers per head. What only newer architectures have (a norm before the
blocks, norms of queries and keys, ...) goes with activations and epsilons of their own, so that a file
alone is not enough.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tesela.checkpoints.image_size import native_size, square_size
from tesela.checkpoints.timm.arguments import (
    REGISTER_NAMES,
    activation_of,
    check_arguments,
    check_fixed,
    norm_of,
)
from tesela.checkpoints.timm.hybrid import hybrid_fields, hybrid_step
from tesela.checkpoints.timm.names import TimmStyle
from tesela.checkpoints.timm.parallel import FUSED, PARALLEL, as_plain, check_block
from tesela.core.errors import WeightsError

#: Widths whose published models have heads of another width than 64.
PUBLISHED_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}
#: Our ``norm`` of timm's blocks; of the usual one ``pre``.
_NORM_PLACES = {"ResPostBlock": "branch", PARALLEL: "parallel"}
#: Tensors of options that a file without an architecture leaves half open.
_NEWER = (
    "norm_pre.weight",
    "patch_embed.norm.weight",
    "attn.q_norm.weight",
    "attn.norm.weight",
    "mlp.norm.weight",
    FUSED,
)


def timm_fields(
    tensors: Mapping[str, Tensor],
    *,
    arguments: Mapping[str, Any],
    heads: int | None = None,
    image_size: tuple[int, int] | None = None,
) -> tuple[str, dict[str, Any], TimmStyle]:
    """Our family, the fields of its configuration, and the style, read off names and shapes.

    Args:
        tensors: the checkpoint.
        arguments: of the model's constructor there, as config.json may state them.
        heads: of an attention, where the user says so.
        image_size: (height, width) where the user says so.

    Raises:
        WeightsError: it is no VisionTransformer, or uses what we have not.
    """
    check_fixed(arguments)
    if not any(name in arguments for name in ("embed_dim", "num_heads", "act_layer")):
        _check_alone(tensors)
    block = str(arguments.get("block_fn") or "Block")
    check_block(block, tensors)
    if block == PARALLEL:
        tensors = as_plain(tensors)
    patch, fc1 = shape_of(tensors, "patch_embed.proj.weight", 4), _expand(tensors)
    named = arguments.get("embed_layer") == "HybridEmbed" if "embed_dim" in arguments else None
    residual = hybrid_fields(tensors, named=named)
    width, channels, cell = patch[0], patch[1], hybrid_step(residual)
    hidden = _contract(tensors, width)
    split_gate = "blocks.0.mlp.fc1_g.weight" in tensors
    gated = split_gate or fc1 == 2 * hidden
    norm_kind, norm_eps = norm_of(arguments.get("norm_layer"))
    depth = 1 + max(int(match[1]) for name in tensors if (match := re.match(r"blocks\.(\d+)\.", name)))
    registers = next((tensors[name].shape[1] for name in REGISTER_NAMES if name in tensors), 0)
    distilled = "dist_token" in tensors
    step = cell * patch[2], cell * patch[3]
    style, pool, image = _style(tensors, arguments, registers, step, image_size)
    fields: dict[str, Any] = {
        "image_size": image,
        "patch_size": (patch[2], patch[3]),
        "channels": channels,
        "width": width,
        "depth": depth,
        "heads": _heads(width, arguments, heads),
        "mlp": "swiglu" if gated else "plain",
        "mlp_ratio": hidden / width,
        "norm": _NORM_PLACES.get(block, "pre"),
        "norm_kind": norm_kind,
        "norm_eps": norm_eps,
        "embedded_norm": _embedded(tensors),
        **({} if residual else _stem(tensors, image, step)),
        "qk_norm": "blocks.0.attn.q_norm.weight" in tensors,
        "inner_norm": inner_norm_of(tensors),
        "dense_bias": "blocks.0.attn.proj.bias" in tensors,
        "activation": activation_of(arguments.get("act_layer"), gated=gated),
        "qkv_bias": style.split_bias or "blocks.0.attn.qkv.bias" in tensors,
        "layer_scale": float(arguments.get("init_values") or 1e-5)
        if "blocks.0.ls1.gamma" in tensors
        else 0.0,
        "final_norm": "norm.weight" in tensors,
        "pooled_norm": "fc_norm.weight" in tensors,
        "pool": pool,
        "pool_prefix": bool(arguments.get("pool_include_prefix")),
        "registers": registers + style.folded_class,
        "position": "learned" if "pos_embed" in tensors else "none",
        "prefix_positions": style.class_row and not style.folded_class,
        "position_mode": "bicubic_offset" if style.official and not registers else "bicubic_antialias",
    }
    fields |= residual
    check_arguments(arguments, tensors, fields, rows=style.class_row or style.register_rows, expanded=fc1)
    if residual:
        return "hybrid", fields, style
    if not distilled:
        return "vit", fields, style
    if "head_dist.weight" not in tensors and style.head:
        raise WeightsError(
            "the checkpoint has a dist_token and no head_dist",
            hint="give the checkpoint of a distilled DeiT with both heads",
        )
    return "deit", fields | {"distillation": True}, style


def _stem(tensors: Mapping[str, Tensor], image: tuple[int, int], step: tuple[int, int]) -> dict[str, Any]:
    """Fields of patches that are cut out of the image itself."""
    return {
        "cut_edges": image[0] % step[0] != 0 or image[1] % step[1] != 0,
        "patch_bias": "patch_embed.proj.bias" in tensors,
    }


def _style(
    tensors: Mapping[str, Tensor],
    arguments: Mapping[str, Any],
    registers: int,
    patch: tuple[int, int],
    image_size: tuple[int, int] | None,
) -> tuple[TimmStyle, str, tuple[int, int]]:
    """The style, our pool, and the image size of the position table."""
    masked = "mask_token" in tensors and tensors["mask_token"].ndim == 2  # that of others has three axes
    official = "register_tokens" in tensors or masked or "blocks.0.mlp.w12.weight" in tensors
    token, distilled = "cls_token" in tensors, "dist_token" in tensors
    pool = _pool_name(tensors, arguments, official=official, token=token)
    folded = token and pool in ("mean", "attention")
    wanted = image_size or _stated_size(arguments)
    if "pos_embed" not in tensors:
        style = TimmStyle(
            class_row=False,
            folded_class=folded,
            official=official,
            split_gate="blocks.0.mlp.fc1_g.weight" in tensors,
            head="head.weight" in tensors,
        )
        return style, pool, wanted or (14 * patch[0], 14 * patch[1])
    special, count = token + distilled, shape_of(tensors, "pos_embed", 3)[1]
    choices = [0] if arguments.get("no_embed_class") else [special + registers, special, 0]
    if official:
        choices = [special]
    elif arguments.get("no_embed_class") is False:
        choices = [special + registers]
    found = next((rows for rows in choices if _is_grid(count - rows, patch, wanted)), None)
    if found is None:
        fit = sorted({rows for rows in choices if count > rows and square_size(count - rows, patch)})
        if len(fit) > 1:
            raise WeightsError(
                f"the checkpoint has {count} positions, which may be those of {count - fit[0]} patches or of "
                f"{count - fit[1]} and {fit[1]} other tokens",
                hint="say what images it was trained on: tesela convert SOURCE BUNDLE --image-size HxW",
            )
        found = fit[0] if fit else choices[0]
    style = TimmStyle(
        class_row=found >= special > 0,
        register_rows=registers > 0 and found == special + registers and not official,
        folded_class=folded,
        official=official,
        split_bias="blocks.0.attn.q_bias" in tensors,
        split_gate="blocks.0.mlp.fc1_g.weight" in tensors,
        head="head.weight" in tensors,
    )
    return style, pool, native_size(count - found, patch, wanted)


def _is_grid(positions: int, patch: tuple[int, int], wanted: tuple[int, int] | None) -> bool:
    return wanted is not None and (wanted[0] // patch[0]) * (wanted[1] // patch[1]) == positions


def _pool_name(
    tensors: Mapping[str, Tensor], arguments: Mapping[str, Any], *, official: bool, token: bool
) -> str:
    if "attn_pool.latent" in tensors:
        return "attention"
    if official and "head.weight" not in tensors:
        return "class_mean"
    stated = arguments.get("global_pool")
    if stated not in (None, "", "token", "avg", "map"):
        raise WeightsError(f"the pooling {stated!r} is not known", hint="known are token, avg and map")
    averaged = stated == "avg" or (stated is None and "fc_norm.weight" in tensors) or not token
    return "mean" if averaged else "class"


def _stated_size(arguments: Mapping[str, Any]) -> tuple[int, int] | None:
    size = arguments.get("img_size")
    if isinstance(size, int):
        return size, size
    return (int(size[0]), int(size[1])) if isinstance(size, (list, tuple)) and len(size) == 2 else None


def _heads(width: int, arguments: Mapping[str, Any], heads: int | None) -> int:
    found = (
        heads
        or arguments.get("num_heads")
        or PUBLISHED_HEADS.get(width)
        or (width // 64 if width % 64 == 0 else 0)
    )
    if not isinstance(found, int) or found < 1:
        raise WeightsError(
            f"how many heads share a width of {width} is in no tensor",
            hint="say it: tesela convert SOURCE BUNDLE --heads N",
        )
    return found


def _expand(tensors: Mapping[str, Tensor]) -> int:
    names = (f"blocks.0.mlp.{name}.weight" for name in ("w12", "fc1_g", "fc1"))
    name = next((name for name in names if name in tensors), "blocks.0.mlp.fc1.weight")
    return shape_of(tensors, name, 2)[0]


def _contract(tensors: Mapping[str, Tensor], width: int) -> int:
    name = "blocks.0.mlp.w3.weight" if "blocks.0.mlp.w3.weight" in tensors else "blocks.0.mlp.fc2.weight"
    shape = shape_of(tensors, name, 2)
    return shape[1] if shape[0] == width else 0


def _embedded(tensors: Mapping[str, Tensor]) -> str:
    if "norm_pre.weight" in tensors:
        return "tokens"
    return "patches" if "patch_embed.norm.weight" in tensors else "none"


def inner_norm_of(tensors: Mapping[str, Tensor]) -> str:
    """Our ``inner_norm`` of a checkpoint.

    Raises:
        WeightsError: the attention alone has one.
    """
    attention, mlp = (f"blocks.0.{part}.norm.weight" in tensors for part in ("attn", "mlp"))
    if attention and not mlp:
        raise WeightsError(
            "a norm inside of the attention without one in the MLP is not computed here",
            hint="models with the norm of the MLP, or with both, are read",
        )
    return "both" if attention else "mlp" if mlp else "none"


def _check_alone(tensors: Mapping[str, Tensor]) -> None:
    """Refuse a file without an architecture whose names leave open what is computed."""
    found = [name for name in _NEWER if name in tensors or f"blocks.0.{name}" in tensors]
    found += [name for name in tensors if re.fullmatch(r"blocks\.0\.(gamma_1|attn\.q_proj\.weight)", name)]
    if found:
        raise WeightsError(
            f"the file is of a newer Vision Transformer ({found[0]}), and does not say its activation, norm, "
            "heads and positions",
            hint="put the config.json beside it that names its architecture in timm",
        )


def shape_of(tensors: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    """The shape of a tensor that every model has.

    Raises:
        WeightsError: it is missing, or has another number of axes.
    """
    if name not in tensors or tensors[name].ndim != axes:
        what = "is missing" if name not in tensors else f"has {tensors[name].ndim} axes, not {axes}"
        raise WeightsError(
            f"the checkpoint is no VisionTransformer of timm: {name} {what}",
            hint="give a ViT or DeiT checkpoint",
        )
    return tuple(tensors[name].shape)
