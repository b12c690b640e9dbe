"""The original checkpoints of the paper's JAX code (``.npz``): a plain ViT, with or without the pre-logits layer.

A dense kernel is (in, out) there and (out, in) here; queries, keys and values have an axis for the head; images are NHWC, so
the patch kernel is (ph, pw, C, D). The code's GELU is the tanh approximation. The number of heads is in the shapes; the
image size is taken to be square.

Odd: reading needs no number of heads, writing would; only reading is here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tesela.core.errors import WeightsError
from tesela.weights.names import Rule, Tensors, to_own

Arrays = Mapping[str, NDArray[Any]]


def _patch(parts: Sequence[Tensor]) -> Tensor:
    return parts[0].permute(3, 2, 0, 1)


def _dense(parts: Sequence[Tensor]) -> Tensor:
    return parts[0].T


def _heads_out(parts: Sequence[Tensor]) -> Tensor:
    """(D, H, d) each to (3 H d, D)."""
    return torch.cat([part.flatten(1).T for part in parts])


def _heads_bias(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


def _heads_in(parts: Sequence[Tensor]) -> Tensor:
    """(H, d, D) to (D, H d)."""
    return parts[0].flatten(0, 1).T


_BLOCK = "Transformer/encoderblock_{i}/"


def _read(own: str, *foreign: str, join: Callable[[Sequence[Tensor]], Tensor] | None = None) -> Rule:
    return Rule(own=own, foreign=foreign, join=join) if join else Rule(own=own, foreign=foreign)


def _norm(own: str, foreign: str) -> list[Rule]:
    return [_read(f"{own}.weight", f"{foreign}/scale"), _read(f"{own}.bias", f"{foreign}/bias")]


def _linear(own: str, foreign: str) -> list[Rule]:
    return [_read(f"{own}.weight", f"{foreign}/kernel", join=_dense), _read(f"{own}.bias", f"{foreign}/bias")]


def _rules(arrays: Arrays) -> list[Rule]:
    """The table; the published files number attention 1 and the second norm 2, a fresh initialisation counts from 0."""
    published = any("MultiHeadDotProductAttention_1" in name for name in arrays)
    mha = _BLOCK + f"MultiHeadDotProductAttention_{int(published)}/"
    parts = ("query", "key", "value")
    head = "head.hidden" if "pre_logits/kernel" in arrays else ""
    return [
        _read("patches.weight", "embedding/kernel", join=_patch),
        _read("patches.bias", "embedding/bias"),
        _read("prefix.class_token", "cls"),
        _read("positions.table", "Transformer/posembed_input/pos_embedding"),
        *_norm("blocks.{i}.norm1", _BLOCK + "LayerNorm_0"),
        _read("blocks.{i}.attention.qkv.weight", *(f"{mha}{part}/kernel" for part in parts), join=_heads_out),
        _read("blocks.{i}.attention.qkv.bias", *(f"{mha}{part}/bias" for part in parts), join=_heads_bias),
        _read("blocks.{i}.attention.out.weight", f"{mha}out/kernel", join=_heads_in),
        _read("blocks.{i}.attention.out.bias", f"{mha}out/bias"),
        *_norm("blocks.{i}.norm2", _BLOCK + f"LayerNorm_{1 + published}"),
        *_linear("blocks.{i}.mlp.expand", _BLOCK + f"MlpBlock_{3 if published else 0}/Dense_0"),
        *_linear("blocks.{i}.mlp.contract", _BLOCK + f"MlpBlock_{3 if published else 0}/Dense_1"),
        *_norm("norm", "Transformer/encoder_norm"),
        *(_linear(head, "pre_logits") if head else []),
        *_linear("head.linear", "head"),
    ]


def vit_tensors(arrays: Arrays) -> Tensors:
    """The arrays of a plain ViT under our names.

    Raises:
        WeightsError: naming what is unknown or missing.
    """
    tensors = {name: torch.from_numpy(np.array(array, dtype=np.float32)) for name, array in arrays.items()}
    own = to_own(tensors, _rules(arrays), source="the JAX checkpoint")
    return {name: tensor.contiguous() for name, tensor in own.items()}


def vit_fields(arrays: Arrays) -> dict[str, Any]:
    """The fields of our ViT config, read off the shapes.

    Raises:
        WeightsError: it is no plain ViT.
    """
    depth = len({name.split("/")[1] for name in arrays if name.startswith("Transformer/encoderblock_")})
    query = next((array for name, array in arrays.items() if name.endswith("query/kernel")), None)
    hidden = next((array for name, array in arrays.items() if name.endswith("Dense_0/kernel")), None)
    if query is None or hidden is None or "embedding/kernel" not in arrays or "cls" not in arrays:
        raise WeightsError("the JAX checkpoint is no plain ViT with a class token", hint="give a file such as ViT-B_16.npz")
    rows, columns, channels, width = arrays["embedding/kernel"].shape
    side = math.isqrt(arrays["Transformer/posembed_input/pos_embedding"].shape[1] - 1)
    return {
        "image_size": (side * rows, side * columns),
        "patch_size": (rows, columns),
        "channels": channels,
        "width": width,
        "depth": depth,
        "heads": query.shape[1],
        "mlp_ratio": hidden.shape[1] / width,
        "activation": "gelu_tanh",
        "head": "mlp" if "pre_logits/kernel" in arrays else "linear",
        "head_width": arrays["pre_logits/kernel"].shape[1] if "pre_logits/kernel" in arrays else 0,
    }
