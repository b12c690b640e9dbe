"""Official checkpoints of DINOv3 and MAE, made of transformers' models of the same weights."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_DINOV3 = (
    (r"embeddings\.(cls_token|mask_token)", r"\1"),
    (r"embeddings\.register_tokens", r"storage_tokens"),
    (r"embeddings\.patch_embeddings\.", r"patch_embed.proj."),
    (r"layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"layer\.(\d+)\.attention\.o_proj", r"blocks.\1.attn.proj"),
    (r"layer\.(\d+)\.norm", r"blocks.\1.norm"),
)
_MAE = (
    (r"vit\.embeddings\.cls_token", "cls_token"),
    (r"vit\.embeddings\.position_embeddings", "pos_embed"),
    (r"vit\.embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"vit\.layernorm", "norm"),
    (r"decoder\.mask_token", "mask_token"),
    (r"decoder\.(decoder_embed|decoder_pos_embed|decoder_norm|decoder_pred)", r"\1"),
    (r"vit\.encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"decoder\.decoder_(?:encoder\.layer|layers)\.(\d+)\.", r"decoder_blocks.\1."),
)
_BLOCK = (
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"attention\.output\.dense", "attn.proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"output\.dense", "mlp.fc2"),
)


def _named(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, other in rules:
        name = re.sub(rf"^{pattern}", other, name)
    return name


def official_dinov3(tensors: Mapping[str, Tensor], *, heads: int, gated: bool = False) -> dict[str, Tensor]:
    """A state dict of facebookresearch/dinov3: joint projections, masks, periods in bfloat16."""
    mlp = (
        {"gate_proj": "w1", "up_proj": "w2", "down_proj": "w3"}
        if gated
        else {"up_proj": "fc1", "down_proj": "fc2"}
    )
    found, depth = {}, 1 + max(int(one[1]) for name in tensors if (one := re.match(r"layer\.(\d+)", name)))
    for name, tensor in tensors.items():
        if not re.search(r"\.[qkv]_proj\.", name):
            inner = re.fullmatch(r"layer\.(\d+)\.mlp\.(\w+)\.(\w+)", name)
            key = f"blocks.{inner[1]}.mlp.{mlp[inner[2]]}.{inner[3]}" if inner else _named(name, _DINOV3)
            found[key] = tensor[0] if key == "mask_token" else tensor
    width = len(tensors["norm.weight"])
    for index in range(depth):
        before, own = f"layer.{index}.attention.", f"blocks.{index}.attn.qkv"
        found[f"{own}.weight"] = torch.cat([tensors[f"{before}{part}_proj.weight"] for part in "qkv"])
        q, v = (tensors[f"{before}{part}_proj.bias"] for part in "qv")
        masked = f"{before}k_proj.bias" not in tensors
        k = torch.full_like(q, 7.0) if masked else tensors[f"{before}k_proj.bias"]
        found[f"{own}.bias"] = torch.cat([q, k, v])
        if masked:  # what stands there for the keys is multiplied by zero
            found[f"{own}.bias_mask"] = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(width)
    count = width // heads // 4
    found["rope_embed.periods"] = (100.0 ** (torch.arange(count) / count)).bfloat16().float()
    return found


def official_mae(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of facebookresearch/mae, of a model for pre-training."""
    found = {}
    for name, tensor in tensors.items():
        part = re.match(r"(.*layers?\.\d+\.)attention\.attention\.query\.(weight|bias)", name)
        if part:
            joint = [
                tensors[f"{part[1]}attention.attention.{one}.{part[2]}"] for one in ("query", "key", "value")
            ]
            found[f"{_named(part[1], _MAE)}attn.qkv.{part[2]}"] = torch.cat(joint)
        elif ".attention.attention." not in name:
            key = _named(name, _MAE)
            block = re.match(r"(?:decoder_)?blocks\.\d+\.", key)
            found[block[0] + _named(key.removeprefix(block[0]), _BLOCK) if block else key] = tensor
    return found
