"""Scorer of a classifier from arrays, on a machine without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tesela.metrics.classification import ClassificationScores
from tesela.metrics.probability import softmax


class ArrayClassificationScorer:
    """Scores over all images that were seen.

    Args:
        labels: the K class names, in the order of the logits.
        top: another k of top-k accuracy.
    """

    def __init__(self, labels: Sequence[str], *, top: int) -> None:
        self._scores = ClassificationScores(labels, top=top)

    def update(self, outputs: NDArray[np.floating[Any]], truth: Sequence[NDArray[Any]]) -> None:
        """Count in logits (B, K) and class numbers."""
        self._scores.update(softmax(outputs), np.array(truth, np.int64))

    def result(self) -> dict[str, Any]:
        """See ``tesela.metrics.classification.ClassificationScores``."""
        return self._scores.result()
