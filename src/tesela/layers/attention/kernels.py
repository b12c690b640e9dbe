"""Attention kernels with one signature, equal up to rounding.

``fused`` is PyTorch's scaled_dot_product_attention; ``matmul`` spells the three steps out. Which is faster
depends on the machine, the precision and whether gradients are wanted, so training measures them.
``cpu_bf16`` is ``matmul``, but for training in bf16 on a CPU it stands for whole layers with hand-written
backward passes (``tesela.layers.attention.cpu_bf16``). q, k, v are (B, H, N, d) and may be views with any
strides; the result is (B, H, N, d).
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None, float, float], Tensor]


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float, scale: float
) -> Tensor:
    """The fused kernel of PyTorch."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=scale)


def matmul_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float, scale: float
) -> Tensor:
    """Two matrix products and a softmax; the scale goes into q, which is smaller than the logits."""
    logits = (q * scale) @ k.transpose(-2, -1)
    weights = (logits if bias is None else logits + bias).softmax(dim=-1)
    return (F.dropout(weights, dropout) if dropout else weights) @ v


KERNELS: dict[str, Kernel] = {
    "fused": fused_attention,
    "matmul": matmul_attention,
    "cpu_bf16": matmul_attention,
}


class HasKernel:
    """Something that computes by the kernel of its attribute's name.

    ``set_attention_kernel`` switches all in a model.
    """

    kernel: str = "fused"
