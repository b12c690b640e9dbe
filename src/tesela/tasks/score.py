"""Score: one label with its probability, and the most probable ones of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One label with its probability.

    Attributes:
        label: the label's name.
        index: its place among the model's labels.
        probability: between 0 and 1.
    """

    label: str
    index: int
    probability: float


def ranked(probabilities: NDArray[np.float64], labels: Sequence[str], *, top: int) -> tuple[Score, ...]:
    """The ``top`` most probable labels of one image (K,); equal ones by index, lower first."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    return tuple(
        Score(label=labels[index], index=int(index), probability=float(probabilities[index]))
        for index in order
    )


def label_index(word: str, labels: Sequence[str], count: int) -> int | None:
    """The index of a label, or else of the number that ``word`` is, below ``count``.

    None if it is neither.
    """
    if word in labels:
        return list(labels).index(word)
    number = int(word) if word.isdecimal() and len(word) < 9 else count
    return number if number < count else None
