"""The tokenizer's grid arithmetic against real runs, and where its tokens look."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tesela.layers.convolution.tokenizer import ConvTokenizer
from tesela.layers.initialise import initialise

OPTIONS = [
    {"layers": 1},
    {"layers": 2, "kernel": 7, "stride": 2},
    {"layers": 2, "pool_kernel": 2},
    {"layers": 3, "pool_stride": 1},
    {"kernel": 5},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_grid_is_that_of_the_convolutions(options: dict[str, Any]) -> None:
    tokenizer = ConvTokenizer(2, 6, hidden=4, **options)
    for size in [(32, 32), (17, 24), (9, 40), (28, 31)]:
        feature_map = tokenizer.layers(torch.randn(1, 2, *size))
        assert tokenizer.grid(size) == tuple(feature_map.shape[2:])
        assert tokenizer(torch.randn(1, 2, *size)).shape == (
            1,
            feature_map.shape[2] * feature_map.shape[3],
            6,
        )


def test_tokens_run_in_raster_order() -> None:
    """A bright spot in the image lights the token whose cell it is in, and the neighbours only."""
    tokenizer = ConvTokenizer(1, 3)
    nn.init.ones_(tokenizer.get_parameter("layers.conv0.weight"))
    for row, column in [(0, 0), (4, 10), (15, 3)]:
        image = torch.zeros(1, 1, 16, 12)
        image[0, 0, row, column] = 1.0
        lit = tokenizer(image)[0, :, 0].reshape(tokenizer.grid((16, 12)))
        assert lit[row // 2, column // 2] == 1.0
        assert all(abs(r - row / 2) <= 1.5 and abs(c - column / 2) <= 1.5 for r, c in lit.nonzero().tolist())


def test_batch_norm_is_there_when_asked_for() -> None:
    plain, normed = ConvTokenizer(3, 8, layers=2), ConvTokenizer(3, 8, layers=2, norm="batch")
    initialise(normed)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in plain.layers)
    images = torch.randn(16, 3, 12, 12) * 5 + 3
    after = normed.layers[:2](images)
    torch.testing.assert_close(after.mean((0, 2, 3)), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(after.std((0, 2, 3)), torch.ones(64), atol=1e-2, rtol=0)
