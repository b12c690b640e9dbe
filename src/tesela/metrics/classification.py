"""Accuracy, top-k, confusion and per-class scores from probabilities and true classes.

Written in NumPy: torchmetrics takes 4.6 s to import on top of torch, more than evaluating ten thousand
digits, and each score here is a line or two. torchmetrics and scikit-learn are the references in the tests.

Odd: a score that is not defined is None, never 0: the recall of a class without images, the precision of a
class that was never predicted. Averages over classes count the classes that have images. Equal probabilities
rank by class number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tesela.metrics.calibration import Floats, Integers, Reliability, brier_scores, log_losses
from tesela.metrics.exact import ExactSums

DEFAULT_TOP = 5
"""The k of top-k that is always reported; fewer classes than that make it 1."""


class ClassificationScores:
    """Every score of a classifier, in memory that does not grow with the number of images.

    Args:
        labels: the K class names.
        top: another k of top-k to report, as ``top<k>`` beside ``top5``.
    """

    def __init__(self, labels: Sequence[str], *, top: int = DEFAULT_TOP) -> None:
        self._labels = labels
        self._confusion = np.zeros((len(labels), len(labels)), np.int64)
        self._hits = dict.fromkeys(sorted({DEFAULT_TOP, top}), 0)
        self._means = ExactSums(2)  # log loss, Brier score
        self._reliability = Reliability()

    @property
    def images(self) -> int:
        """Images counted in."""
        return int(self._confusion.sum())

    @property
    def correct(self) -> int:
        """Images whose most probable class is the true one."""
        return int(self._confusion.trace())

    def update(self, probabilities: Floats, targets: Integers) -> None:
        """Count in probabilities (N, K), whose rows sum to 1, and true classes (N,)."""
        self._confusion += confusion_matrix(targets, probabilities.argmax(1), classes=len(self._labels))
        ranks = true_ranks(probabilities, targets)
        self._hits = {k: hits + int((ranks < k).sum()) for k, hits in self._hits.items()}
        values = np.concatenate([log_losses(probabilities, targets), brier_scores(probabilities, targets)])
        self._means.add(values, np.repeat(np.arange(2), len(targets)))
        self._reliability.update(probabilities, targets)

    def merge(self, other: ClassificationScores) -> None:
        """Count in what another has seen."""
        self._confusion += other._confusion
        self._hits = {k: hits + other._hits[k] for k, hits in self._hits.items()}
        self._means.merge(other._means)
        self._reliability.merge(other._reliability)

    def result(self) -> dict[str, Any]:
        """Every score, in plain Python values that JSON takes.

        At least one image must have been counted in.
        """
        total, labels = self.images, self._labels
        classes = per_class(self._confusion, labels)
        nll, brier = self._means.over([total, total])
        return {
            "images": total,
            "correct": self.correct,
            "accuracy": self.correct / total,
            "majority": int(self._confusion.sum(1).max()) / total,
            "accuracy_interval": list(wilson_interval(self.correct, total)),
            **{f"top{k}": hits / total for k, hits in self._hits.items()},
            "balanced_accuracy": _mean(row["recall"] for row in classes if row["support"]),
            "macro_f1": _mean(row["f1"] for row in classes if row["support"]),
            "nll": nll,
            "brier": brier,
            "ece": self._reliability.error(),
            "ece_bins": self._reliability.bins,
            "per_class": classes,
            "most_confused": most_confused(self._confusion, labels),
            "reliability": self._reliability.rows(),
            "confusion": self._confusion.tolist(),
        }


def true_ranks(probabilities: Floats, targets: Integers) -> Integers:
    """(N,) number of classes that come before the true one.

    More probable, or as probable with a lower number.
    """
    true = probabilities[np.arange(len(targets)), targets][:, None]
    earlier = np.arange(probabilities.shape[1])[None] < targets[:, None]
    ranks: Integers = (probabilities > true).sum(1) + ((probabilities == true) & earlier).sum(1)
    return ranks


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
    """The pairs (true, predicted) with the most images, most first.

    ``share`` is of the true class's images.
    """
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
