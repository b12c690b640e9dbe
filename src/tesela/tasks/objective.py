"""What the training loop asks of an objective, so that a new task never touches the loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss of one batch.

    Attributes:
        value: scalar to differentiate, a mean over the batch.
        logs: further scalars to show, means over the batch, without gradient.
    """

    value: Tensor
    logs: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """A task."""

    #: The value of ``evaluate`` that tells the better model: higher is better.
    score: str

    def loss(self, model: nn.Module, images: Tensor, targets: Tensor) -> Loss:
        """The loss of ``model`` on images (B, C, H, W) and their targets."""

    def evaluate(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Mean values over a whole split; the keys must include ``loss`` and what ``score`` names."""
