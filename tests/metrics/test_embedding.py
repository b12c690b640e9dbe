"""Probes and effective rank of embeddings, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from tesela.metrics.embedding import effective_rank, folds_of, probe_hits


def test_rank_of_matrices_that_are_known() -> None:
    assert effective_rank(np.eye(7)) == pytest.approx(7)
    assert effective_rank(np.ones((50, 8))) == pytest.approx(1)
    assert effective_rank(np.zeros((5, 3))) == 0
    values = np.array([3.0, 1.0])
    shares = values / values.sum()
    assert effective_rank(np.diag(values)) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    tall = np.random.default_rng(0).normal(size=(60, 9))
    assert effective_rank(tall) == pytest.approx(effective_rank(tall.T), rel=1e-9)


@pytest.mark.parametrize("count", [40, 300])
def test_probes_are_those_of_scikit_learn(count: int) -> None:
    """Fewer images than dimensions, and more."""
    data = load_digits()
    inputs, labels = data.data[:count], data.target[:count].astype(np.int64)
    folds = folds_of(labels)
    linear = nearest = 0
    for fold in range(5):
        held = folds == fold
        scaler = StandardScaler().fit(inputs[~held])
        wanted = np.where(labels[~held][:, None] == np.arange(10), 1.0, -1.0)
        ridge = Ridge(alpha=1.0).fit(scaler.transform(inputs[~held]), wanted)
        linear += int((ridge.predict(scaler.transform(inputs[held])).argmax(1) == labels[held]).sum())
        voters = KNeighborsClassifier(
            20, metric="cosine", algorithm="brute", weights=lambda distances: np.exp(-distances / 0.07)
        ).fit(inputs[~held], labels[~held])
        nearest += int((voters.predict(inputs[held]) == labels[held]).sum())
    assert probe_hits(inputs, labels) == (linear, nearest)


def test_each_class_is_dealt_into_all_folds() -> None:
    labels = np.repeat(np.arange(3), 10)
    folds = folds_of(labels)
    assert all((np.bincount(folds[labels == label], minlength=5) == 2).all() for label in range(3))
    assert probe_hits(np.zeros((1, 4)), np.array([0])) == (0, 0), "a single image cannot be told by others"
