"""Two-way tensor names of transformers' backbones beside ViT, DeiT and DINOv2.

Odd: CLIP's and SigLIP's tables and CLIP's class token have an axis less there. The classifiers of CLIP and
BEiT read the mean of the patches, so that their class tokens are registers here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tesela.checkpoints.attention_order import AttentionOrder
from tesela.checkpoints.huggingface.backbones import BACKBONES
from tesela.checkpoints.layout import REGISTERS, Cut, Fold, TensorTable
from tesela.checkpoints.rules import Rule, layer

#: A tensor that every model of a family has, without the prefix of its body.
BACKBONE_ANCHORS = {
    "dinov3": "embeddings.patch_embeddings.weight",
    "siglip": "embeddings.patch_embedding.weight",
    "clip": "embeddings.patch_embedding.weight",
    "aimv2": "embeddings.patch_embed.weight",
    "": "embeddings.patch_embeddings.projection.weight",
}
#: Tensors beside the body that are kept for the way back.
_BESIDE = (r"visual_projection\.weight", r"decoder\..*", r"lm_head\..*", r"layernorm\.(weight|bias)")


def backbone_table(
    name: str, fields: Mapping[str, Any], *, prefix: str, head: bool, keys: bool = False
) -> TensorTable:
    """The names of a backbone.

    Args:
        name: an entry of ``BACKBONES``.
        fields: of our configuration.
        prefix: before the names of the body in the file.
        head: whether there is a classifier.
        keys: whether DINOv3's keys have a bias.
    """
    kind = BACKBONES[name]
    rules, unused, fold = _BODIES[kind.family](prefix, {"key_bias": keys, **fields} if keys else fields)
    heads = layer("head.linear", "classifier") if head else ()
    escaped = prefix.replace(".", r"\.")
    joint = f"{prefix}head.attention.in_proj_"
    return TensorTable(
        program=name,
        rules=(*rules, *heads),
        cuts=tuple(
            Cut(name=joint + part, parts=((f"(pool.q).{part}", 1), (f"(pool.kv).{part}", 2)))
            for part in ("weight", "bias")
        ),
        unused=(*(f"{escaped}{pattern}" for pattern in unused), *(_BESIDE if prefix else ())),
        fold=fold,
    )


_Body = tuple[list[Rule], tuple[str, ...], Fold | None]


def _dinov3(prefix: str, fields: Mapping[str, Any]) -> _Body:
    block, own = f"{prefix}layer.{{i}}.", "blocks.{i}."
    expand = ("gate_proj", "up_proj") if fields["mlp"] == "swiglu" else ("up_proj",)
    embeddings = f"{prefix}embeddings."
    rules = [
        *layer("patches", f"{embeddings}patch_embeddings"),
        Rule(own="prefix.class_token", foreign=(f"{embeddings}cls_token",)),
        *layer(f"{own}norm1", f"{block}norm1"),
        *layer(f"{own}norm2", f"{block}norm2"),
        *_projections(
            f"{block}attention.",
            fields["heads"],
            ("q_proj", "k_proj", "v_proj"),
            "half",
            keys=bool(fields.get("key_bias")),
        ),
        *layer(f"{own}attention.out", f"{block}attention.o_proj"),
        *layer(f"{own}mlp.expand", *(f"{block}mlp.{part}" for part in expand)),
        *layer(f"{own}mlp.contract", f"{block}mlp.down_proj"),
        *(Rule(own=f"{own}scale{n}.gamma", foreign=(f"{block}layer_scale{n}.lambda1",)) for n in (1, 2)),
        *layer("norm", f"{prefix}norm"),
    ]
    unused = [r"embeddings\.mask_token", r"rope_embeddings\..*"]
    if fields["registers"]:
        rules.append(Rule(own="prefix.registers", foreign=(f"{embeddings}register_tokens",)))
    else:
        unused.append(r"embeddings\.register_tokens")
    return rules, tuple(unused), None


def _tower(prefix: str, fields: Mapping[str, Any]) -> _Body:
    """Blocks and embeddings that CLIP and SigLIP have in common."""
    block, own = f"{prefix}encoder.layers.{{i}}.", "blocks.{i}."
    embeddings = f"{prefix}embeddings."
    rules = [
        *layer("patches", f"{embeddings}patch_embedding"),
        Rule(
            own="positions.table", foreign=(f"{embeddings}position_embedding.weight",), join=_one, split=_flat
        ),
        *layer(f"{own}norm1", f"{block}layer_norm1"),
        *layer(f"{own}norm2", f"{block}layer_norm2"),
        *_projections(f"{block}self_attn.", fields["heads"], ("q_proj", "k_proj", "v_proj"), keys=True),
        *layer(f"{own}attention.out", f"{block}self_attn.out_proj"),
        *layer(f"{own}mlp.expand", f"{block}mlp.fc1"),
        *layer(f"{own}mlp.contract", f"{block}mlp.fc2"),
    ]
    return rules, (r"embeddings\.position_ids",), None


def _siglip(prefix: str, fields: Mapping[str, Any]) -> _Body:
    rules, unused, _ = _tower(prefix, fields)
    rules += layer("norm", f"{prefix}post_layernorm")
    if fields["pool"] != "attention":
        return rules, (*unused, r"head\..*"), None
    head = f"{prefix}head."
    rules += [
        Rule(own="pool.probe", foreign=(f"{head}probe",)),
        *layer("pool.q", "(pool.q)"),
        *layer("pool.kv", "(pool.kv)"),
        *layer("pool.out", f"{head}attention.out_proj"),
        *layer("pool.norm", f"{head}layernorm"),
        *layer("pool.mlp.expand", f"{head}mlp.fc1"),
        *layer("pool.mlp.contract", f"{head}mlp.fc2"),
    ]
    return rules, unused, None


def _clip(prefix: str, fields: Mapping[str, Any]) -> _Body:
    rules, unused, _ = _tower(prefix, fields)
    token = f"{prefix}embeddings.class_embedding"
    rules += layer("embedded_norm", f"{prefix}pre_layrnorm")
    if fields["pool"] == "class":
        rules.append(Rule(own="prefix.class_token", foreign=(token,), join=_token, split=_flat_token))
        rules += layer("norm", f"{prefix}post_layernorm")
        return rules, unused, None
    positions = f"{prefix}embeddings.position_embedding.weight"
    rules.append(Rule(own="prefix.registers", foreign=(REGISTERS,)))
    fold = Fold(tokens=((token, 1),), positions=positions, first=0, flat=True)
    return rules, (*unused, r"post_layernorm\.(weight|bias)"), fold


def _vit(prefix: str, fields: Mapping[str, Any]) -> _Body:
    """The names of the ViT of transformers, which MAE, MSN, I-JEPA and BEiT keep."""
    block, own = f"{prefix}encoder.layer.{{i}}.", "blocks.{i}."
    embeddings = f"{prefix}embeddings."
    rules = [
        *layer("patches", f"{embeddings}patch_embeddings.projection"),
        Rule(own="positions.table", foreign=(f"{embeddings}position_embeddings",)),
        *layer(f"{own}norm1", f"{block}layernorm_before"),
        *layer(f"{own}norm2", f"{block}layernorm_after"),
        *_projections(
            f"{block}attention.attention.",
            fields["heads"],
            ("query", "key", "value"),
            keys=fields.get("key_bias", True),
        ),
        *layer(f"{own}attention.out", f"{block}attention.output.dense"),
        *layer(f"{own}mlp.expand", f"{block}intermediate.dense"),
        *layer(f"{own}mlp.contract", f"{block}output.dense"),
        *layer("norm", f"{prefix}layernorm"),
    ]
    if fields.get("pool", "class") == "class":
        rules.append(Rule(own="prefix.class_token", foreign=(f"{embeddings}cls_token",)))
    return rules, (r"embeddings\.mask_token", r"pooler\.dense\.(weight|bias)"), None


def _pixio(prefix: str, fields: Mapping[str, Any]) -> _Body:
    rules, unused, _ = _vit(prefix, fields)
    norms = [f"blocks.{{i}}.norm{number}" for number in (1, 2)]
    rules = [rule for rule in rules if not rule.own.startswith(tuple(norms))]
    for number, norm in enumerate(norms, 1):
        rules += layer(norm, f"{prefix}encoder.layer.{{i}}.norm{number}")
    return rules, unused, None


def _beit(prefix: str, fields: Mapping[str, Any]) -> _Body:
    rules, unused, _ = _vit(prefix, {**fields, "key_bias": False})
    block, own = f"{prefix}encoder.layer.{{i}}.", "blocks.{i}."
    bias = f"{block}attention.attention.relative_position_bias.relative_position_bias_table"
    rules += [
        Rule(own=f"{own}attention.offset_bias.table", foreign=(bias,)),
        *(Rule(own=f"{own}scale{n}.gamma", foreign=(f"{block}lambda_{n}",)) for n in (1, 2)),
        *layer("pooled_norm", f"{prefix}pooler.layernorm"),
    ]
    unused = (*unused, r".*relative_position_index")
    if not fields["registers"]:
        return rules, unused, None
    token = f"{prefix}embeddings.cls_token"
    rules.append(Rule(own="prefix.registers", foreign=(REGISTERS,)))
    first = 0 if fields["position"] == "learned" else None
    fold = Fold(tokens=((token, 1),), positions=f"{prefix}embeddings.position_embeddings", first=first)
    return rules, unused, fold


def _aimv2(prefix: str, fields: Mapping[str, Any]) -> _Body:
    block, own = f"{prefix}encoder.layers.{{i}}.", "blocks.{i}."
    embeddings = f"{prefix}embeddings."
    rules = [
        *layer("patches", f"{embeddings}patch_embed"),
        *layer("embedded_norm", f"{embeddings}rms_norm"),
        Rule(
            own="positions.table", foreign=(f"{embeddings}position_embedding.weight",), join=_one, split=_flat
        ),
        *layer(f"{own}norm1", f"{block}rms_norm1"),
        *layer(f"{own}norm2", f"{block}rms_norm2"),
        *_projections(f"{block}attention.", fields["heads"], ("q_proj", "k_proj", "v_proj"), keys=True),
        *layer(f"{own}attention.out", f"{block}attention.out_proj"),
        *layer(f"{own}mlp.expand", f"{block}ffn.gate_proj", f"{block}ffn.up_proj"),
        *layer(f"{own}mlp.contract", f"{block}ffn.down_proj"),
        *layer("norm", f"{prefix}rms_norm"),
    ]
    return rules, (r"head\..*",), None


def _projections(
    before: str, heads: int, parts: Sequence[str], rotary: str = "", *, keys: bool = False
) -> tuple[Rule, ...]:
    """The rules of queries, keys and values."""
    names = [f"{before}{part}" for part in parts]
    biased = names if keys else names[::2]
    order = AttentionOrder(heads=heads, rotary=rotary, keys=keys)
    return order.rules(
        "blocks.{i}.attention.qkv",
        [f"{name}.weight" for name in names],
        [f"{name}.bias" for name in biased],
    )


def _one(parts: Sequence[Tensor]) -> Tensor:
    return parts[0][None]


def _flat(tensor: Tensor, count: int) -> Sequence[Tensor]:
    del count
    return [tensor[0]]


def _token(parts: Sequence[Tensor]) -> Tensor:
    return parts[0][None, None]


def _flat_token(tensor: Tensor, count: int) -> Sequence[Tensor]:
    del count
    return [tensor[0, 0]]


_BODIES = {
    "dinov3": _dinov3,
    "siglip": _siglip,
    "clip": _clip,
    "mae": _vit,
    "msn": _vit,
    "ijepa": _vit,
    "pixio": _pixio,
    "beit": _beit,
    "aimv2": _aimv2,
}
