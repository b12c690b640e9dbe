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

Vectors = NDArray[np.float64]

FOLDS = 5
VOTERS, SHARPNESS = 20, 1 / 0.07
PENALTY = 1.0


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
    for fold in np.unique(folds):
        held = folds == fold
        if held.all():
            continue
        known, asked = wide[~held], wide[held]
        linear += int((_linear(known, labels[~held], asked) == labels[held]).sum())
        nearest += int((_nearest(known, labels[~held], asked) == labels[held]).sum())
    return linear, nearest


def _linear(known: Vectors, labels: NDArray[np.int64], asked: Vectors) -> NDArray[np.int64]:
    """Classes of ``asked`` (M, D) by ridge regression from standardised ``known`` (N, D)."""
    mean, deviation = known.mean(0), known.std(0)
    deviation[deviation <= 1e-12] = 1.0
    inputs, queries = (known - mean) / deviation, (asked - mean) / deviation
    wanted = np.full((len(labels), int(labels.max()) + 1), -1.0)
    wanted[np.arange(len(labels)), labels] = 1.0
    bias = wanted.mean(0)
    if len(inputs) >= inputs.shape[1]:
        gram = inputs.T @ inputs
        gram[np.diag_indices_from(gram)] += PENALTY
        weights = np.linalg.solve(gram, inputs.T @ (wanted - bias))
    else:
        gram = inputs @ inputs.T
        gram[np.diag_indices_from(gram)] += PENALTY
        weights = inputs.T @ np.linalg.solve(gram, wanted - bias)
    found: NDArray[np.int64] = (queries @ weights + bias).argmax(1)
    return found


def _nearest(known: Vectors, labels: NDArray[np.int64], asked: Vectors) -> NDArray[np.int64]:
    """Classes of ``asked`` (M, D) by the weighted vote of the most similar of ``known`` (N, D)."""
    count = min(VOTERS, len(known))
    likeness = _unit(asked) @ _unit(known).T  # (M, N)
    nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :count]
    weights = np.exp((np.take_along_axis(likeness, nearest, 1) - 1) * SHARPNESS)
    votes = np.zeros((len(asked), int(labels.max()) + 1))
    np.add.at(votes, (np.arange(len(asked))[:, None], labels[nearest]), weights)
    found: NDArray[np.int64] = votes.argmax(1)
    return found


def _unit(rows: Vectors) -> Vectors:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Vectors = rows / np.maximum(lengths, 1e-12)
    return unit
