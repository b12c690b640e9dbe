"""Closed-form classifiers of features against scikit-learn, in float64."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from tesela.core.errors import ConfigError
from tesela.metrics.few_shot import neighbour_votes, ridge_classifier


def clusters(count: int, width: int, *, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of overlapping classes, of very different scales, with a shift."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    targets = np.arange(count) % classes
    features = (centres[targets] + 1.5 * random.normal(size=(count, width))) * np.logspace(-3, 3, width) + 7
    return features, targets


@pytest.mark.parametrize(("count", "width"), [(5, 40), (40, 40), (200, 12), (25, 384)])
@pytest.mark.parametrize("l2", [1e-3, 1.0, 1024.0])
def test_ridge_equals_scikit_learn_in_float64(count: int, width: int, l2: float) -> None:
    """Reference: StandardScaler and Ridge, on fewer and on more images than features."""
    features, targets = clusters(count, width)
    others, _ = clusters(300, width, seed=1)
    found = ridge_classifier(features, targets, classes=5, l2=l2)
    scaler = StandardScaler().fit(features)
    wanted = np.where(targets[:, None] == np.arange(5), 1.0, -1.0)
    reference = Ridge(alpha=l2, solver="cholesky").fit(scaler.transform(features), wanted)
    expected = reference.predict(scaler.transform(others))
    np.testing.assert_allclose(found.scores(others), expected, rtol=1e-7, atol=1e-9)
    assert (found.predict(others) == expected.argmax(1)).all()


def test_ridge_minimises_its_objective() -> None:
    """Reference: the gradient of the regularised squared error, zero at the minimum."""
    features, targets = clusters(60, 8)
    found = ridge_classifier(features, targets, classes=5, l2=3.0)
    std = features.std(0)
    residual = found.scores(features) - np.where(targets[:, None] == np.arange(5), 1.0, -1.0)
    gradient = ((features - features.mean(0)) / std).T @ residual + 3.0 * found.weights * std[:, None]
    assert np.abs(gradient).max() < 1e-10
    assert np.abs(residual.sum(0)).max() < 1e-10  # the intercept is free


def test_constant_features_say_nothing() -> None:
    features, targets = clusters(50, 6)
    constant = np.hstack([features, np.full((50, 2), [0.1, -3e5])])
    others = np.hstack([clusters(20, 6, seed=2)[0], np.random.default_rng(0).normal(size=(20, 2))])
    found = ridge_classifier(constant, targets, classes=5)
    assert (found.weights[6:] == 0).all()
    expected = ridge_classifier(features, targets, classes=5).scores(others[:, :6])
    np.testing.assert_allclose(found.scores(others), expected, rtol=1e-12, atol=1e-12)


def test_constant_features_of_float32_are_found_in_spite_of_rounding() -> None:
    features, targets = clusters(50, 6)
    noise = np.float32(0.1) * (1 + np.finfo(np.float32).eps * (np.arange(50, dtype=np.float32) % 2))
    found = ridge_classifier(np.column_stack([features, noise]).astype(np.float32), targets, classes=5)
    assert (found.weights[6] == 0).all()


@pytest.mark.parametrize("neighbours", [1, 7, 20, 500])
def test_votes_of_neighbours_equal_scikit_learn(neighbours: int) -> None:
    """Reference: KNeighborsClassifier by cosine with the same weights, by brute force."""
    bank, bank_targets = clusters(120, 6)
    features, _ = clusters(1500, 6, seed=3)
    votes = neighbour_votes(features, bank, bank_targets, classes=5, neighbours=neighbours)
    reference = KNeighborsClassifier(
        min(neighbours, 120),
        metric="cosine",
        algorithm="brute",
        weights=lambda distances: np.exp(-distances / 0.07),
    ).fit(bank, bank_targets)
    expected = reference.predict_proba(features)
    np.testing.assert_allclose(votes / votes.sum(1, keepdims=True), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("l2", [0.0, -1.0, float("nan")])
def test_ridge_without_regularisation_is_refused(l2: float) -> None:
    features, targets = clusters(20, 4)
    with pytest.raises(ConfigError, match="above 0"):
        ridge_classifier(features, targets, classes=5, l2=l2)
