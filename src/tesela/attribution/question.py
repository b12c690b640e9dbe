"""Targets of an explanation: classes, the prediction, or one class against another.

A ``Question`` turns logits into one score for each image and class. For a segmenter the score is the mean
logit over some pixels.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import torch
import torch.nn.functional as F
from torch import Tensor

from tesela.core.errors import UnknownNameError, UsageError, suggestion
from tesela.tasks.score import label_index

Class = SupportsIndex | str
Target = Class | Sequence[Class] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """Scores to explain, T for each image.

    Attributes:
        targets: (B, T), classes.
        contrast: (B, T), classes whose logits are taken away, or None.
        pixels: (B, T, h, w), for a segmenter, the weight of each pixel of the logits; each sums to 1.
    """

    targets: Tensor
    contrast: Tensor | None = None
    pixels: Tensor | None = None

    def scores(self, logits: Tensor) -> Tensor:
        """(B, T) from logits (B, K) or (B, K, h, w), in their graph."""
        found = self._picked(logits, self.targets)
        return found if self.contrast is None else found - self._picked(logits, self.contrast)

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, T), softmax probabilities of the targets; the contrast has no part in them."""
        return self._picked(logits.softmax(1), self.targets)

    def of(self, rows: Tensor) -> Question:
        """The question for images ``rows`` of the batch, which may repeat."""
        parts = (None if part is None else part[rows] for part in (self.contrast, self.pixels))
        contrast, pixels = parts
        return Question(targets=self.targets[rows], contrast=contrast, pixels=pixels)

    def _picked(self, values: Tensor, classes: Tensor) -> Tensor:
        if self.pixels is None:
            return values.gather(1, classes)
        index = classes[..., None, None].expand(-1, -1, *values.shape[2:])
        return (values.gather(1, index) * self.pixels).sum((2, 3))


def make_question(
    target: Target,
    logits: Tensor,
    labels: Sequence[str] | None,
    *,
    contrast: Class | None = None,
    region: Tensor | None = None,
) -> Question:
    """The question that the arguments of ``explain`` ask.

    Args:
        target: a class, several, or None for what is predicted; for a segmenter, the class with most pixels
            of the region.
        logits: (B, K) or (B, K, h, w).
        labels: the classes' names.
        contrast: the class to tell the targets from.
        region: a segmenter's pixels, (H, W) or (B, H, W), true inside; those of the class if None.

    Raises:
        UnknownNameError: no class has that label.
        UsageError: no class has that index, there are no labels, or the region does not fit the model.
    """
    logits = logits.detach()
    inside = None if region is None else _inside(region, logits)
    targets = resolve_targets(target, logits if logits.ndim == 2 else _votes(logits, inside), labels)
    against = None
    if contrast is not None:
        index = class_index(contrast, logits.shape[1], labels)
        if bool((targets == index).any()):
            raise UsageError(
                "a class cannot be told from itself", hint="give contrast another class than target"
            )
        against = torch.full_like(targets, index)
    return Question(
        targets=targets,
        contrast=against,
        pixels=None if logits.ndim == 2 else _pixels(logits, targets, inside),
    )


def _inside(region: Tensor, logits: Tensor) -> Tensor:
    """The region as weights (B, h, w) on the grid of a segmenter's logits."""
    if logits.ndim != 4:
        raise UsageError(
            "a region of pixels can be explained for a segmenter, and this is a classifier",
            hint="leave region away",
        )
    if (
        not isinstance(region, Tensor)
        or region.ndim not in (2, 3)
        or (region.ndim == 3 and len(region) != len(logits))
    ):
        raise UsageError(
            "region must be a mask of shape (H, W) or (B, H, W)", hint="true or 1 for the pixels to explain"
        )
    mask = (region if region.ndim == 3 else region[None].expand(len(logits), -1, -1)).to(logits)
    weights = F.adaptive_avg_pool2d(mask[:, None], (logits.shape[2], logits.shape[3]))[:, 0]
    if bool((weights.sum((1, 2)) <= 0).any()):
        raise UsageError("the region has no pixel", hint="true or 1 for the pixels to explain")
    return weights


def _votes(logits: Tensor, inside: Tensor | None) -> Tensor:
    """(B, K), how many pixels each class wins."""
    won = F.one_hot(logits.argmax(1), logits.shape[1]).movedim(-1, 1).to(logits)
    return (won if inside is None else won * inside[:, None]).sum((2, 3))


def _pixels(logits: Tensor, targets: Tensor, inside: Tensor | None) -> Tensor:
    """(B, T, h, w): the region; else the pixels that the class wins.

    Else, where it wins none, its probability.
    """
    if inside is not None:
        weights = inside[:, None].expand(-1, targets.shape[1], -1, -1)
    else:
        index = targets[..., None, None].expand(-1, -1, *logits.shape[2:])
        won = (logits.argmax(1, keepdim=True) == index).to(logits)
        weights = torch.where(won.sum((2, 3), keepdim=True) > 0, won, logits.softmax(1).gather(1, index))
    return weights / weights.sum((2, 3), keepdim=True)


def resolve_targets(target: Target, logits: Tensor, labels: Sequence[str] | None) -> Tensor:
    """Class indices (B, K) for logits (B, classes).

    The predicted class of each image, or the same K classes for all.

    Raises:
        UnknownNameError: no class has that label.
        UsageError: no class has that index, or there are no labels.
    """
    if target is None:
        return logits.detach().argmax(1, keepdim=True)
    several: Sequence[Class] = [target] if isinstance(target, str | SupportsIndex) else list(target)
    if not several:
        raise UsageError(
            "the list of classes is empty", hint="give one or more classes, or None for the predicted one"
        )
    found = [class_index(one, logits.shape[1], labels) for one in several]
    return torch.tensor([found], device=logits.device).expand(len(logits), -1)


def class_index(one: Class, classes: int, labels: Sequence[str] | None) -> int:
    """The index of a class given by label or number; a label that looks like a number wins over the number.

    Raises:
        UnknownNameError: no class has that label.
        UsageError: no class has that index, or there are no labels.
    """
    if isinstance(one, str):
        known = list(labels or ())
        index = label_index(one, known, classes)
        if index is not None:
            return index
        if not one.isdecimal():
            if not known:
                raise UsageError(
                    f"this model has no labels, so there is no class {one!r}",
                    hint=f"give an index from 0 to {classes - 1}",
                )
            raise UnknownNameError("class", one, known)
        raise UsageError(
            f"there is no class {one!r}",
            hint=suggestion(one, known) if known else f"give an index from 0 to {classes - 1}",
        )
    index = operator.index(one)
    if isinstance(one, bool) or not 0 <= index < classes:
        raise UsageError(
            f"there is no class {one!r}, the model has {classes}",
            hint=f"give an index from 0 to {classes - 1}, or a label",
        )
    return index
