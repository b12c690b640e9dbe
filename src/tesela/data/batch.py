"""A batch: the images of one step with their targets, and which images they are."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

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
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    views: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device."""
        parts = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "views"}
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in parts.items()}
        return Batch(**moved, views=tuple(view.to(device, non_blocking=True) for view in self.views))

    def first(self, count: int) -> Batch:
        """The first ``count`` images of the batch."""
        views = tuple(view[:count] for view in self.views)
        return replace(
            self,
            images=self.images[:count],
            targets=self.targets[:count],
            indices=self.indices[:count],
            views=views,
        )
