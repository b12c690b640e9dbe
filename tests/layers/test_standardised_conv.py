"""Convolutions: standardised weights against NumPy, both paddings against plain loops, and max-pooling
with zeros."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tesela.layers.convolution.standardised import Conv2d, MaxPool2d, Standardise


def loop(
    images: NDArray[np.float64], kernel: int, stride: int, *, same: bool
) -> list[tuple[int, int, NDArray[np.float64]]]:
    """Row, column and window (B, C, k, k) of every place, written out.

    SAME as TensorFlow's documentation defines it.
    """
    padding = []
    for side in images.shape[2:]:
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        padding.append((total // 2, total - total // 2) if same else (kernel // 2, kernel // 2))
    padded = np.pad(images, ((0, 0), (0, 0), *padding))
    places = [range(0, side - kernel + 1, stride) for side in padded.shape[2:]]
    return [
        (row // stride, column // stride, padded[:, :, row : row + kernel, column : column + kernel])
        for row in places[0]
        for column in places[1]
    ]


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
@pytest.mark.parametrize("size", [(8, 8), (7, 10), (2, 1)])
def test_both_paddings(size: tuple[int, int], kernel: int, stride: int, same: bool) -> None:
    layer = Conv2d(2, 3, kernel, stride, same=same).double()
    layer.reset(torch.Generator().manual_seed(0))
    images = torch.randn(2, 2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = layer(images).detach().numpy()
    assert found.shape == (2, 3, -(-size[0] // stride), -(-size[1] // stride))
    weight = layer.weight.detach().numpy()
    for row, column, window in loop(images.numpy(), kernel, stride, same=same):
        np.testing.assert_allclose(
            found[:, :, row, column], np.einsum("bcij,dcij->bd", window, weight), atol=1e-12
        )


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("size", [(8, 8), (7, 10), (2, 1)])
def test_pooling_pads_with_zeros(size: tuple[int, int], same: bool) -> None:
    images = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 2.0
    found = MaxPool2d(3, 2, same=same)(images).numpy()
    for row, column, window in loop(images.numpy(), 3, 2, same=same):
        np.testing.assert_allclose(found[:, :, row, column], window.max(axis=(2, 3)), rtol=0, atol=1e-29)


@pytest.mark.parametrize("standardise", ["root", "sum"])
def test_standardised_weights(standardise: Standardise) -> None:
    """Each output channel: minus its mean, divided by its deviation; the two places of epsilon."""
    layer = Conv2d(3, 4, 3, standardise=standardise, eps=0.01)
    torch.nn.init.normal_(layer.weight, 0.3, 0.2, generator=torch.Generator().manual_seed(0))
    flat = layer.weight.detach().double().flatten(1).numpy()
    deviation = flat.std(axis=1, keepdims=True)
    divisor = np.sqrt(deviation**2 + 0.01) if standardise == "root" else deviation + 0.01
    wanted = ((flat - flat.mean(axis=1, keepdims=True)) / divisor).reshape(4, 3, 3, 3)
    np.testing.assert_allclose(layer.used_weight().detach().numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_the_gradient_sees_the_standardisation() -> None:
    layer = Conv2d(2, 3, 3, standardise="sum", eps=1e-5).double()
    layer.reset(torch.Generator().manual_seed(0))
    images = torch.randn(1, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def function(weight: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.func.functional_call(layer, {"weight": weight}, (images,))
        return result

    assert torch.autograd.gradcheck(function, (layer.weight.detach().requires_grad_(),))


def test_weights_at_the_start() -> None:
    """He normal: variance 2 / (outputs x window).

    Standardised: truncated normal of variance 1 / (inputs x window).
    """
    plain, standardised = Conv2d(64, 128, 3), Conv2d(64, 128, 3, standardise="root")
    for layer in (plain, standardised):
        layer.reset(torch.Generator().manual_seed(0))
    assert plain.weight.var().item() == pytest.approx(2 / (128 * 9), rel=0.03)
    assert standardised.weight.var().item() == pytest.approx(1 / (64 * 9), rel=0.03)
