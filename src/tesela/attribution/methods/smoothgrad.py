"""SmoothGrad (Smilkov et al. 2017, arXiv 1706.03825).

The gradient by the pixels, averaged over noisy copies of the image.

The noise is normal, its standard deviation 15 % of the range of each image's values, drawn from a seed. Per
pixel, the size of the averaged gradient is summed over channels; a token's value is the mean over its pixels,
and a map has sum 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tesela.attribution.methods.input_gradient import pixel_gradients, sizes_per_token
from tesela.attribution.request import LogitsAndMaps, Request

COPIES = 16
NOISE = 0.15


def smoothgrad(request: Request) -> LogitsAndMaps:
    """How strongly each class's score depends on the pixels."""
    images = request.capture.images.detach()
    copies = request.settings.samples or COPIES
    range_ = images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True)
    total: Tensor | None = None
    for noise in noises(copies, images, request.settings.seed):
        part = pixel_gradients(request, images + noise * range_ * NOISE)
        total = part if total is None else total + part
    assert total is not None, "there is at least one copy"
    return sizes_per_token(request, (total / copies).abs().sum(2))


def noises(copies: int, images: Tensor, seed: int) -> list[Tensor]:
    """The same normal noise for every image, so that a map does not depend on the rest of the batch."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(images.shape[1:], generator=generator).to(images) for _ in range(copies)]
