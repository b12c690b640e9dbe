"""timm's VisionTransformer from a checkpoint's tensors alone, in float64 with torch's plain functions.

timm itself is compared in benchmarks/parity_timm.py; it is no dependency of the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def logits(
    tensors: Mapping[str, Tensor],
    images: Tensor,
    *,
    heads: int,
    average: bool = False,
    act: Callable[[Tensor], Tensor] = F.gelu,
    include_prefix: bool = False,
) -> Tensor:
    """Logits (B, K) of images (B, C, H, W).

    Args:
        tensors: of the checkpoint.
        images: normalised.
        heads: of an attention.
        average: pool over the patches.
        act: activation of a plain MLP.
        include_prefix: whether attention pooling reads the tokens before the patches.
    """
    p = {name: tensor.double() for name, tensor in tensors.items()}
    x = images.double()
    kernel = p["patch_embed.proj.weight"]
    x = F.conv2d(x, kernel, p["patch_embed.proj.bias"], stride=kernel.shape[2:]).flatten(2).mT
    patches = x.shape[1]
    prefix = [
        p[name].expand(len(x), -1, -1) for name in ("cls_token", "dist_token", "reg_token") if name in p
    ]
    if "pos_embed" in p and p["pos_embed"].shape[1] == patches:
        x = torch.cat([*prefix, x + p["pos_embed"]], 1)
    else:
        x = torch.cat([*prefix, x], 1) + p["pos_embed"]
    index = 0
    while f"blocks.{index}.norm1.weight" in p:
        x = _block(
            {
                name.removeprefix(f"blocks.{index}."): tensor
                for name, tensor in p.items()
                if name.startswith(f"blocks.{index}.")
            },
            x,
            heads,
            act,
        )
        index += 1
    if "norm.weight" in p:
        x = _norm(p, "norm", x)
    if "dist_token" in p:
        return (_linear(p, "head", x[:, 0]) + _linear(p, "head_dist", x[:, 1])) / 2
    if "attn_pool.latent" in p:
        x = _pooled(p, x if include_prefix else x[:, -patches:], heads, act)
    else:
        x = x[:, -patches:].mean(1) if average else x[:, 0]
    return _linear(p, "head", _norm(p, "fc_norm", x) if "fc_norm.weight" in p else x)


def _norm(p: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"], 1e-6)


def _linear(p: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, p[f"{name}.weight"], p.get(f"{name}.bias"))


def _split(x: Tensor, heads: int) -> Tensor:
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _block(p: Mapping[str, Tensor], x: Tensor, heads: int, act: Callable[[Tensor], Tensor]) -> Tensor:
    one = torch.ones((), dtype=torch.float64)
    y = _linear(p, "attn.qkv", _norm(p, "norm1", x))
    if "attn.q_bias" in p:
        y = y + torch.cat([p["attn.q_bias"], torch.zeros_like(p["attn.q_bias"]), p["attn.v_bias"]])
    q, k, v = (_split(part, heads) for part in y.chunk(3, -1))
    y = ((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
    x = x + _linear(p, "attn.proj", y) * p.get("ls1.gamma", one)
    y = _linear(p, "mlp.fc1", _norm(p, "norm2", x))
    if p["mlp.fc1.weight"].shape[0] == 2 * p["mlp.fc2.weight"].shape[1]:
        gate, value = y.chunk(2, -1)
        y = F.silu(gate) * value
    else:
        y = act(y)
    return x + _linear(p, "mlp.fc2", y) * p.get("ls2.gamma", one)


def _pooled(p: Mapping[str, Tensor], x: Tensor, heads: int, act: Callable[[Tensor], Tensor]) -> Tensor:
    q = _split(_linear(p, "attn_pool.q", p["attn_pool.latent"].expand(len(x), -1, -1)), heads)
    k, v = (_split(part, heads) for part in _linear(p, "attn_pool.kv", x).chunk(2, -1))
    y = ((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
    y = _linear(p, "attn_pool.proj", y)
    hidden = act(_linear(p, "attn_pool.mlp.fc1", _norm(p, "attn_pool.norm", y)))
    return (y + _linear(p, "attn_pool.mlp.fc2", hidden))[:, 0]


def random_tensors(
    *,
    grid: tuple[int, int] = (3, 3),
    patch: tuple[int, int] = (4, 4),
    width: int = 128,
    depth: int = 2,
    hidden: int = 40,
    tokens: tuple[str, ...] = ("cls_token",),
    registers: int = 0,
    rows: int = 1,
    scale: bool = False,
    swiglu: bool = False,
    bias: str = "qkv",
    norm: str = "norm",
    pool: bool = False,
    head: bool = True,
    **more: Any,
) -> dict[str, Tensor]:
    """The tensors of a VisionTransformer, none of them zero.

    Args:
        grid: of the positions.
        patch: height and width.
        width: of a token.
        depth: blocks.
        hidden: of the MLP.
        tokens: names of the special ones.
        registers: number of register tokens.
        rows: of the position table for tokens that are no patches.
        scale: layer scale.
        swiglu: gated MLP.
        bias: ``qkv``, ``split`` or none.
        norm: name of the last one.
        pool: attention pooling.
        head: whether there is a classifier.
        **more: extra tensors by shape.
    """
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(tokens, (1, 1, width)) | more
    shapes["pos_embed"] = (1, rows + grid[0] * grid[1], width)
    if registers:
        shapes["reg_token"] = (1, registers, width)

    def linear(name: str, *shape: int) -> None:
        shapes.update({f"{name}.weight": shape, f"{name}.bias": shape[:1]})

    linear("patch_embed.proj", width, 3, *patch)
    linear(norm, width)
    for index in range(depth):
        block = f"blocks.{index}."
        for name in ("norm1", "norm2"):
            linear(block + name, width)
        linear(f"{block}attn.qkv", 3 * width, width)
        if bias != "qkv":
            del shapes[f"{block}attn.qkv.bias"]
        if bias == "split":
            shapes.update({f"{block}attn.q_bias": (width,), f"{block}attn.v_bias": (width,)})
        linear(f"{block}attn.proj", width, width)
        linear(f"{block}mlp.fc1", 2 * hidden if swiglu else hidden, width)
        linear(f"{block}mlp.fc2", width, hidden)
        if scale:
            shapes.update({f"{block}ls1.gamma": (width,), f"{block}ls2.gamma": (width,)})
    if pool:
        shapes["attn_pool.latent"] = (1, 1, width)
        linear("attn_pool.q", width, width)
        linear("attn_pool.kv", 2 * width, width)
        linear("attn_pool.proj", width, width)
        linear("attn_pool.norm", width)
        linear("attn_pool.mlp.fc1", hidden, width)
        linear("attn_pool.mlp.fc2", width, hidden)
    if head:
        for name in ("head", *(("head_dist",) if "dist_token" in tokens else ())):
            linear(name, 5, width)
    draw = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=draw) * (0.05 if len(shape) > 1 else 0.5)
        for name, shape in shapes.items()
    }
