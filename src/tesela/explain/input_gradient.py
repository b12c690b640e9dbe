"""Gradient x input: how much each pixel, as it is, changes the class's logit to first order.

Per pixel, the channels are summed and the size taken; a token's value is the mean over the pixels it covers, and a map
has sum 1. It needs no attention, so it works for every differentiable classifier, and it is noisy.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tesela.explain.capture import Capture
from tesela.explain.gradient import class_gradients


def gradient_input(found: Capture, targets: Tensor) -> Tensor:
    """(B, K, Hp, Wp) for the classes ``targets`` (B, K)."""
    maps = []
    for (gradient,) in class_gradients(found.logits, targets, [found.images]):
        size = (gradient * found.images.detach()).sum(1, keepdim=True).abs()
        maps.append(F.adaptive_avg_pool2d(size.float(), found.grid))
    tokens = torch.cat(maps, dim=1)
    total = tokens.sum(dim=(2, 3), keepdim=True)
    return tokens / total.masked_fill(total == 0, 1.0)
