"""Which classes to explain: an index, a label's name, several of them, or what the model predicts."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import SupportsIndex

import torch
from torch import Tensor

from tesela.core.errors import UnknownNameError, UsageError, suggestion

Class = SupportsIndex | str
Target = Class | Sequence[Class] | None


def resolve_targets(target: Target, logits: Tensor, labels: Sequence[str] | None) -> Tensor:
    """Class indices (B, K) for logits (B, classes): the predicted class of each image, or the same K classes for all.

    Raises:
        UnknownNameError: no class has that label.
        UsageError: no class has that index, or there are no labels.
    """
    if target is None:
        return logits.detach().argmax(1, keepdim=True)
    several: Sequence[Class] = [target] if isinstance(target, str | SupportsIndex) else list(target)
    if not several:
        raise UsageError("the list of classes is empty", hint="give one or more classes, or None for the predicted one")
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
        if one in known:
            return known.index(one)
        if not one.isdecimal():
            if not known:
                raise UsageError(f"this model has no labels, so there is no class {one!r}", hint=f"give an index from 0 to {classes - 1}")
            raise UnknownNameError("class", one, known)
        if int(one) >= classes:
            raise UsageError(
                f"there is no class {one!r}", hint=suggestion(one, known) if known else f"give an index from 0 to {classes - 1}"
            )
        return int(one)
    index = operator.index(one)
    if isinstance(one, bool) or not 0 <= index < classes:
        raise UsageError(f"there is no class {one!r}, the model has {classes}", hint=f"give an index from 0 to {classes - 1}, or a label")
    return index
