"""Depthwise convolution in bf16 on a CPU, against float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tesela.layers.convolution.depthwise import DepthwiseConv
from tesela.layers.initialise import lecun_normal_

CASES: list[dict[str, Any]] = [
    {"kernel": 7, "padding": 3},
    {"kernel": 3, "padding": 1, "stride": 2, "bias": False},
    {"kernel": 3, "padding": 2, "dilation": 2},
]


def gradients(layer: nn.Conv2d, images: Tensor, upper: Tensor, *, bf16: bool) -> tuple[Tensor, list[Tensor]]:
    """Output and gradients of images and parameters, in float64."""
    images = images.clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        result = layer(images)
    result.backward(upper.to(result.dtype))
    assert images.grad is not None
    found = [images.grad, *(one.grad for one in layer.parameters() if one.grad is not None)]
    return result.detach().double(), [one.double() for one in found]


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_bf16_is_as_near_as_autocast(options: dict[str, Any], memory: torch.memory_format) -> None:
    """Reference: float64. The output is autocast's own, bit by bit; no gradient is farther off than its."""
    torch.manual_seed(0)
    layer = DepthwiseConv(6, **options)
    lecun_normal_(layer.weight)
    images = torch.randn(4, 6, 19, 23).to(memory_format=memory)
    plain = nn.Conv2d(
        6, 6, options["kernel"], groups=6, **{k: v for k, v in options.items() if k != "kernel"}
    )
    plain.load_state_dict(layer.state_dict())
    upper = torch.randn_like(layer(images)).bfloat16().float()
    exact, wanted = gradients(plain.double(), images.double(), upper.double(), bf16=False)
    usual, theirs = gradients(plain.float(), images, upper, bf16=True)
    result, ours = gradients(layer, images, upper, bf16=True)
    assert torch.equal(result, usual) and len(ours) == len(wanted) == len(list(layer.parameters())) + 1
    assert float((result - exact).abs().max()) < 0.05
    for own, other, right in zip(ours, theirs, wanted, strict=True):
        error = float((own - right).norm() / right.norm())
        assert error <= 1.05 * float((other - right).norm() / right.norm()) + 1e-6 and error < 0.01


def test_elsewhere_it_is_the_plain_layer() -> None:
    """In fp32, and without gradients, nothing differs from ``nn.Conv2d``."""
    layer = DepthwiseConv(4, 3, padding=1)
    images = torch.randn(2, 4, 9, 9)
    wanted = nn.functional.conv2d(images, layer.weight, layer.bias, padding=1, groups=4)
    assert torch.equal(layer(images), wanted)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(images).dtype == torch.bfloat16


def test_a_frozen_weight_has_no_gradient() -> None:
    layer = DepthwiseConv(4, 3, padding=1)
    layer.weight.requires_grad_(False)
    images = torch.randn(2, 4, 9, 9, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        layer(images).float().sum().backward()
    assert layer.weight.grad is None and layer.bias is not None and layer.bias.grad is not None
    torch.testing.assert_close(layer.bias.grad, torch.full((4,), 162.0))
    assert images.grad is not None and images.grad.dtype == torch.float32
