"""Eager attention of other libraries' models, seen and weighted: the reference for maps of attention.

Nothing of ours is in it: softmax itself is watched while the other library's own code runs in float64.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class WatchedSoftmax(TorchFunctionMode):
    """Keeps each map A (B, H, N, M), and gives every patch the presence ``m`` in it: m_j A_ij / sum m A.

    A mean over the patches gets the same weights.

    Args:
        m: (B, n), the presence of each patch, of which all are 1.
    """

    def __init__(self, m: Tensor) -> None:
        super().__init__()
        self.m = m
        self.maps: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        patches = self.m.shape[1]
        if func in (F.softmax, torch.softmax, Tensor.softmax) and args[0].ndim == 4:
            found = args[0].softmax(-1)  # in float64 even where the library says float32
            prefix = found.shape[-1] - patches
            weighted = found * torch.cat([self.m.new_ones(len(self.m), prefix), self.m], 1)[:, None, None]
            self.maps.append(weighted / weighted.sum(-1, keepdim=True))
            return self.maps[-1]
        if func is F.scaled_dot_product_attention:  # where a library leaves no choice
            q, k, v = args[:3]
            with self:
                return F.softmax(q @ k.mT * (kwargs.get("scale") or q.shape[-1] ** -0.5), dim=-1) @ v
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        averages = func in (torch.mean, Tensor.mean) and dim in (1, (1,), [1])
        if averages and args[0].ndim == 3 and args[0].shape[1] == patches:
            return (args[0] * (self.m / self.m.sum(1, keepdim=True))[..., None]).sum(1)
        return func(*args, **kwargs)


class WrittenHeads(nn.Module):
    """``nn.MultiheadAttention`` written out, since torch lets nobody watch its own."""

    def __init__(self, inner: nn.MultiheadAttention) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **_: Any) -> tuple[Tensor, None]:
        inner: Any = self.inner
        weights, biases = inner.in_proj_weight.chunk(3), inner.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(one, weight, bias).unflatten(2, (inner.num_heads, -1)).transpose(1, 2)
            for one, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        mixed = F.softmax(q @ k.mT * q.shape[-1] ** -0.5, dim=-1) @ v
        return inner.out_proj(mixed.transpose(1, 2).flatten(2)), None


def eager_twin(model: nn.Module) -> Any:
    """A copy in float64 whose attention is written out."""
    twin: Any = copy.deepcopy(model).double()
    twin.set_attn_implementation("eager")
    for module in list(twin.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.MultiheadAttention):
                setattr(module, name, WrittenHeads(child))
    return twin
