"""Supervised classification: cross-entropy against class numbers, or against probabilities where images were mixed.

Odd: label smoothing is part of the training loss only; validation reports the plain negative log-likelihood, so that runs with and
without smoothing can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tesela.tasks.objective import Loss


class Supervised:
    """One label per image.

    Args:
        label_smoothing: share of the target that is spread evenly over all classes.
    """

    score = "accuracy"

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        self._smoothing = label_smoothing

    def loss(self, model: nn.Module, images: Tensor, targets: Tensor) -> Loss:
        """Cross-entropy of the logits for ``targets``, (B,) int64 or (B, K) probabilities; logs the accuracy."""
        logits = model(images).float()
        value = F.cross_entropy(logits, targets, label_smoothing=self._smoothing)
        with torch.no_grad():
            accuracy = (logits.argmax(1) == hard(targets)).float().mean()
        return Loss(value, {"accuracy": accuracy})

    @torch.no_grad()
    def evaluate(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Mean negative log-likelihood and accuracy over all images, summed in float64."""
        total, right, seen = 0.0, 0, 0
        for images, targets in batches:
            logits, labels = model(images).float(), hard(targets)
            total += float(F.cross_entropy(logits, labels, reduction="none").double().sum())
            right += int((logits.argmax(1) == labels).sum())
            seen += len(labels)
        return {"loss": total / max(seen, 1), "accuracy": right / max(seen, 1)}


def hard(targets: Tensor) -> Tensor:
    """Class numbers (B,) of class numbers or of probabilities (B, K)."""
    return targets if targets.ndim == 1 else targets.argmax(1)
