"""PatchDropout (Liu et al. 2022, arXiv 2208.07220).

While training, each image goes on with a random part of its patches.

A step's time and memory fall with the number of tokens, and what is left out is a mild regulariser.
Evaluation sees all patches. What was chosen can be asked for, so that positions inside the blocks know which
patches are left. Odd: the same number of patches is kept in every image, so that a batch stays one tensor; it
must come after the positions are added.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PatchDropout(nn.Module):
    """(B, prefix + n, D) to (B, prefix + kept, D) in training mode; the identity otherwise.

    Args:
        rate: share of the patches that is left out; at least one patch stays.
        prefix: number of tokens before the patches, which always stay.
    """

    def __init__(self, rate: float, *, prefix: int) -> None:
        super().__init__()
        self.rate = rate
        self.prefix = prefix

    def kept(self, patches: int) -> int:
        """How many of ``patches`` stay."""
        return max(1, round(patches * (1.0 - self.rate)))

    def choose(self, tokens: Tensor) -> Tensor | None:
        """Another random choice for every image: the patches' numbers in raster order, (B, kept).

        None where all stay.
        """
        if not self.training or self.rate == 0.0:
            return None
        patches = tokens.shape[1] - self.prefix
        order = torch.rand(tokens.shape[0], patches, device=tokens.device).argsort(dim=1)
        return order[:, : self.kept(patches)].sort(dim=1).values

    def take(self, tokens: Tensor, chosen: Tensor | None) -> Tensor:
        """The prefix and the chosen patches; all where it is None."""
        if chosen is None:
            return tokens
        batch, count, width = tokens.shape
        prefix = torch.arange(self.prefix, device=tokens.device).expand(batch, -1)
        rows = (
            torch.cat([prefix, chosen + self.prefix], dim=1)
            + count * torch.arange(batch, device=tokens.device)[:, None]
        )
        return tokens.reshape(batch * count, width).index_select(0, rows.flatten()).view(batch, -1, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """The prefix and a random choice of the patches."""
        return self.take(tokens, self.choose(tokens))
