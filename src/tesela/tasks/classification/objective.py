"""Cross-entropy against class numbers, or against probabilities where images were mixed.

Odd: label smoothing is part of the training loss only; validation reports the plain negative log-likelihood,
so that runs with and without smoothing can be compared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tesela.data.batch import Batch
from tesela.tasks.objective import Draw, Loss, Objective


class CrossEntropy(Objective):
    """Cross-entropy of one label per image.

    Args:
        label_smoothing: share of the target that is spread evenly over all classes.
    """

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self._smoothing = label_smoothing

    def loss(self, model: nn.Module, batch: Batch, draw: Draw) -> Loss:
        """Cross-entropy of the logits for targets (B,) int64 or (B, K) probabilities; logs the accuracy."""
        del draw
        logits = model(batch.images).float()
        value = F.cross_entropy(logits, batch.targets, label_smoothing=self._smoothing)
        with torch.no_grad():
            accuracy = (logits.argmax(1) == hard_labels(batch.targets)).float().mean()
        return Loss(value, {"accuracy": accuracy})


def hard_labels(targets: Tensor) -> Tensor:
    """Class numbers (B,) of class numbers or of probabilities (B, K)."""
    return targets if targets.ndim == 1 else targets.argmax(1)
