"""The objective of the task from outside.

Binary cross-entropy with a bias of its own per tag and a count of its steps.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tesela.data.batch import Batch
from tesela.tasks.objective import Draw, Loss, Objective


class TagObjective(Objective):
    """Binary cross-entropy, a random share of whose terms is left out."""

    steps: torch.Tensor

    def __init__(self, tags: int, *, forget: float) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(tags))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._forget = forget

    def loss(self, model: nn.Module, batch: Batch, draw: Draw) -> Loss:
        logits = model(batch.images).float() + 0.1 * self.bias
        kept = (draw(batch.indices, "forget", logits.shape[1]) >= self._forget).float()
        terms = F.binary_cross_entropy_with_logits(logits, batch.targets, reduction="none") * kept
        return Loss(terms.sum() / kept.sum().clamp(min=1), {"bias": self.bias.detach().abs().mean()})

    def after_step(self, model: nn.Module, *, step: int) -> None:
        self.steps += 1
        assert int(self.steps) == step, "the objective's state is not that of the step"
