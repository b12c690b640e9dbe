"""Scores of images of which only some patches are seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tesela.attribution.capture.call import call
from tesela.attribution.capture.dropping import masking_mode, partial_logits
from tesela.attribution.request import Request
from tesela.layers.grid import Grid

#: Cells per side where a model has no patches of its own, or too many to take each away.
GRID_SIDE = 14
#: Patches above which cells are used where pixels are painted over.
MANY = 1024
#: Choices of patches in one call.
RECORDS = 64


class Whole(nn.Module):
    """A model seen as a function from images to plain logits.

    Args:
        model: any classifier or segmenter.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        return call(self.model, images)


@dataclass(frozen=True, kw_only=True, slots=True)
class Partial:
    """A request and the grid of what is taken away.

    Attributes:
        request: the request.
        grid: rows and columns of patches, or of coarser cells where pixels are painted over.
        model: what is called.
        images: (B, C, H, W) in the type that it takes.
    """

    request: Request
    grid: Grid
    model: nn.Module
    images: Tensor

    @classmethod
    def of(cls, request: Request) -> Partial:
        """As the request's model allows."""
        images, grid = request.capture.images.detach(), request.capture.grid
        if masking_mode(request.model) == "dropped":
            kind: Any = next(
                (one.dtype for one in request.model.parameters() if one.is_floating_point()), images.dtype
            )
            return cls(request=request, grid=grid, model=request.model, images=images.to(kind))
        if not request.capture.layers or grid[0] * grid[1] > MANY:
            grid = (min(grid[0], GRID_SIDE), min(grid[1], GRID_SIDE))
        return cls(request=request, grid=grid, model=Whole(request.model), images=images)

    def scores(self, kept: Tensor, *, probability: bool = False) -> Iterator[Tensor]:
        """Scores (B, at most CHUNK, T) for runs of rows of ``kept`` (S, k), numbers of the seen patches."""
        batch, question = len(self.images), self.request.question
        for begin in range(0, len(kept), RECORDS):
            part = kept[begin : begin + RECORDS]
            logits = partial_logits(self.model, self.images, part.expand(batch, -1, -1), self.grid)
            rows = torch.arange(batch, device=kept.device).repeat_interleave(len(part))
            asked = question.of(rows)
            flat = logits.flatten(0, 1)
            found = asked.probabilities(flat) if probability else asked.scores(flat)
            yield torch.unflatten(found, 0, (batch, len(part)))
