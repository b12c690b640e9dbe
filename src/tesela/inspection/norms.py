"""Token norms per block and outlier detection (Darcet et al. 2024, arXiv 2309.16588).

Large networks keep notes in a few background patches, whose norm is then many times that of the others; heat
maps show them as bright specks that mean nothing. An outlier here is a patch whose norm is more than three
times the median of its image's patches in that layer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tesela.layers.trace import Trace

FACTOR = 3.0
_BLOCK = re.compile(r"block\d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Norms:
    """Norms after each of L blocks.

    Attributes:
        patches: (B, L, n), of the patch tokens.
        prefix: (B, L, P), of the prefix tokens.
        outliers: (B, L, n), patches that stick out.
    """

    patches: Tensor
    prefix: Tensor
    outliers: Tensor


def token_norms(model: nn.Module, images: Tensor, *, prefix: int) -> Norms:
    """Norms of the tokens after each block; call it inside ``undisturbed``.

    Args:
        model: a classifier that takes a trace.
        images: (B, C, H, W).
        prefix: tokens before the patches.
    """
    trace = Trace(keep=lambda name: _BLOCK.fullmatch(name) is not None, attention=False)
    with torch.no_grad():
        model(images, trace=trace)
    norms = torch.stack(
        [tokens.float().norm(dim=-1) for _, tokens in sorted(trace.tensors.items())], dim=1
    ).cpu()
    return Norms(
        patches=norms[..., prefix:], prefix=norms[..., :prefix], outliers=outliers(norms[..., prefix:])
    )


def outliers(norms: Tensor) -> Tensor:
    """Which of (..., n) are more than three times the median of their row."""
    return norms > FACTOR * norms.median(dim=-1, keepdim=True).values
