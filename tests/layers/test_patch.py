"""Patch embedding against a brute-force loop, and its two ways against each other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tesela.core.errors import ConfigError
from tesela.layers.initialise import initialise
from tesela.layers.patch import PatchEmbedding

SHAPES = [
    (3, (4, 4), (8, 8)),
    (1, (2, 5), (6, 10)),
    (2, (7, 3), (14, 3)),
    (5, (1, 1), (3, 2)),
    (4, (16, 8), (32, 40)),
]


def make(channels: int, patch: tuple[int, int], mode: str) -> PatchEmbedding:
    embed = PatchEmbedding(channels, 6, patch=patch, mode=mode)
    initialise(embed, torch.Generator().manual_seed(0))
    assert embed.bias is not None
    torch.nn.init.normal_(embed.bias, generator=torch.Generator().manual_seed(1))
    return embed


def brute_force(images: Tensor, weight: Tensor, bias: Tensor | None, patch: tuple[int, int]) -> Tensor:
    """Each token as the sum over its pixels, patches from left to right, then down."""
    tokens = []
    assert bias is not None
    for top in range(0, images.shape[2], patch[0]):
        for left in range(0, images.shape[3], patch[1]):
            cut = images[:, None, :, top : top + patch[0], left : left + patch[1]]
            tokens.append((cut * weight).sum((2, 3, 4)) + bias)
    return torch.stack(tokens, dim=1)


@pytest.mark.parametrize("mode", ["linear", "conv"])
@pytest.mark.parametrize(("channels", "patch", "size"), SHAPES)
def test_equals_a_loop_over_patches(
    channels: int, patch: tuple[int, int], size: tuple[int, int], mode: str
) -> None:
    embed, images = make(channels, patch, mode), torch.randn(2, channels, *size)
    torch.testing.assert_close(
        embed(images), brute_force(images, embed.weight, embed.bias, patch), rtol=1e-5, atol=1e-5
    )
    assert embed(images).shape[1] == embed.grid(size)[0] * embed.grid(size)[1]


@pytest.mark.parametrize(("channels", "patch", "size"), SHAPES)
def test_both_ways_share_weights_and_gradients(
    channels: int, patch: tuple[int, int], size: tuple[int, int]
) -> None:
    linear, conv = make(channels, patch, "linear"), make(channels, patch, "conv")
    conv.load_state_dict(linear.state_dict())
    images = torch.randn(2, channels, *size)
    (linear(images) ** 2).sum().backward()
    (conv(images) ** 2).sum().backward()
    torch.testing.assert_close(conv(images), linear(images), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(conv.weight.grad, linear.weight.grad, rtol=1e-4, atol=1e-4)


def test_an_image_that_patches_do_not_fill() -> None:
    with pytest.raises(ConfigError, match="4x4 do not divide an image of 8x10") as caught:
        make(3, (4, 4), "linear")(torch.zeros(1, 3, 8, 10))
    assert "8x8" in caught.value.hint
