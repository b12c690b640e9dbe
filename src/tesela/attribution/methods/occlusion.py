"""Occlusion (Zeiler and Fergus 2014, arXiv 1311.2901).

The fall of the score when one patch is taken away.

One pass for each patch. Patches are left out of the sequence where the model allows it, else painted over
with the image's mean colour (``tesela.attribution.capture.dropping``). Values keep their sign: negative where
the score rises without the patch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tesela.attribution.capture.partial import Partial
from tesela.attribution.request import LogitsAndMaps, Request


def occlusion(request: Request) -> LogitsAndMaps:
    """(B, T, Hp, Wp), the score of the whole image minus that without each patch."""
    partial = Partial.of(request)
    patches = partial.grid[0] * partial.grid[1]
    whole = request.scores().detach().float()
    if patches == 1:
        return whole[..., None, None], whole.new_zeros(request.shape)
    falls = [whole.unsqueeze(1) - scores for scores in partial.scores(others(patches).to(whole.device))]
    tokens = torch.unflatten(torch.cat(falls, dim=1).movedim(1, 2), 2, partial.grid)
    return tokens, whole.new_zeros(request.shape)


def others(patches: int) -> Tensor:
    """(n, n - 1): for each patch, the numbers of all others."""
    numbers = torch.arange(patches).expand(patches, -1)
    return numbers[~torch.eye(patches, dtype=torch.bool)].view(patches, patches - 1)
