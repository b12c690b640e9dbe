"""Randomised copies of a model for sanity checks (Adebayo et al. 2018, arXiv 1810.03292).

The same network and scale of weights, initialised again: it has learned nothing.

A map that looks the same on such a copy tells about the image or the architecture, not about what the model
learned.

Odd: each weight is drawn normal with its tensor's own mean and standard deviation, and vectors (biases,
norms) are shuffled, instead of drawing them as before training: a fresh head is zero and fresh attention
nearly uniform, which would make the comparison easier than it is.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def randomised(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """A deep copy with weights drawn from ``seed``; the model stays as it is."""
    twin = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in twin.parameters():
            if not parameter.is_floating_point() or parameter.numel() < 2:
                continue
            if parameter.ndim < 2:
                parameter.copy_(
                    parameter[torch.randperm(len(parameter), generator=generator).to(parameter.device)]
                )
                continue
            drawn = torch.randn(parameter.shape, generator=generator).to(parameter)
            deviation, mean = torch.std_mean(parameter.float())
            parameter.copy_((drawn.float() * deviation + mean).to(parameter.dtype))
    return twin


def rank_correlation(one: Tensor, other: Tensor) -> Tensor:
    """Spearman's rank correlation over the last axis, (..., n) and (..., n) to (...).

    Equal values share their mean rank.

    NaN where a side has no differences.
    """
    a, b = _ranks(one), _ranks(other)
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    size = a.square().sum(-1) * b.square().sum(-1)
    return torch.where(size > 0, (a * b).sum(-1) / size.sqrt(), torch.nan)


def _ranks(values: Tensor) -> Tensor:
    """Places 0 to n - 1 in float64: the mean of the places that equal values take together."""
    ordered = values.sort(dim=-1).values.contiguous()
    below, upto = (torch.searchsorted(ordered, values.contiguous(), right=right) for right in (False, True))
    return (below + upto - 1).double() / 2
