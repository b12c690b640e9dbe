"""Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365, equation 1).

The mean gradient on the straight line from a grey image.

The grey image is zero after normalisation, the mean colour of the training data. The integral is taken by
Gauss-Legendre at ``samples`` points. Values keep their sign and are sums over each token's pixels: all tokens
together give the score's difference between the image and the grey one, up to the error of the integral.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tesela.attribution.methods.input_gradient import pixel_gradients
from tesela.attribution.request import LogitsAndMaps, Request

POINTS = 32


def integrated_gradients(request: Request) -> LogitsAndMaps:
    """Signed shares of the score's difference."""
    pixels = attributions(request)
    grid = request.capture.grid
    cell = pixels.shape[2] * pixels.shape[3] / (grid[0] * grid[1])
    tokens = F.adaptive_avg_pool2d(pixels.float(), grid) * cell
    return tokens, tokens.new_zeros(request.shape)


def attributions(request: Request) -> Tensor:
    """(B, T, H, W): each pixel's part, summed over channels."""
    images = request.capture.images.detach()
    points, weights = np.polynomial.legendre.leggauss(request.settings.samples or POINTS)
    total: Tensor | None = None
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        part = pixel_gradients(request, images * float(point)) * float(weight)
        total = part if total is None else total + part
    assert total is not None, "there is at least one point"
    return torch.einsum("btchw,bchw->bthw", total, images)
