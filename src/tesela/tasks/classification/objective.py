"""Cross-entropy against class numbers, or against probabilities where images were mixed.

Odd: label smoothing is part of the training loss only; validation reports the plain negative log-likelihood,
so that runs with and without smoothing can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tesela.data.batch import Batch
from tesela.tasks.objective import Draw, Loss, Objective


class CrossEntropy(Objective):
    """Cross-entropy of one label per image.

    Args:
        label_smoothing: share of the target that is spread evenly over all classes.
        weights: of each class, None for 1; their mean over the training images should be 1.
        counts: training images of each class, for the plan.
    """

    weights: Tensor | None

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        weights: Sequence[float] | None = None,
        counts: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self._counts = counts
        self._smoothing = label_smoothing
        found = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("weights", found, persistent=False)

    def notes(self) -> list[tuple[str, str]]:
        """How classes are weighted, if they are."""
        if self.weights is None or not self._counts:
            return []
        low, high = float(self.weights.min()), float(self.weights.max())
        images = f"{min(self._counts):,} to {max(self._counts):,} training images"
        return [("balance", f"classes have {images}: their losses are weighted {high:.3g} to {low:.3g}")]

    def loss(self, model: nn.Module, batch: Batch, draw: Draw) -> Loss:
        """Cross-entropy of the logits for targets (B,) int64 or (B, K) probabilities; logs the accuracy."""
        del draw
        logits = model(batch.images).float()
        value = self.cross_entropy(logits, batch.targets)
        with torch.no_grad():
            accuracy = (logits.argmax(1) == hard_labels(batch.targets)).float().mean()
        return Loss(value, {"accuracy": accuracy})

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean over the images, each weighted by its class.

        Args:
            logits: (B, K).
            targets: (B,) class numbers or (B, K) probabilities.
        """
        if self.weights is None:
            return F.cross_entropy(logits, targets, label_smoothing=self._smoothing)
        each = F.cross_entropy(
            logits, targets, weight=self.weights, label_smoothing=self._smoothing, reduction="none"
        )
        return each.mean()


def class_weights(counts: Sequence[int], kind: str) -> list[float] | None:
    """Weights of the classes by their numbers of training images (K,), with a mean of 1 over the images.

    Args:
        counts: of each class; one without images weighs as much as one with a single image.
        kind: as in ClassificationConfig.
    """
    images = np.array(counts)
    present = images[images > 0]
    alike = not len(present) or present.max() <= 2 * present.min()
    if kind == "none" or (kind == "auto" and alike):
        return None
    weights = np.maximum(images, 1) ** (-1.0 if kind == "inverse" else -0.5)
    scaled: list[float] = (weights * images.sum() / (weights * images).sum()).tolist()
    return scaled


def hard_labels(targets: Tensor) -> Tensor:
    """Class numbers (B,) of class numbers or of probabilities (B, K)."""
    return targets if targets.ndim == 1 else targets.argmax(1)
