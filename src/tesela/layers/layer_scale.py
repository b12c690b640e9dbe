"""Layer scale (Touvron et al. 2021, arXiv 2103.17239, section 2).

A learned factor per channel at the end of a residual branch.

With a small start value a deep network begins near the identity.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn


class LayerScale(nn.Module):
    """(..., D) times gamma (D).

    Args:
        width: D.
        start: every factor's first value.
    """

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.start = start
        self.gamma = nn.Parameter(torch.empty(width))

    def reset(self, generator: Generator | None = None) -> None:  # noqa: ARG002
        """All factors take the start value."""
        nn.init.constant_(self.gamma, self.start)

    def forward(self, branch: Tensor) -> Tensor:
        """The branch, channel by channel."""
        return branch * self.gamma.to(branch.dtype)
