"""Official checkpoints of DINOv3, read as transformers' ``DINOv3ViTModel``.

A file says more than its shapes: the periods of the rotary positions give the width of a head, and masks
say that keys have no bias. What no file says is the epsilon of the norms, 1e-5 in every published size.

Odd: periods may have been rounded to bfloat16; the positions of transformers, timm and ours are exact. A
norm for small crops (``local_cls_norm``) is used while training alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from tesela.checkpoints.state import Weights
from tesela.core.errors import WeightsError
from tesela.models.tensors import Tensors

CLASS = "DINOv3ViTModel"
#: A tensor that every checkpoint of the official code has, but for its classifiers.
PERIODS = "rope_embed.periods"
#: How far a period may be from that of its base: bfloat16 keeps 8 bits.
_ROUNDED = 0.01
_NAMES = (
    (r"(cls_token|mask_token)", r"embeddings.\1"),
    (r"storage_tokens", r"embeddings.register_tokens"),
    (r"patch_embed\.proj\.", r"embeddings.patch_embeddings."),
    (r"blocks\.(\d+)\.ls([12])\.gamma", r"layer.\1.layer_scale\2.lambda1"),
    (r"blocks\.(\d+)\.attn\.proj\.", r"layer.\1.attention.o_proj."),
    (r"blocks\.(\d+)\.mlp\.(?:fc1|w2)\.", r"layer.\1.mlp.up_proj."),
    (r"blocks\.(\d+)\.mlp\.w1\.", r"layer.\1.mlp.gate_proj."),
    (r"blocks\.(\d+)\.mlp\.(?:fc2|w3)\.", r"layer.\1.mlp.down_proj."),
    (r"blocks\.(\d+)\.norm", r"layer.\1.norm"),
)
_REMARK = (
    "an official DINOv3 checkpoint, which says no preprocessing: that of models of web images is assumed; "
    "those of satellite images have another mean and standard deviation"
)


def is_dinov3(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of the official code."""
    return PERIODS in tensors or "blocks.0.attn.qkv.bias_mask" in tensors


def dinov3_weights(found: Weights) -> tuple[dict[str, Any], Weights]:
    """A config.json of transformers, and the tensors under its names.

    Args:
        found: under the names of the official code.

    Raises:
        WeightsError: it is of a variant that is not computed here.
    """
    tensors = found.tensors
    if any(name.startswith("cls_norm.") for name in tensors):
        raise WeightsError(
            "the checkpoint has a norm of its own for the class token (cls_norm), which is not computed here",
            hint="the published DINOv3 models have one norm for all tokens",
        )
    width, channels, *patch = _shape(tensors, "patch_embed.proj.weight", 4)
    depth = 1 + max(
        (int(one[1]) for name in tensors if (one := re.match(r"blocks\.(\d+)\.", name))), default=0
    )
    gated = "blocks.0.mlp.w1.weight" in tensors
    hidden = _shape(tensors, f"blocks.0.mlp.{'w1' if gated else 'fc1'}.weight", 2)[0]
    periods = _shape(tensors, PERIODS, 1)[0]
    biased, masked = (f"blocks.0.attn.qkv.{part}" in tensors for part in ("bias", "bias_mask"))
    if width % (4 * periods):
        raise WeightsError(
            f"{PERIODS} has {periods} values, and heads of {4 * periods} do not divide a width of {width}",
            hint="use files that belong together",
        )
    config = {
        "architectures": [CLASS],
        "model_type": "dinov3_vit",
        "image_size": 14 * patch[0],
        "patch_size": patch[0] if patch[0] == patch[1] else patch,
        "num_channels": channels,
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": depth,
        "num_attention_heads": width // (4 * periods),
        "num_register_tokens": tensors["storage_tokens"].shape[1] if "storage_tokens" in tensors else 0,
        "hidden_act": "silu" if gated else "gelu",
        "use_gated_mlp": gated,
        "query_bias": biased,
        "key_bias": biased and not masked,
        "value_bias": biased,
        "proj_bias": "blocks.0.attn.proj.bias" in tensors,
        "mlp_bias": f"blocks.0.mlp.{'w1' if gated else 'fc1'}.bias" in tensors,
        "layer_norm_eps": 1e-5,
        "rope_theta": _base(tensors[PERIODS]),
    }
    notes = [*found.notes, _REMARK]
    aside = sorted(name for name in tensors if name.startswith("local_cls_norm."))
    if aside:
        notes.append(f"left aside, since it is used while training alone: {', '.join(aside)}")
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        if name != PERIODS and name not in aside and not name.endswith(".bias_mask"):
            renamed |= _renamed(name, tensor, keys=not masked)
    return config, replace(found, tensors=renamed, notes=tuple(notes))


def _renamed(name: str, tensor: Tensor, *, keys: bool) -> Tensors:
    """One tensor under the name that transformers has for it, or three of them."""
    joint = re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)", name)
    if joint is not None:
        parts = zip("qkv", tensor.chunk(3), strict=False)
        before = f"layer.{joint[1]}.attention."
        kept = "qkv" if keys or joint[2] == "weight" else "qv"
        return {f"{before}{part}_proj.{joint[2]}": one for part, one in parts if part in kept}
    for pattern, other in _NAMES:
        found, count = re.subn(rf"^{pattern}", other, name)
        if count:
            return {found: tensor[None] if name == "mask_token" and tensor.ndim == 2 else tensor}
    return {name: tensor}


def _base(periods: Tensor) -> float:
    """The base of which periods are the powers, in equal steps from 1.

    Raises:
        WeightsError: they are of another kind.
    """
    values, count = periods.double(), len(periods)
    base = float(values[-1]) ** (count / (count - 1)) if count > 1 and values[-1] > 0 else 100.0
    base = 100.0 if abs(base / 100 - 1) <= _ROUNDED else base
    wanted = [base ** (index / count) for index in range(count)]
    if any(abs(float(value) / other - 1) > _ROUNDED for value, other in zip(values, wanted, strict=True)):
        raise WeightsError(
            f"{PERIODS} does not grow from 1 in equal steps, which is not computed here",
            hint="the published DINOv3 models have periods of base 100",
        )
    return base


def _shape(tensors: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    if name not in tensors or tensors[name].ndim != axes:
        what = "is missing" if name not in tensors else f"has {tensors[name].ndim} axes, not {axes}"
        raise WeightsError(
            f"the checkpoint is no DINOv3 as its own code saves it: {name} {what}",
            hint="give the official file, or a folder of transformers or timm",
        )
    return tuple(tensors[name].shape)
