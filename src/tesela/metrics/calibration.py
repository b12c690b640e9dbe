"""Calibration: log loss, Brier score, expected calibration error, temperature.

The calibration error is the usual one (Guo et al. 2017, arXiv 1706.04599): the probability of the predicted
class falls into one of 15 bins of equal width, closed above, and the gaps between mean probability and
accuracy are averaged by count.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tesela.metrics.exact import ExactSums

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]

BINS = 15
"""Bins of equal width between 0 and 1 of the calibration error."""

MOST_TEMPERATURE = 50.0
"""Largest temperature, and the smallest's inverse."""

_SMALLEST = np.finfo(np.float64).tiny


def log_losses(probabilities: Floats, targets: Integers) -> npt.NDArray[np.float64]:
    """(N,) -log p(true class) in nats.

    A probability of 0 counts as the smallest float64, so they are finite.
    """
    true = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    losses: npt.NDArray[np.float64] = -np.log(np.maximum(true, _SMALLEST))
    return losses


def brier_scores(probabilities: Floats, targets: Integers) -> npt.NDArray[np.float64]:
    """(N,) squared distances of the probabilities to the true class's unit vector: 0 to 2 (Brier 1950)."""
    squares = (probabilities.astype(np.float64) ** 2).sum(1)
    true = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    scores: npt.NDArray[np.float64] = squares - 2 * true + 1
    return scores


def fit_temperature(logits: Floats, targets: Integers) -> float:
    """The temperature T that makes softmax(logits / T) most likely (Guo et al. 2017, section 4.2).

    The log loss is convex in 1 / T, whose derivative is bisected between 1/50 and 50. Targets are smoothed as
    in Platt 1999 (section 2.2), by 1 / (N + 2): else a model without a mistake would be made infinitely sure.

    Args:
        logits: (N, K).
        targets: (N,) true classes.
    """
    count = len(logits)
    values = logits.astype(np.float64)
    values -= values.max(1, keepdims=True)
    smooth = 1 / (count + 2)
    true = values[np.arange(count), targets]
    wanted = float(((1 - smooth) * true + smooth * values.mean(1)).sum())

    def slope(inverse: float) -> float:
        weights = np.exp(inverse * values)
        return float(((weights * values).sum(1) / weights.sum(1)).sum()) - wanted

    low, high = 1 / MOST_TEMPERATURE, MOST_TEMPERATURE
    for _ in range(50):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / math.sqrt(low * high)


class Reliability:
    """Counts per bin of the predicted class's probability: how many, how sure, how often right.

    Args:
        bins: number of bins (low, high] of equal width.
    """

    def __init__(self, bins: int = BINS) -> None:
        self.bins = bins
        self._counts = np.zeros((2, bins), np.int64)  # images, right ones
        self._sure = ExactSums(bins)

    def update(self, probabilities: Floats, targets: Integers) -> None:
        """Count in probabilities (N, K) and true classes (N,)."""
        sure = probabilities.max(1).astype(np.float64)
        place = np.clip(np.ceil(sure * self.bins).astype(np.int64) - 1, 0, self.bins - 1)
        self._counts[0] += np.bincount(place, minlength=self.bins)
        self._counts[1] += np.bincount(place[probabilities.argmax(1) == targets], minlength=self.bins)
        self._sure.add(sure, place)

    def merge(self, other: Reliability) -> None:
        """Count in what another has seen."""
        self._counts += other._counts
        self._sure.merge(other._sure)

    def rows(self) -> list[dict[str, Any]]:
        """One row for each bin; confidence and accuracy are None where it is empty."""
        counts, right = self._counts.tolist()
        return [
            {
                "low": index / self.bins,
                "high": (index + 1) / self.bins,
                "count": count,
                "confidence": sure if count else None,
                "accuracy": hits / count if count else None,
            }
            for index, (count, hits, sure) in enumerate(
                zip(counts, right, self._sure.over(counts), strict=True)
            )
        ]

    def error(self) -> float:
        """Expected calibration error, the mean over images of |accuracy - probability| of their bin.

        0 is perfect.
        """
        filled = [row for row in self.rows() if row["count"]]
        gaps = sum(row["count"] * abs(row["accuracy"] - row["confidence"]) for row in filled)
        return float(gaps / max(int(self._counts[0].sum()), 1))
