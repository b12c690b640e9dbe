"""Accuracy, top-k, confusion and per-class scores from probabilities and true classes.

Written in NumPy: torchmetrics takes 4.6 s to import on top of torch, more than evaluating ten thousand digits, and each
score here is a line or two. torchmetrics and scikit-learn are the references in the tests.

Odd: a score that is not defined is None, never 0: the recall of a class without images, the precision of a class that was
never predicted. Averages over classes count the classes that have images. Equal probabilities rank by class number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tesela.metrics.calibration import (
    BINS,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_bins,
)

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]

TOP = 5
"""The k of top-k that is always reported; fewer classes than that make it 1."""


def classification_scores(
    probabilities: Floats, targets: Integers, labels: Sequence[str], *, top: int = TOP
) -> dict[str, Any]:
    """Every score of one evaluation, in plain Python values that JSON takes.

    Args:
        probabilities: (N, K), rows sum to 1, N >= 1.
        targets: (N,), the true class of each row.
        labels: the K class names.
        top: another k of top-k to report, as ``top<k>`` beside ``top5``.
    """
    predicted = probabilities.argmax(1)
    confusion = confusion_matrix(targets, predicted, classes=len(labels))
    classes = per_class(confusion, labels)
    right = int(confusion.trace())
    return {
        "images": len(targets),
        "correct": right,
        "accuracy": right / len(targets),
        "accuracy_interval": list(wilson_interval(right, len(targets))),
        **{f"top{k}": top_k_accuracy(probabilities, targets, k=k) for k in sorted({TOP, top})},
        "balanced_accuracy": _mean(row["recall"] for row in classes if row["support"]),
        "macro_f1": _mean(row["f1"] for row in classes if row["support"]),
        "nll": negative_log_likelihood(probabilities, targets),
        "brier": brier_score(probabilities, targets),
        "ece": expected_calibration_error(probabilities, targets),
        "ece_bins": BINS,
        "per_class": classes,
        "most_confused": most_confused(confusion, labels),
        "reliability": reliability_bins(probabilities, targets),
        "confusion": confusion.tolist(),
    }


def top_k_accuracy(probabilities: Floats, targets: Integers, *, k: int) -> float:
    """Share of rows whose true class is among the ``k`` most probable ones (all of them where K < k)."""
    true = probabilities[np.arange(len(targets)), targets][:, None]
    earlier = np.arange(probabilities.shape[1])[None] < targets[:, None]
    rank = (probabilities > true).sum(1) + ((probabilities == true) & earlier).sum(1)
    return float((rank < k).mean())


def confusion_matrix(targets: Integers, predicted: Integers, *, classes: int) -> Integers:
    """(K, K) counts: row = true class, column = predicted class."""
    flat = np.bincount(targets * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


def per_class(confusion: Integers, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support of each class, in the classes' order; None where not defined."""
    rows = []
    for index, label in enumerate(labels):
        hit, support, named = (
            int(value)
            for value in (confusion[index, index], confusion[index].sum(), confusion[:, index].sum())
        )
        row = {
            "label": label,
            "precision": _ratio(hit, named),
            "recall": _ratio(hit, support),
            "f1": _ratio(2 * hit, support + named),
        }
        rows.append({**row, "support": support})
    return rows


def most_confused(confusion: Integers, labels: Sequence[str], *, most: int = 10) -> list[dict[str, Any]]:
    """The pairs (true, predicted) with the most images, most first; ``share`` is of the true class's images."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(labels)) for place in order]
    return [
        {
            "true": labels[row],
            "predicted": labels[column],
            "count": int(wrong[row, column]),
            "share": float(wrong[row, column] / confusion[row].sum()),
        }
        for row, column in pairs
        if wrong[row, column]
    ]


def wilson_interval(right: int, total: int, *, z: float = 1.959963984540054) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), which stays inside 0..1 at small counts and at the ends."""
    share = right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))
