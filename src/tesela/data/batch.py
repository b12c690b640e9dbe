"""A batch: the images of one step with their targets, and which images they are."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Input of a step.

    Attributes:
        images: (B, C, h, w), float32, normalised; or features (B, D) of a frozen backbone.
        targets: (B, ...), whatever the task's ``Targets`` reads; (B, 0) where a task has none.
        indices: (B,) int64, the images' numbers in the items.
        views: further views of the same images, each (B, C, h', w').
        full: spatial targets (H, W) at the images' own sizes, where a loader was asked for them.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    views: tuple[Tensor, ...] = ()
    full: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device."""

        def moved(part: Tensor | tuple[Tensor, ...]) -> Any:
            if isinstance(part, tuple):
                return tuple(map(moved, part))
            return part.to(device, non_blocking=True)

        return Batch(**{part.name: moved(getattr(self, part.name)) for part in fields(self)})

    def first(self, count: int) -> Batch:
        """The first ``count`` images of the batch."""
        return self.part(0, count)

    def part(self, begin: int, end: int) -> Batch:
        """The images from ``begin`` up to ``end``."""
        return replace(
            self,
            images=self.images[begin:end],
            targets=self.targets[begin:end],
            indices=self.indices[begin:end],
            views=tuple(view[begin:end] for view in self.views),
            full=self.full[begin:end],
        )
