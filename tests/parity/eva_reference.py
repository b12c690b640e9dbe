"""timm's Eva written out for EVA-02 and PE, in float64 with torch's plain functions: rotary positions.

timm itself is compared in benchmarks/weights_sweep.py; it is no dependency of the tests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

WIDTH, HEADS, SIDE, PATCH = 64, 4, 9, 4
#: Name of timm -> (reference grid, offset, whether columns come first, epsilon).
EVAS: dict[str, tuple[int, float, bool, float]] = {
    "eva02_small_patch14_224": (16, 0.0, False, 1e-6),
    "eva02_base_patch14_448": (16, 0.0, False, 1e-6),
    "vit_pe_core_base_patch16_224": (14, 1.0, True, 1e-5),
}


def eva_folder(name: str, folder: Path) -> dict[str, Tensor]:
    """The tensors of a small model of that name, saved as timm does it; attention is far from uniform."""
    pe, split = "_pe_" in name, name == "eva02_base_patch14_448"
    hidden = 4 * WIDTH if pe else 170
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, SIDE * SIDE + 1, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        **({} if pe else {"patch_embed.proj.bias": (WIDTH,)}),
    }

    def layer(key: str, *shape: int) -> None:
        shapes.update({f"{key}.weight": shape, f"{key}.bias": shape[:1]})

    for index in range(2):
        block = f"blocks.{index}."
        layer(f"{block}norm1", WIDTH)
        layer(f"{block}norm2", WIDTH)
        if split:
            for part in "qkv":
                layer(f"{block}attn.{part}_proj", WIDTH, WIDTH)
            del shapes[f"{block}attn.k_proj.bias"]
            layer(f"{block}mlp.fc1_g", hidden, WIDTH)
            layer(f"{block}mlp.fc1_x", hidden, WIDTH)
            layer(f"{block}mlp.norm", hidden)
        else:
            layer(f"{block}attn.qkv", 3 * WIDTH, WIDTH)
            layer(f"{block}mlp.fc1", hidden if pe else 2 * hidden, WIDTH)
            if not pe:
                del shapes[f"{block}attn.qkv.bias"]
                shapes |= {f"{block}attn.q_bias": (WIDTH,), f"{block}attn.v_bias": (WIDTH,)}
        layer(f"{block}attn.proj", WIDTH, WIDTH)
        layer(f"{block}mlp.fc2", WIDTH, hidden)
    for key in ("norm_pre", "norm", "attn_pool.norm") if pe else ("fc_norm",):
        layer(key, WIDTH)
    if pe:
        shapes["attn_pool.latent"] = (1, 1, WIDTH)
        for key, rows, columns in (
            ("q", 1, 1),
            ("kv", 2, 1),
            ("proj", 1, 1),
            ("mlp.fc1", 4, 1),
            ("mlp.fc2", 1, 4),
        ):
            layer(f"attn_pool.{key}", rows * WIDTH, columns * WIDTH)
    layer("head", 5, WIDTH)
    draw = torch.Generator().manual_seed(0)
    tensors = {}
    for key, shape in shapes.items():
        scale = 0.3 if any(part in key for part in ("qkv.weight", "q_proj.weight", "k_proj.weight")) else 0.1
        tensors[key] = torch.randn(shape, generator=draw) * scale + (
            len(shape) == 1 and key.endswith("weight")
        )
    save_file(tensors, folder / "model.safetensors")
    sizes = {
        "patch_size": PATCH,
        "img_size": SIDE * PATCH,
        "embed_dim": WIDTH,
        "num_heads": HEADS,
        "depth": 2,
    }
    stated: dict[str, Any] = {"input_size": [3, SIDE * PATCH, SIDE * PATCH], "num_classes": 5}
    config = {"architecture": name, "num_classes": 5, "model_args": sizes, "pretrained_cfg": stated}
    (folder / "config.json").write_text(json.dumps(config))
    return tensors


def eva_logits(name: str, tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Logits (B, K) of images (B, C, H, W)."""
    p = {key: tensor.double() for key, tensor in tensors.items()}
    eps = EVAS[name][3]
    x = images.double()
    x = F.conv2d(x, p["patch_embed.proj.weight"], p.get("patch_embed.proj.bias"), stride=PATCH).flatten(2).mT
    x = torch.cat([p["cls_token"].expand(len(x), -1, -1), x], 1) + p["pos_embed"]
    x = _norm(p, "norm_pre", x, eps) if "norm_pre.weight" in p else x
    for index in range(2):
        block = f"blocks.{index}."
        x = x + _attention(p, f"{block}attn.", _norm(p, f"{block}norm1", x, eps), name)
        x = x + _mlp(p, f"{block}mlp.", _norm(p, f"{block}norm2", x, eps), eps)
    if "attn_pool.latent" in p:
        x = _norm(p, "norm", x, eps)
        q = _heads(_linear(p, "attn_pool.q", p["attn_pool.latent"].expand(len(x), -1, -1)), 8)
        k, v = (_heads(part, 8) for part in _linear(p, "attn_pool.kv", x).chunk(2, -1))
        pooled = _linear(p, "attn_pool.proj", _mixed(q, k, v))
        x = (pooled + _mlp(p, "attn_pool.mlp.", _norm(p, "attn_pool.norm", pooled, eps), eps))[:, 0]
    else:
        x = _norm(p, "fc_norm", x[:, 1:].mean(1), eps)
    return _linear(p, "head", x)


def _turned(x: Tensor, name: str) -> Tensor:
    """Queries or keys (B, H, 1 + n, d): neighbours turn by the row in one half, else by the column."""
    reference, offset, columns_first, _ = EVAS[name]
    places = (torch.arange(SIDE, dtype=torch.float64) + offset) / SIDE * reference
    speed = 10000.0 ** -(torch.arange(x.shape[-1] // 4, dtype=torch.float64) / (x.shape[-1] // 4))
    row = (places[:, None] * speed).repeat_interleave(SIDE, 0)
    column = (places[:, None] * speed).repeat(SIDE, 1)
    angle = torch.cat([column, row] if columns_first else [row, column], 1)
    first, second = x[:, :, 1:, 0::2], x[:, :, 1:, 1::2]
    turned = [first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()]
    return torch.cat([x[:, :, :1], torch.stack(turned, -1).flatten(-2)], 2)


def _attention(p: Mapping[str, Tensor], key: str, x: Tensor, name: str) -> Tensor:
    if f"{key}q_proj.weight" in p:
        parts = [_linear(p, f"{key}{part}_proj", x) for part in "qkv"]
    else:
        y = _linear(p, f"{key}qkv", x)
        if f"{key}q_bias" in p:
            zero = torch.zeros_like(p[f"{key}q_bias"])
            y = y + torch.cat([p[f"{key}q_bias"], zero, p[f"{key}v_bias"]])
        parts = list(y.chunk(3, -1))
    q, k, v = (_heads(part, HEADS) for part in parts)
    return _linear(p, f"{key}proj", _mixed(_turned(q, name), _turned(k, name), v))


def _mlp(p: Mapping[str, Tensor], key: str, x: Tensor, eps: float) -> Tensor:
    if f"{key}fc1_g.weight" in p:
        y = F.silu(_linear(p, f"{key}fc1_g", x)) * _linear(p, f"{key}fc1_x", x)
        y = _norm(p, f"{key}norm", y, eps)
    elif len(p[f"{key}fc1.weight"]) == 2 * p[f"{key}fc2.weight"].shape[1]:
        gate, value = _linear(p, f"{key}fc1", x).chunk(2, -1)
        y = F.silu(gate) * value
    else:
        y = F.gelu(_linear(p, f"{key}fc1", x))
    return _linear(p, f"{key}fc2", y)


def _mixed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (F.softmax(q @ k.mT * q.shape[-1] ** -0.5, dim=-1) @ v).transpose(1, 2).flatten(2)


def _heads(x: Tensor, heads: int) -> Tensor:
    apart: Tensor = torch.unflatten(x, 2, (heads, -1))
    return apart.transpose(1, 2)


def _norm(p: Mapping[str, Tensor], key: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p[f"{key}.weight"], p[f"{key}.bias"], eps)


def _linear(p: Mapping[str, Tensor], key: str, x: Tensor) -> Tensor:
    return F.linear(x, p[f"{key}.weight"], p.get(f"{key}.bias"))
