"""Losses of masks: cross-entropy, Dice and focal loss, and their weighted sum.

Pixels that are ignored have no part in any.

Odd: each term is a mean over the batch's pixels, on however many ranks it lies, so an image with more ignored
ones weighs less; a batch in which all are ignored has loss zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tesela.data.batch import Batch
from tesela.hardware.distributed import total
from tesela.imaging.mask import IGNORE
from tesela.tasks.objective import Draw, Loss, Objective
from tesela.tasks.segmentation.config import SegmentationConfig


class MaskLoss(Objective):
    """The weighted sum of the losses that the settings name.

    Args:
        config: weights of the terms.
        class_weights: (K,), mean 1; None for equal ones.
    """

    class_weights: Tensor | None

    def __init__(self, config: SegmentationConfig, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self._config = config
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def loss(self, model: nn.Module, batch: Batch, draw: Draw) -> Loss:
        """Loss of logits (B, K, H, W) for masks (B, H, W); logs the share of pixels that are right."""
        del draw
        logits = model(batch.images)
        targets = batch.targets.long()
        seen = targets != IGNORE
        value = self._value(logits.float(), targets, seen)
        with torch.no_grad():
            own = logits.gather(1, targets.masked_fill(~seen, 0)[:, None])[:, 0]
            # the largest value takes a hundredth of the time that its place does
            hits = total(((own >= logits.amax(1)) & seen).sum())
            right = hits / total(seen.sum()).clamp(min=1)
        return Loss(value, {"pixel_accuracy": right})

    def _value(self, logits: Tensor, targets: Tensor, seen: Tensor) -> Tensor:
        config = self._config
        value = logits.new_zeros(())
        if config.cross_entropy:
            value = value + config.cross_entropy * self._cross_entropy(logits, targets)
        if config.focal:
            value = value + config.focal * self._focal(logits, targets, seen)
        if config.dice:
            value = value + config.dice * dice_loss(logits, targets, seen)
        return value

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        smoothing = self._config.pixel_smoothing
        summed = F.cross_entropy(
            logits,
            targets,
            self.class_weights,
            ignore_index=IGNORE,
            reduction="sum",
            label_smoothing=smoothing,
        )
        return total(summed) / self._weight(targets)

    def _focal(self, logits: Tensor, targets: Tensor, seen: Tensor) -> Tensor:
        plain = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="none")
        surprise = (1 - torch.exp(-plain)) ** self._config.focal_gamma
        weights = 1.0 if self.class_weights is None else self.class_weights[targets.masked_fill(~seen, 0)]
        return total((surprise * plain * weights * seen).sum()) / self._weight(targets)

    def _weight(self, targets: Tensor) -> Tensor:
        """Sum of the pixels' weights; 1 where there is none."""
        seen = targets != IGNORE
        if self.class_weights is None:
            return total(seen.sum()).clamp(min=1)
        weight = total((self.class_weights[targets.masked_fill(~seen, 0)] * seen).sum())
        return torch.where(weight > 0, weight, torch.ones_like(weight))


def dice_loss(logits: Tensor, targets: Tensor, seen: Tensor) -> Tensor:
    """One minus the mean soft Dice of the classes that occur in the batch.

    Args:
        logits: (B, K, H, W).
        targets: (B, H, W) class numbers.
        seen: (B, H, W), pixels that count.
    """
    probabilities = logits.softmax(1) * seen[:, None]
    wanted = F.one_hot(targets.masked_fill(~seen, 0), logits.shape[1]).movedim(3, 1) * seen[:, None]
    hits = total((probabilities * wanted).sum((0, 2, 3)))
    area = total((probabilities + wanted).sum((0, 2, 3)))
    there = total(wanted.sum((0, 2, 3))) > 0
    scores = torch.where(there, 2 * hits / area.clamp(min=1e-6), torch.zeros_like(hits))
    count = there.sum()
    return torch.where(count > 0, 1 - scores.sum() / count.clamp(min=1), torch.zeros_like(scores.sum()))


def weights_of(pixels: Sequence[int], kind: str) -> list[float] | None:
    """Weights of the classes, mean 1, from their pixels in training; None for equal ones.

    Args:
        pixels: (K,), of each class.
        kind: none, median, sqrt or log, as ``SegmentationConfig.class_weights`` has it.
    """
    if kind == "none":
        return None
    counts = torch.tensor(list(pixels), dtype=torch.float64)
    shares = counts / counts.sum().clamp(min=1)
    there = shares > 0
    if kind == "log":
        weights = 1 / torch.log(1.02 + shares)
    else:
        weights = shares[there].median() / shares.clamp(min=1e-12)
        weights = weights.sqrt() if kind == "sqrt" else weights
    weights = torch.where(there, weights, torch.ones_like(weights))
    return [float(value) for value in weights / weights[there].mean()]
