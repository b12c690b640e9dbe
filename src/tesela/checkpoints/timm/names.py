"""Two-way tensor names of timm's Vision Transformers: VisionTransformer, Eva and Beit.

Read are plain, distilled (DeiT), register, layer-scale and gated models, with class token, mean or
attention pooling, with the last norm before or after the pool, with a norm before the blocks, norms inside
of branches, rotary positions and offset biases, with parallel branches, and the official DINOv2
checkpoints, whose names are nearly the same.

Odd: a class token that the pool does not read, and registers that have positions there, are registers
here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tesela.checkpoints.attention_order import AttentionOrder
from tesela.checkpoints.layout import REGISTERS, Fold, TensorTable
from tesela.checkpoints.rules import Rule, layer
from tesela.checkpoints.timm.hybrid import hybrid_rules
from tesela.checkpoints.timm.parallel import parallel_cuts, parallel_rules


@dataclass(frozen=True, kw_only=True, slots=True)
class TimmStyle:
    """Naming variants that the model's configuration does not determine.

    Attributes:
        kind: class of timm.
        class_row: the class token (or distillation token) has a row of its own in the position table.
        register_rows: the registers have rows too.
        folded_class: there is a class token that the pool does not read.
        official: names of the official DINOv2 code: ``register_tokens``, ``w12``, ``w3``.
        split_bias: biases of queries and values alone (``q_bias``, ``v_bias``, or of ``q_proj``, ``v_proj``).
        split_qkv: ``q_proj``, ``k_proj`` and ``v_proj`` in place of ``qkv``.
        split_gate: ``fc1_g`` and ``fc1_x`` in place of ``fc1``.
        flat_scale: ``gamma_1`` in place of ``ls1.gamma``.
        rotary: order of the channels that turn, as in ``AttentionOrder``.
        head: there is a classifier.
    """

    kind: str = "VisionTransformer"
    class_row: bool = True
    register_rows: bool = False
    folded_class: bool = False
    official: bool = False
    split_bias: bool = False
    split_qkv: bool = False
    split_gate: bool = False
    flat_scale: bool = False
    rotary: str = ""
    head: bool = True


def timm_table(family: str, fields: Mapping[str, Any], style: TimmStyle) -> TensorTable:
    """The names of a model of ours there.

    Args:
        family: ``vit``, ``deit`` or ``hybrid``.
        fields: all fields of our configuration, or those that were read.
        style: what else is to be known.
    """
    register = "register_tokens" if style.official else "reg_token"
    rest = fields.get("registers", 0) - style.folded_class
    fold, parallel = None, fields.get("norm") == "parallel"
    embedded = "patch_embed.norm" if fields.get("embedded_norm") == "patches" else "norm_pre"
    rules = [
        *(hybrid_rules(fields["stages"]) if family == "hybrid" else layer("patches", "patch_embed.proj")),
        *layer("embedded_norm", embedded),
        Rule(own="prefix.class_token", foreign=("cls_token",)),
        Rule(own="positions.table", foreign=("pos_embed",)),
        *(
            parallel_rules(fields)
            if parallel
            else _block(style, heads=fields.get("heads", 1), swiglu=fields.get("mlp") == "swiglu")
        ),
        *layer("norm", "norm"),
        *layer("pooled_norm", "fc_norm"),
        *_pool(),
    ]
    if style.folded_class or style.register_rows:
        tokens = ([("cls_token", 1)] if style.folded_class else []) + ([(register, rest)] if rest else [])
        rows = style.register_rows or style.class_row
        special = (fields.get("pool", "class") in ("class", "class_mean")) + (family == "deit")
        first = (0 if style.folded_class else special) if rows else None
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
        program=f"timm's {style.kind}",
        rules=tuple(rules),
        unused=("mask_token",),
        fold=fold,
        cuts=parallel_cuts(fields) if parallel else (),
    )


def _block(style: TimmStyle, *, heads: int, swiglu: bool) -> list[Rule]:
    expand, contract = ("w12", "w3") if style.official and swiglu else ("fc1", "fc2")
    block = "blocks.{i}."
    scale = "gamma_{n}" if style.flat_scale else "ls{n}.gamma"
    gate = ("fc1_g", "fc1_x") if style.split_gate else (expand,)
    return [
        *layer(f"{block}norm1", f"{block}norm1"),
        *_projections(style, heads),
        *layer(f"{block}attention.q_norm", f"{block}attn.q_norm"),
        *layer(f"{block}attention.k_norm", f"{block}attn.k_norm"),
        *layer(f"{block}attention.inner_norm", f"{block}attn.norm"),
        *layer(f"{block}attention.out", f"{block}attn.proj"),
        Rule(
            own=f"{block}attention.offset_bias.table", foreign=(f"{block}attn.relative_position_bias_table",)
        ),
        *layer(f"{block}norm2", f"{block}norm2"),
        *layer(f"{block}mlp.expand", *(f"{block}mlp.{part}" for part in gate)),
        *layer(f"{block}mlp.norm", f"{block}mlp.norm"),
        *layer(f"{block}mlp.contract", f"{block}mlp.{contract}"),
        Rule(own=f"{block}scale1.gamma", foreign=(block + scale.format(n=1),)),
        Rule(own=f"{block}scale2.gamma", foreign=(block + scale.format(n=2),)),
    ]


def _projections(style: TimmStyle, heads: int) -> tuple[Rule, ...]:
    """The rules of queries, keys and values."""
    own, attention = "blocks.{i}.attention.qkv", "blocks.{i}.attn."
    order = AttentionOrder(heads=heads, rotary=style.rotary, keys=not style.split_bias)
    if style.split_qkv:
        parts = [f"{attention}{part}_proj" for part in ("q", "k", "v")]
        biased = parts[::2] if style.split_bias else parts
        return order.rules(own, [f"{part}.weight" for part in parts], [f"{part}.bias" for part in biased])
    whole = f"{attention}qkv"
    biases = [f"{attention}q_bias", f"{attention}v_bias"] if style.split_bias else [f"{whole}.bias"]
    return order.rules(own, [f"{whole}.weight"], biases)


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
