"""Depthwise convolution in large windows, with a faster backward pass in bf16 on a CPU.

The gradient of a 7x7 depthwise convolution's weights takes oneDNN (with torch 2.13) four times as long in
bf16 as in fp32, longer than all the rest of the layer; here it is taken in fp32 from the bf16 operands, which
is more exact too. For windows of 3x3 the copies cost more than that saves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tesela.layers.attention.cpu_bf16 import BF16, applies


class DepthwiseConv(nn.Conv2d):
    """(B, C, H, W) to (B, C, H', W'); parameters, names and results are those of ``nn.Conv2d``.

    Args:
        width: C.
        kernel: side of the window.
        **options: those of ``nn.Conv2d``, such as ``stride`` and ``padding``.
    """

    def __init__(self, width: int, kernel: int, **options: Any) -> None:
        super().__init__(width, width, kernel, groups=width, **options)

    def forward(self, input: Tensor) -> Tensor:
        """The convolution."""
        if not applies(input) or isinstance(self.padding, str):
            return super().forward(input)
        result: Tensor = _Depthwise.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.stride, self.padding, self.dilation
        )
        return result


class _Depthwise(torch.autograd.Function):
    """As autocast computes it; the weight's gradient in fp32."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
    ) -> Tensor:
        seen, kernel = images.to(BF16), weight.to(BF16)
        ctx.save_for_backward(seen, kernel)
        ctx.places, ctx.types = (stride, padding, dilation), (images.dtype, weight.dtype)
        with torch.autocast("cpu", enabled=False):
            shift = None if bias is None else bias.to(BF16)
            return torch.conv2d(seen, kernel, shift, stride, padding, dilation, weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        seen, kernel = ctx.saved_tensors
        to_images, to_weight, to_bias = ctx.needs_input_grad[:3]
        with torch.autocast("cpu", enabled=False):
            images = _backward(ctx, gradient, seen, kernel, (to_images, False, False))[0]
            weight, bias = _backward(
                ctx, gradient.float(), seen.float(), kernel.float(), (False, to_weight, to_bias)
            )[1:]
        images = images.to(ctx.types[0]) if to_images else None
        weight = weight.to(ctx.types[1]) if to_weight else None
        return images, weight, bias if to_bias else None, None, None, None


def _backward(
    ctx: Any, gradient: Tensor, images: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]
) -> Any:
    if not any(wanted):
        return None, None, None
    count, (stride, padding, dilation) = weight.shape[0], ctx.places
    return torch.ops.aten.convolution_backward(
        gradient, images, weight, [count], stride, padding, dilation, False, [0, 0], count, wanted
    )
