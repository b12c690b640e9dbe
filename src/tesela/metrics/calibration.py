"""Whether a probability means what it says: likelihood, Brier score, calibration error, temperature.

The calibration error is the usual one (Guo et al. 2017, arXiv 1706.04599): the probability of the predicted class falls
into one of 15 bins of equal width, closed above, and the gaps between mean probability and accuracy are averaged by count.
The temperature is the one number of the same paper that divides the logits so that a held-out set is most likely.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]

BINS = 15
"""Bins of equal width between 0 and 1 of the calibration error."""

_COLDEST, _HOTTEST = 0.01, 100.0
_SMALLEST = np.finfo(np.float64).tiny


def negative_log_likelihood(probabilities: Floats, targets: Integers) -> float:
    """Mean of -log p(true class) in nats; a probability of 0 counts as the smallest float64, so the result is finite."""
    true = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    return float(-np.log(np.maximum(true, _SMALLEST)).mean())


def brier_score(probabilities: Floats, targets: Integers) -> float:
    """Mean squared distance of the probabilities to the true class's unit vector, summed over classes: 0 to 2 (Brier 1950)."""
    squares = (probabilities.astype(np.float64) ** 2).sum(1)
    true = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    return float((squares - 2 * true + 1).mean())


def reliability_bins(probabilities: Floats, targets: Integers, *, bins: int = BINS) -> list[dict[str, Any]]:
    """For each bin (low, high] of the predicted class's probability: how many, how sure, how often right (None where empty)."""
    sure = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == targets
    place = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sure_sum, right_sum = (np.bincount(place, weights=values, minlength=bins) for values in (sure, right))
    return [
        {
            "low": index / bins,
            "high": (index + 1) / bins,
            "count": int(count),
            "confidence": float(sure_sum[index] / count) if count else None,
            "accuracy": float(right_sum[index] / count) if count else None,
        }
        for index, count in enumerate(counts)
    ]


def expected_calibration_error(probabilities: Floats, targets: Integers, *, bins: int = BINS) -> float:
    """Mean over images of |accuracy - probability| of the image's bin: 0 is perfect."""
    filled = [row for row in reliability_bins(probabilities, targets, bins=bins) if row["count"]]
    return float(
        sum(row["count"] * abs(row["accuracy"] - row["confidence"]) for row in filled) / len(targets)
    )


def fit_temperature(logits: Floats, targets: Integers) -> float:
    """The T for which softmax(logits / T) gives the targets the highest likelihood, found by bisection to 1e-9.

    The likelihood is concave in 1/T: its slope is mean(true logit) - mean(expected logit). Where the logits separate the
    classes without error the best T would be 0, and where they are worse than chance infinite: the result stays in 0.01..100.
    """
    values = logits.astype(np.float64)
    values = values - values.max(1, keepdims=True)
    true = values[np.arange(len(targets)), targets].mean()
    low, high = np.log(1 / _HOTTEST), np.log(1 / _COLDEST)
    while high - low > 1e-9:
        middle = (low + high) / 2
        weights = np.exp(values * np.exp(middle))
        expected = ((weights * values).sum(1) / weights.sum(1)).mean()
        low, high = (middle, high) if true > expected else (low, middle)
    return float(np.exp(-(low + high) / 2))
