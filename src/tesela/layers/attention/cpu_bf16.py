"""Layers with hand-written backward passes for training in bf16 on a CPU.

Dense layers, attention and residual stream.

Autocast through autograd leaves a tenth of a step on the table there (LOG.md): the bias is broadcast into the
output before each product, bias gradients are slow column sums, q, k and v are copied one by one, the stream
is cast back and forth. Here the bias rides on oneDNN's product, its gradient is a product with ones, the
weight gradient takes the operand order that is faster for its shape, attention makes one copy each way, and
the stream between blocks is bf16. Weights, gradients and optimizer stay fp32.

Odd: a layer takes this path only where it ``applies`` (CPU, autocast to bf16, gradients wanted); elsewhere
``cpu_bf16`` means ``matmul``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tesela.hardware.torch_private import is_untouched, linear_bf16, softmax_backward
from tesela.layers.attention.kernels import HasKernel

BF16 = torch.bfloat16
#: From this side on, the wider operand of a weight gradient is the one to read transposed; below it, the
#: narrower. Measured on AMX.
WIDE = 1536
#: Rows of ones in the product that sums a bias gradient: one tile of the matrix unit.
TILE = 16


def applies(tensor: Tensor) -> bool:
    """Whether the bf16 path is meant for computing with ``tensor`` here and now."""
    return (
        tensor.device.type == "cpu"
        and torch.is_grad_enabled()
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == BF16
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    )


def residual_stream(tokens: Tensor, *, kernel: str) -> Tensor:
    """The tokens as the blocks hand them on: bf16 where the bf16 path applies, unchanged elsewhere."""
    return tokens.to(BF16) if kernel == "cpu_bf16" and applies(tokens) else tokens


class Dense(HasKernel, nn.Linear):
    """``nn.Linear`` that knows the bf16 path; parameters, names and results are those of ``nn.Linear``."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        return dense(input, self.weight, self.bias, kernel=self.kernel)

    def is_its_weight(self) -> bool:
        """Whether rows of ``weight`` and ``bias`` give the rows of what a call gives."""
        return is_untouched(self, Dense)


def dense(values: Tensor, weight: Tensor, bias: Tensor | None, *, kernel: str) -> Tensor:
    """(..., I) times weight (O, I) transposed, plus bias, by the path that ``kernel`` names."""
    if kernel == "cpu_bf16" and applies(values):
        result: Tensor = _Dense.apply(values, weight, bias)  # type: ignore[no-untyped-call]
        return result
    return F.linear(values, weight, bias)


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        low, low_weight = values.to(BF16), weight.to(BF16)
        ctx.save_for_backward(low, low_weight)
        ctx.kind, ctx.weight_kind = values.dtype, weight.dtype
        ctx.bias_kind = None if bias is None else bias.dtype
        return linear_bf16(low, low_weight, None if bias is None else bias.to(BF16))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        values, weight = ctx.saved_tensors
        flat, rows = gradient.reshape(-1, weight.shape[0]), values.reshape(-1, weight.shape[1])
        by_values = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            by_values = (flat @ weight).view(values.shape).to(ctx.kind)
        if ctx.needs_input_grad[1]:
            by_weight = weight_gradient(flat, rows).to(ctx.weight_kind)
        if ctx.needs_input_grad[2]:
            by_bias = column_sums(flat).to(ctx.bias_kind)
        return by_values, by_weight, by_bias


def weight_gradient(gradient: Tensor, values: Tensor) -> Tensor:
    """Gradient (M, O) transposed times values (M, I), in the faster of two orders; (O, I)."""
    outputs, inputs = gradient.shape[1], values.shape[1]
    if (outputs >= inputs) == (max(outputs, inputs) >= WIDE):
        return gradient.t() @ values
    return (values.t() @ gradient).t()


def column_sums(rows: Tensor) -> Tensor:
    """Sums over the rows of (M, O), gathered in fp32 by the matrix unit."""
    return (rows.new_ones(TILE, rows.shape[0]) @ rows)[0]


def bf16_attention(qkv: Tensor, *, heads: int, scale: float) -> Tensor:
    """softmax(q kT * scale) v of (B, N, 3 * H * d), the three parts one after the other; (B, N, H * d).

    Raises:
        RuntimeError: ``qkv`` is not bf16.
    """
    result: Tensor = _Attention.apply(qkv, heads, scale)  # type: ignore[no-untyped-call]
    return result


class _Attention(torch.autograd.Function):
    """dV = Pt dO, dP = dO Vt, dS = P * (dP - sum(dP * P)), dQ = dS K * scale, dK = dSt Q * scale."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, heads: int, scale: float) -> Tensor:
        batch, count, width = qkv.shape
        parts = (
            qkv.view(batch, count, 3, heads, width // (3 * heads))
            .permute(2, 0, 3, 1, 4)
            .contiguous()
            .flatten(1, 2)
        )
        q, k, v = parts
        weights = torch.softmax(_scaled(q, k.transpose(1, 2), scale), dim=-1)
        ctx.save_for_backward(parts, weights)
        ctx.heads, ctx.scale = heads, scale
        return _join(torch.bmm(weights, v), batch, heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        parts, weights = ctx.saved_tensors
        q, k, v = parts
        batch, count, width = gradient.shape
        by_out = (
            gradient.view(batch, count, ctx.heads, width // ctx.heads)
            .transpose(1, 2)
            .contiguous()
            .flatten(0, 1)
        )
        by_parts = torch.empty_like(parts)
        torch.bmm(weights.transpose(1, 2), by_out, out=by_parts[2])
        by_logits = softmax_backward(torch.bmm(by_out, v.transpose(1, 2)), weights)
        _scaled(by_logits, k, ctx.scale, out=by_parts[0])
        _scaled(by_logits.transpose(1, 2), q, ctx.scale, out=by_parts[1])
        apart = by_parts.view(3, batch, ctx.heads, count, width // ctx.heads)
        return apart.permute(1, 3, 0, 2, 4).reshape(batch, count, 3 * width), None, None


def _scaled(left: Tensor, right: Tensor, scale: float, *, out: Tensor | None = None) -> Tensor:
    """Scale times the batched product of (B, N, K) and (B, K, M), in one call."""
    result = left.new_empty(left.shape[0], left.shape[1], right.shape[2]) if out is None else out
    return torch.baddbmm(result, left, right, beta=0, alpha=scale, out=result)


def _join(heads_apart: Tensor, batch: int, heads: int) -> Tensor:
    """(B * H, N, d) to (B, N, H * d)."""
    _, count, width = heads_apart.shape
    return heads_apart.view(batch, heads, count, width).transpose(1, 2).reshape(batch, count, heads * width)
