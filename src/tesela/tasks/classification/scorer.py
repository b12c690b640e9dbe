"""Scorer of a classifier: accuracy, log loss, calibration, confusion.

The log loss is in the model's precision; all other scores come from float64 probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from tesela.data.batch import Batch
from tesela.metrics.classification import ClassificationScores
from tesela.tasks.classification.objective import hard_labels


class ClassificationScorer:
    """Scores over all images that were seen.

    Args:
        labels: the K class names, in the order of the logits.
        top: another k of top-k accuracy.
    """

    def __init__(self, labels: Sequence[str], *, top: int) -> None:
        self._scores = ClassificationScores(labels, top=top)
        self._loss = 0.0

    def update(self, batch: Batch, outputs: Tensor) -> None:
        """Count in logits (B, K)."""
        targets = hard_labels(batch.targets)
        self._loss += float(F.cross_entropy(outputs.float(), targets, reduction="none").double().sum())
        probabilities = outputs.double().softmax(1).cpu().numpy()
        self._scores.update(probabilities, targets.cpu().numpy())

    def merge(self, other: ClassificationScorer) -> None:
        """Count in what another scorer has seen."""
        self._scores.merge(other._scores)
        self._loss += other._loss

    def validation(self) -> dict[str, float]:
        """Mean loss and accuracy."""
        images = max(self._scores.images, 1)
        return {"loss": self._loss / images, "accuracy": self._scores.correct / images}

    def picture(self) -> None:
        """None: an image's class is no picture."""

    def result(self) -> dict[str, Any]:
        """See ``tesela.metrics.classification.ClassificationScores``."""
        return self._scores.result()
