"""Scores of embeddings: cross-validated probes, and the effective rank.

The images of each class are dealt into ``FOLDS`` folds in turn, and each fold is told by the others: by a
linear probe (least squares to 1 and -1 with an L2 penalty), and by the nearest neighbours (the vote of DINO,
arXiv 2104.14294, section 4.1). So no other images than those of a validation split are needed.

The effective rank is RankMe (Garrido et al. 2023, arXiv 2210.02885): the exponential of the entropy of the
singular values' shares. It is 1 where all embeddings are alike, and at most the smaller of their number and
their width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tesela.metrics.few_shot import neighbour_votes, ridge_classifier

FOLDS = 5
#: L2 penalty of the probe.
PROBE_PENALTY = 1.0


def effective_rank(embeddings: NDArray[np.floating]) -> float:
    """RankMe of embeddings (N, D), of at least one row; 0 where all are zero."""
    wide = embeddings.astype(np.float64)
    small = wide.T @ wide if wide.shape[0] > wide.shape[1] else wide @ wide.T
    values = np.sqrt(np.clip(np.linalg.eigvalsh(small), 0.0, None))
    total = values.sum()
    if total <= 0:
        return 0.0
    shares = values[values > 1e-7 * values.max()] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def folds_of(labels: NDArray[np.int64], folds: int = FOLDS) -> NDArray[np.int64]:
    """(N,) number of each row's fold; the rows of each class are dealt in turn."""
    found = np.zeros(len(labels), np.int64)
    for offset, label in enumerate(np.unique(labels)):
        rows = np.flatnonzero(labels == label)
        found[rows] = (np.arange(len(rows)) + offset) % folds
    return found


def probe_hits(embeddings: NDArray[np.floating], labels: NDArray[np.int64]) -> tuple[int, int]:
    """How many labels the linear probe and the nearest neighbours tell, by cross-validation.

    Args:
        embeddings: (N, D).
        labels: (N,) class numbers, 0 or above.
    """
    wide, folds = embeddings.astype(np.float64), folds_of(labels)
    linear = nearest = 0
    classes = int(labels.max(initial=0)) + 1
    for fold in np.unique(folds):
        held = folds == fold
        if held.all():
            continue
        known, asked, truth = wide[~held], wide[held], labels[~held]
        told = ridge_classifier(known, truth, classes=classes, l2=PROBE_PENALTY).predict(asked)
        votes = neighbour_votes(asked, known, truth, classes=classes)
        linear += int((told == labels[held]).sum())
        nearest += int((votes.argmax(1) == labels[held]).sum())
    return linear, nearest
