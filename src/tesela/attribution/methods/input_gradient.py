"""Gradient x input: how much each pixel, as it is, changes the class's logit to first order.

Per pixel, the channels are summed and the size taken; a token's value is the mean over the pixels it covers,
and a map has sum 1. It needs no attention, so it works for every differentiable classifier, and it is noisy.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tesela.attribution.capture.call import call
from tesela.attribution.methods.gradient_rollout import class_gradients
from tesela.attribution.request import LogitsAndMaps, Request


def gradient_input(request: Request) -> LogitsAndMaps:
    """(B, T, Hp, Wp) of the captured pass."""
    images = request.capture.images
    maps = [
        (gradient * images.detach()).sum(1).abs()
        for (gradient,) in class_gradients(request.scores(), [images])
    ]
    return sizes_per_token(request, torch.stack(maps, dim=1))


def pixel_gradients(request: Request, images: Tensor) -> Tensor:
    """(B, T, C, H, W): gradients of the scores by other images (B, C, H, W) of the same request."""
    with torch.enable_grad():
        images = images.detach().clone().requires_grad_()
        scores = request.question.scores(call(request.model, images))
    return torch.stack([gradient for (gradient,) in class_gradients(scores, [images])], dim=1)


def sizes_per_token(request: Request, sizes: Tensor) -> LogitsAndMaps:
    """Pixels (B, T, H, W), none negative, to the mean of each token's pixels, brought to sum 1."""
    tokens = F.adaptive_avg_pool2d(sizes.float(), request.capture.grid)
    total = tokens.sum(dim=(2, 3), keepdim=True)
    return tokens / total.masked_fill(total == 0, 1.0), tokens.new_zeros(request.shape)
