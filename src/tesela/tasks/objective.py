"""Objective: the loss as a module, with parameters and state in the checkpoint.

Odd: random numbers come from ``draw`` only, a function of (seed, step, index), so that a resumed run repeats
them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tesela.data.random import uniforms

if TYPE_CHECKING:
    from rich.console import Console

    from tesela.data.batch import Batch
    from tesela.data.loader import Loader
    from tesela.imaging.spec import ImageSpec


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss of one batch.

    Attributes:
        value: scalar to differentiate, a mean over the batch.
        logs: further scalars to show, means over the batch, without gradient.
        weight: what the means are weighted with in sums over batches; the number of images if None.
    """

    value: Tensor
    logs: dict[str, Tensor] = field(default_factory=dict)
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Draw:
    """Random numbers of one step, as a function of (seed, step, index, purpose)."""

    seed: int
    step: int

    def __call__(self, indices: Tensor, purpose: str, count: int = 1) -> Tensor:
        """(B, count) float64 numbers, uniform in [0, 1), on the device of ``indices`` (B,)."""
        numbers = uniforms(self.seed, self.step, indices.cpu().numpy(), f"objective {purpose}", count)
        return torch.from_numpy(numbers).to(indices.device)


class Objective(nn.Module, ABC):
    """The loss of a task, with whatever it needs beside the model: a teacher, a projection, a centre."""

    def attach(self, model: nn.Module, spec: ImageSpec, *, seed: int) -> None:
        """Build what depends on the model at step 0, such as a decoder; does nothing by default.

        Args:
            model: on the CPU, its trained parts chosen.
            spec: what it sees of an image.
            seed: of weights that are drawn.

        Raises:
            ConfigError: the objective does not go with the model.
        """

    def begin(self, images: Loader, *, console: Console | None) -> None:
        """Look at the training images before the first step, also of a resumed run; does nothing by default.

        Args:
            images: their batches; ``plain()`` has them as evaluation sees them.
            console: where a progress bar goes.
        """

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch, draw: Draw) -> Loss:
        """The loss of ``model`` on a batch."""

    def outputs(self, model: nn.Module, batch: Batch) -> Any:
        """What a scorer is given of a validation batch; by default the model's outputs."""
        return model(batch.images)

    def notes(self) -> list[tuple[str, str]]:
        """Remarks for the plan, each with its label; none by default."""
        return []

    def after_step(self, model: nn.Module, *, step: int) -> None:
        """Update state after the weights were updated for the ``step``-th time; does nothing by default."""
