"""RISE on tokens (Petsiuk et al. 2018, arXiv 1806.07421).

The mean score of random halves of the patches that hold a given patch.

Each mask leaves half of the patches, drawn from a seed, the same for every image. The score is the class's
probability, or the difference of logits where a class is explained against another. A patch's value is the
mean over the masks that leave it, minus the mean over all masks, so that values near 0 say nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tesela.attribution.capture.partial import Partial
from tesela.attribution.request import LogitsAndMaps, Request

MASKS = 256


def rise(request: Request) -> LogitsAndMaps:
    """(B, T, Hp, Wp), how much higher the score is where the patch is seen."""
    partial = Partial.of(request)
    patches = partial.grid[0] * partial.grid[1]
    masks = halves(request.settings.samples or MASKS, patches, request.settings.seed).to(
        request.capture.images.device
    )
    scores = torch.cat(
        list(partial.scores(masks, probability=request.question.contrast is None)), dim=1
    ).double()
    seen = torch.zeros(len(masks), patches, dtype=torch.float64, device=masks.device).scatter_(1, masks, 1.0)
    means = torch.einsum("bmt,mn->btn", scores, seen) / seen.sum(0).clamp(min=1.0)
    tokens = torch.where(seen.sum(0) > 0, means - scores.mean(1).unsqueeze(-1), 0.0)
    return torch.unflatten(tokens, 2, partial.grid).float(), tokens.new_zeros(request.shape).float()


def halves(count: int, patches: int, seed: int) -> Tensor:
    """(count, k): numbers of the patches that stay, k half of them, at least one."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(count, patches, generator=generator).argsort(dim=1)
    return order[:, : max(1, patches // 2)].sort(dim=1).values
