"""Two-way tensor names of timm's VisionTransformer, and the fields they imply.

Read are plain, distilled (DeiT), register, layer-scale and SwiGLU models, with class token, mean or attention
pooling, with the last norm before or after the pool, and the official DINOv2 checkpoints, whose names are
nearly the same.

Odd: the number of heads is in no shape. It is taken from the config, else from the table of published widths,
else 64 numbers per head. A class token that the pool does not read, and registers that have positions there,
are registers here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tesela.checkpoints.image_size import native_size, square_size
from tesela.checkpoints.layout import REGISTERS, Fold, TensorTable
from tesela.checkpoints.rules import Rule, layer
from tesela.checkpoints.timm.arguments import REGISTER_NAMES, activation_of, check_arguments
from tesela.core.errors import WeightsError

#: Widths whose published models have heads of another width than 64.
PUBLISHED_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}


@dataclass(frozen=True, kw_only=True, slots=True)
class TimmStyle:
    """Naming variants that the model's configuration does not determine.

    Attributes:
        class_row: the class token (or distillation token) has a row of its own in the position table.
        register_rows: the registers have rows too.
        folded_class: there is a class token that the pool does not read.
        official: names of the official DINOv2 code: ``register_tokens``, ``w12``, ``w3``.
        split_bias: biases of queries and values alone (``q_bias``, ``v_bias``).
        head: there is a classifier.
    """

    class_row: bool = True
    register_rows: bool = False
    folded_class: bool = False
    official: bool = False
    split_bias: bool = False
    head: bool = True


def timm_table(family: str, fields: Mapping[str, Any], style: TimmStyle) -> TensorTable:
    """The names of a model of ours there.

    Args:
        family: ``vit`` or ``deit``.
        fields: all fields of our configuration, or those that ``read_fields`` gives.
        style: what else is to be known.
    """
    register = "register_tokens" if style.official else "reg_token"
    rest = fields.get("registers", 0) - style.folded_class
    fold = None
    rules = [
        *layer("patches", "patch_embed.proj"),
        Rule(own="prefix.class_token", foreign=("cls_token",)),
        Rule(own="positions.table", foreign=("pos_embed",)),
        *_block(style, swiglu=fields.get("mlp") == "swiglu"),
        *layer("norm", "norm"),
        *layer("pooled_norm", "fc_norm"),
        *_pool(),
    ]
    if style.folded_class or style.register_rows:
        tokens = ([("cls_token", 1)] if style.folded_class else []) + ([(register, rest)] if rest else [])
        rows = style.register_rows or style.class_row
        first = (0 if style.folded_class else 1 + (family == "deit")) if rows else None
        fold = Fold(
            tokens=tuple(tokens), positions="pos_embed", first=first, rows=None if style.register_rows else 1
        )
        rules.append(Rule(own="prefix.registers", foreign=(REGISTERS,)))
    else:
        rules.append(Rule(own="prefix.registers", foreign=(register,)))
    if family == "deit":
        rules += [
            Rule(own="prefix.distillation_token", foreign=("dist_token",)),
            *layer("head.distillation", "head_dist"),
        ]
    if style.head:
        rules += layer("head.linear", "head")
    return TensorTable(
        program="timm's VisionTransformer", rules=tuple(rules), unused=("mask_token",), fold=fold
    )


def _block(style: TimmStyle, *, swiglu: bool) -> list[Rule]:
    expand, contract = ("w12", "w3") if style.official and swiglu else ("fc1", "fc2")
    block = "blocks.{i}."
    qkv = list(layer(f"{block}attention.qkv", f"{block}attn.qkv"))
    if style.split_bias:
        names = (f"{block}attn.q_bias", f"{block}attn.v_bias")
        qkv[1] = Rule(
            own=f"{block}attention.qkv.bias", foreign=names, join=_with_zero_keys, split=_without_keys
        )
    return [
        *layer(f"{block}norm1", f"{block}norm1"),
        *qkv,
        *layer(f"{block}attention.out", f"{block}attn.proj"),
        *layer(f"{block}norm2", f"{block}norm2"),
        *layer(f"{block}mlp.expand", f"{block}mlp.{expand}"),
        *layer(f"{block}mlp.contract", f"{block}mlp.{contract}"),
        Rule(own=f"{block}scale1.gamma", foreign=(f"{block}ls1.gamma",)),
        Rule(own=f"{block}scale2.gamma", foreign=(f"{block}ls2.gamma",)),
    ]


def _pool() -> list[Rule]:
    parts = {
        "q": "q",
        "kv": "kv",
        "out": "proj",
        "norm": "norm",
        "mlp.expand": "mlp.fc1",
        "mlp.contract": "mlp.fc2",
    }
    rules = [rule for own, name in parts.items() for rule in layer(f"pool.{own}", f"attn_pool.{name}")]
    return [Rule(own="pool.probe", foreign=("attn_pool.latent",)), *rules]


def _with_zero_keys(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([parts[0], torch.zeros_like(parts[0]), parts[1]])


def _without_keys(tensor: Tensor, count: int) -> Sequence[Tensor]:
    del count
    query, _, value = tensor.chunk(3)
    return [query, value]


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
    patch, fc1 = _shape(tensors, "patch_embed.proj.weight", 4), _expand(tensors)
    width, channels = patch[0], patch[1]
    hidden = _contract(tensors, width)
    gated = fc1 == 2 * hidden
    depth = 1 + max(int(match[1]) for name in tensors if (match := re.match(r"blocks\.(\d+)\.", name)))
    registers = next((tensors[name].shape[1] for name in REGISTER_NAMES if name in tensors), 0)
    distilled = "dist_token" in tensors
    style, pool, image = _style(tensors, arguments, registers, (patch[2], patch[3]), image_size)
    fields: dict[str, Any] = {
        "image_size": image,
        "patch_size": (patch[2], patch[3]),
        "channels": channels,
        "width": width,
        "depth": depth,
        "heads": _heads(width, arguments, heads),
        "mlp": "swiglu" if gated else "plain",
        "mlp_ratio": hidden / width,
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
    check_arguments(arguments, tensors, fields, rows=style.class_row or style.register_rows, expanded=fc1)
    if not distilled:
        return "vit", fields, style
    if "head_dist.weight" not in tensors and style.head:
        raise WeightsError(
            "the checkpoint has a dist_token and no head_dist",
            hint="give the checkpoint of a distilled DeiT with both heads",
        )
    return "deit", fields | {"distillation": True}, style


def _style(
    tensors: Mapping[str, Tensor],
    arguments: Mapping[str, Any],
    registers: int,
    patch: tuple[int, int],
    image_size: tuple[int, int] | None,
) -> tuple[TimmStyle, str, tuple[int, int]]:
    """The style, our pool, and the image size of the position table."""
    official = "register_tokens" in tensors or "mask_token" in tensors or "blocks.0.mlp.w12.weight" in tensors
    token, distilled = "cls_token" in tensors, "dist_token" in tensors
    pool = _pool_name(tensors, arguments, official=official, token=token)
    folded = token and pool in ("mean", "attention")
    wanted = image_size or _stated_size(arguments)
    if "pos_embed" not in tensors:
        style = TimmStyle(
            class_row=False, folded_class=folded, official=official, head="head.weight" in tensors
        )
        return style, pool, wanted or (14 * patch[0], 14 * patch[1])
    special, count = token + distilled, _shape(tensors, "pos_embed", 3)[1]
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
    name = "blocks.0.mlp.w12.weight" if "blocks.0.mlp.w12.weight" in tensors else "blocks.0.mlp.fc1.weight"
    return _shape(tensors, name, 2)[0]


def _contract(tensors: Mapping[str, Tensor], width: int) -> int:
    name = "blocks.0.mlp.w3.weight" if "blocks.0.mlp.w3.weight" in tensors else "blocks.0.mlp.fc2.weight"
    shape = _shape(tensors, name, 2)
    return shape[1] if shape[0] == width else 0


def _shape(tensors: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    if name not in tensors or tensors[name].ndim != axes:
        what = "is missing" if name not in tensors else f"has {tensors[name].ndim} axes, not {axes}"
        raise WeightsError(
            f"the checkpoint is no VisionTransformer of timm: {name} {what}",
            hint="give a ViT or DeiT checkpoint",
        )
    return tuple(tensors[name].shape)
