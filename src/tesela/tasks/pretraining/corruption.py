"""Corruption of patch embeddings (ViT paper, appendix B.1.2) by (seed, step, image).

A fixed share of each image's patches is chosen; of these 80 % become the mask token, 10 % the embedding of
another patch of the image, and 10 % stay as they are, so that a network cannot tell from a token whether it
will be asked for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tesela.tasks.objective import Draw

#: Borders of the uniform number that decides: mask token below the first, another patch below the second.
MASKED, SWAPPED = 0.8, 0.9


@dataclass(frozen=True, slots=True)
class Corruption:
    """Corrupted patches of B images, m of each.

    Attributes:
        places: (B, m) numbers of the patches, in raster order of the grid.
        masked: (B, m), whether the mask token is put there.
        sources: (B, m) the patch whose embedding is put there otherwise; the same where it stays.
    """

    places: Tensor
    masked: Tensor
    sources: Tensor

    def apply(self, tokens: Tensor, token: Tensor) -> Tensor:
        """Embeddings (B, n, D) of the patches with ``token`` (D,) and swaps in place."""
        order = torch.arange(tokens.shape[1], device=tokens.device).repeat(len(tokens), 1)
        order = order.scatter(1, self.places, self.sources)
        hidden = torch.zeros_like(order, dtype=torch.bool).scatter(1, self.places, self.masked)
        moved = tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[2]))
        return torch.where(hidden[..., None], token.to(tokens.dtype), moved)


def corrupted(draw: Draw, indices: Tensor, patches: int, count: int) -> Corruption:
    """Choose what happens to ``count`` of the ``patches`` of each image.

    Args:
        draw: random numbers of the step.
        indices: (B,) numbers of the images.
        patches: n, at least 2.
        count: m.
    """
    places = chosen_patches(draw, indices, patches, count)
    kind = draw(indices, "corruption", count)
    others = (draw(indices, "other patch", count) * (patches - 1)).long()
    others = others + (others >= places)
    swapped = (kind >= MASKED) & (kind < SWAPPED)
    return Corruption(places, kind < MASKED, torch.where(swapped, others, places))


def chosen_patches(draw: Draw, indices: Tensor, patches: int, count: int) -> Tensor:
    """(B, count) numbers of random patches of each image, none twice."""
    return draw(indices, "patches", patches).argsort(dim=1, stable=True)[:, :count]
