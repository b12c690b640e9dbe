"""One update of the weights: forward under autocast, backward, clip, optimizer.

The measurement before a run and the loop itself use this same code, so that what is measured is what will
run. Odd: fp16 needs a loss scaler, whose state belongs to the checkpoint; bf16 and fp32 do not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tesela.data.batch import Batch
from tesela.data.random import mix
from tesela.hardware.autocast import autocast
from tesela.hardware.ranks import ALONE, Ranks
from tesela.tasks.objective import Draw, Loss, Objective
from tesela.training.divergence import first_culprit, is_finite
from tesela.training.optim.optimizer import Optimizers
from tesela.training.stop import Stop


class TrainingStep:
    """Forward, backward and update for one model.

    Args:
        model: what is trained.
        objective: gives the loss; its own parameters are trained with the model's.
        optimizers: change the weights.
        device: where the model is.
        precision: fp32, bf16 or fp16.
        clip_norm: longest gradient; 0 turns clipping off.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizers: Optimizers,
        *,
        device: torch.device,
        precision: str,
        clip_norm: float,
    ) -> None:
        self.model, self.objective, self.optimizers = model, objective, optimizers
        self.device, self.precision = device, precision
        self._clip = clip_norm
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    #: This process and others that train the same model.
    ranks: Ranks = ALONE

    @property
    def reads_at_once(self) -> bool:
        """Whether a loss can be read before it is differentiated without waiting for anything."""
        return self.device.type == "cpu" and self.ranks.alone

    def sizes(self, group: Sequence[Batch]) -> list[int]:
        """Images of each batch of a step, over all ranks."""
        return [len(batch) for batch in group]

    def pooled(self, losses: Sequence[tuple[Loss, int]], sizes: Sequence[int]) -> list[Loss]:
        """The losses of the whole batches.

        Args:
            losses: of this rank's part of each batch, with its number of images.
            sizes: images of each batch, over all ranks.
        """
        del sizes
        return [loss for loss, _ in losses]

    #: Whether each rank has all weights, and can compute by itself; else all make the same calls.
    whole_everywhere = True

    def scoring(self, stop: Stop) -> contextlib.AbstractContextManager[None]:
        """A context in which model and objective can be called outside of a step; a signal ends it."""
        return stop.interruptible()

    def finite(self, tensors: list[Tensor]) -> bool:
        """Whether every value is a number, the same answer on every rank."""
        return is_finite(tensors)

    def culprit(self, batch: Batch) -> str:
        """The first tensor that is not finite in the loss of a batch."""
        with self.autocast():
            return first_culprit(self.model, self.move(batch))

    def whole(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state with whole tensors."""
        return state

    def autocast(self) -> torch.autocast:
        """The context in which the model computes."""
        return autocast(self.device, self.precision)

    def move(self, batch: Batch) -> Batch:
        """A batch on the model's device."""
        return batch.to(self.device)

    def loss(self, batch: Batch, draw: Draw) -> Loss:
        """Forward only."""
        with self.autocast():
            return self.objective.loss(self.model, batch, draw)

    def backward(self, loss: Loss, *, share: float, last: bool = True) -> None:
        """Add ``share`` of the loss's gradient; ``last`` is that of a step's last batch."""
        del last
        self._scaler.scale(loss.value * share if share != 1.0 else loss.value).backward()  # type: ignore[no-untyped-call]

    def update(self) -> None:
        """Clip, change the weights, forget the gradients."""
        if self._clip > 0:
            for part in self.optimizers.parts:
                self._scaler.unscale_(part)
            torch.nn.utils.clip_grad_norm_(
                [*self.model.parameters(), *self.objective.parameters()], self._clip
            )
        for part in self.optimizers.parts:
            self._scaler.step(part)
        self._scaler.update()
        self.optimizers.zero_grad()

    def state(self) -> dict[str, Any]:
        """Optimizers, scaler and the objective's own tensors, for a checkpoint."""
        return {
            "optimizers": self.optimizers.state(),
            "scaler": self._scaler.state_dict(),
            "objective": self.objective.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what ``state`` gave."""
        self.optimizers.load(state["optimizers"])
        self.objective.load_state_dict(state.get("objective", {}))
        if state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Make dropout and stochastic depth functions of (seed, step, rank): no generator state is saved."""
    number = seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB
    number = (number + rank * 0xD6E8FEB86659FD93) % 2**64
    torch.manual_seed(int(mix(np.array([number], np.uint64))[0]) >> 1)
