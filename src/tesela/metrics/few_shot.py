"""Closed-form classifiers of frozen features: ridge regression, nearest neighbours.

The few-shot accuracy of the ViT paper (arXiv 2010.11929, section 4.1) is that of a regularised least-squares
regression from the features of a few images of each class to targets in {-1, 1}^K. Features are standardised
by those images first, as the paper's code does. The intercept is not regularised.

Odd: a feature that is constant over those images says nothing and gets the weight 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tesela.core.errors import ConfigError
from tesela.metrics.calibration import Floats, Integers

#: Weight of the squared weights of standardised features.
RIDGE_L2 = 10.0
#: As in DINO (arXiv 2104.14294, section 4.1): how many neighbours vote, and how sharply by similarity.
NEIGHBOURS, TEMPERATURE = 20, 0.07
_ROWS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearClassifier:
    """A linear map of features, float64.

    Attributes:
        weights: (D, K).
        bias: (K,).
    """

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    def scores(self, features: Floats) -> NDArray[np.float64]:
        """(N, K) scores of features (N, D); the largest names the class."""
        found: NDArray[np.float64] = features.astype(np.float64) @ self.weights + self.bias
        return found

    def predict(self, features: Floats) -> Integers:
        """(N,) class numbers of features (N, D); of equal scores the lower number."""
        found: Integers = self.scores(features).argmax(1)
        return found

    def of_standardised(self, mean: NDArray[np.float64], std: NDArray[np.float64]) -> LinearClassifier:
        """The same classifier for features as they are, where this one takes them standardised."""
        weights = self.weights / std[:, None]
        return LinearClassifier(weights=weights, bias=self.bias - mean @ weights)


def standardisation(features: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (D,) of each feature over rows (N, D); infinite where it is constant."""
    values = features.astype(np.float64)
    mean, std = values.mean(0), values.std(0)
    rounding = 10 * np.finfo(features.dtype).eps * np.abs(mean)  # of the features, as they were computed
    return mean, np.where(std > rounding, std, np.inf)


def ridge_classifier(
    features: Floats, targets: Integers, *, classes: int, l2: float = RIDGE_L2
) -> LinearClassifier:
    """Solve min over W, b of sum |x W + b - y|^2 + l2 |W|^2 exactly, y being 1 at the class and -1 elsewhere.

    By the normal equations of features or of images, whichever are fewer.

    Args:
        features: (N, D), finite.
        targets: (N,) class numbers.
        classes: K.
        l2: above 0.

    Raises:
        ConfigError: ``l2`` is not above 0.
    """
    if not l2 > 0:
        raise ConfigError(f"l2 of the ridge regression must be above 0, not {l2}", hint="10 is usual")
    mean, std = standardisation(features)
    inputs = (features.astype(np.float64) - mean) / std  # (N, D), each column's mean is 0
    wanted = np.where(targets[:, None] == np.arange(classes), 1.0, -1.0)  # (N, K)
    bias = wanted.mean(0)
    rows, columns = inputs.shape
    if columns <= rows:
        gram = inputs.T @ inputs + l2 * np.eye(columns)
        weights = np.linalg.solve(gram, inputs.T @ (wanted - bias))
    else:
        gram = inputs @ inputs.T + l2 * np.eye(rows)
        weights = inputs.T @ np.linalg.solve(gram, wanted - bias)
    return LinearClassifier(weights=weights, bias=bias).of_standardised(mean, std)


def neighbour_votes(
    features: Floats,
    bank: Floats,
    bank_targets: Integers,
    *,
    classes: int,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> NDArray[np.float64]:
    """(N, K) votes of the most similar rows of a bank: each gives exp(cosine / temperature) to its class.

    Args:
        features: (N, D).
        bank: (M, D), at least one row.
        bank_targets: (M,) class numbers.
        classes: K.
        neighbours: how many vote; all where the bank has fewer.
        temperature: of the weights.
    """
    known, most = _unit(bank), min(neighbours, len(bank))
    votes = np.zeros((len(features), classes))
    for start in range(0, len(features), _ROWS):
        cosines = _unit(features[start : start + _ROWS]) @ known.T  # (R, M)
        nearest = np.argpartition(-cosines, most - 1, axis=1)[:, :most]
        weights = np.exp((np.take_along_axis(cosines, nearest, 1) - 1) / temperature)
        rows = np.arange(start, start + len(cosines))
        np.add.at(votes, (np.repeat(rows, most), bank_targets[nearest].reshape(-1)), weights.reshape(-1))
    return votes


def _unit(features: Floats) -> NDArray[np.float64]:
    """Rows of length 1; a row of zeros stays one."""
    values = features.astype(np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    found: NDArray[np.float64] = values / np.where(lengths > 0, lengths, 1)
    return found
