"""Calibration scores against torchmetrics, scikit-learn, loops written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import softmax

from tesela.metrics.calibration import Reliability, brier_scores, fit_temperature, log_losses


def counted(probabilities: np.ndarray, targets: np.ndarray, *, bins: int = 15) -> Reliability:
    found = Reliability(bins)
    found.update(probabilities, targets)
    return found


def random_case(seed: int, *, count: int = 500, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Logits with some truth in them, and targets."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, classes, count)
    logits = generator.normal(0, 1, (count, classes))
    logits[np.arange(count), targets] += 1.5
    return logits, targets


@pytest.mark.parametrize("seed", range(5))
def test_nll_and_brier_equal_scikit_learn(seed: int) -> None:
    """Reference: sklearn.metrics.log_loss and brier_score_loss (its multi-class form, not halved)."""
    from sklearn.metrics import brier_score_loss, log_loss

    logits, targets = random_case(seed)
    probabilities = softmax(logits, axis=1)
    assert log_losses(probabilities, targets).mean() == pytest.approx(
        log_loss(targets, probabilities), rel=1e-12
    )
    reference = brier_score_loss(targets, probabilities, scale_by_half=False, labels=np.arange(7))
    assert brier_scores(probabilities, targets).mean() == pytest.approx(reference, rel=1e-12)


@pytest.mark.parametrize("bins", [10, 15])
@pytest.mark.parametrize("seed", range(5))
def test_ece_equals_torchmetrics(seed: int, bins: int) -> None:
    """Reference: torchmetrics' multiclass_calibration_error with the L1 norm (float32 inside, hence 1e-5)."""
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    logits, targets = random_case(seed)
    probabilities = softmax(logits, axis=1)
    reference = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(targets), num_classes=7, n_bins=bins, norm="l1"
    )
    assert counted(probabilities, targets, bins=bins).error() == pytest.approx(float(reference), abs=1e-5)


def test_ece_equals_a_loop_written_out() -> None:
    """Reference: the definition of Guo et al. 2017, image by image, bins closed above."""
    logits, targets = random_case(9, count=200, classes=4)
    probabilities = softmax(logits, axis=1)
    members: dict[int, list[tuple[float, bool]]] = {}
    for row, target in zip(probabilities, targets, strict=True):
        bin_ = max(0, math.ceil(row.max() * 15) - 1)
        members.setdefault(bin_, []).append((row.max(), row.argmax() == target))
    gaps = [
        len(group)
        * abs(sum(right for _, right in group) / len(group) - sum(sure for sure, _ in group) / len(group))
        for group in members.values()
    ]
    assert counted(probabilities, targets).error() == pytest.approx(sum(gaps) / 200, rel=1e-12)
    assert sum(row["count"] for row in counted(probabilities, targets).rows()) == 200


def test_bins_by_hand() -> None:
    """Reference: four rows placed by hand, one on a bin's upper edge; empty bins have no accuracy."""
    probabilities = np.array([[1.0, 0.0], [0.8, 0.2], [0.2, 0.8], [0.55, 0.45]])
    rows = counted(probabilities, np.array([0, 0, 0, 1]), bins=5).rows()
    assert [row["count"] for row in rows] == [0, 0, 1, 2, 1]
    assert [row["accuracy"] for row in rows] == [None, None, 0.0, 0.5, 1.0]
    assert rows[3]["confidence"] == pytest.approx(0.8)
    assert counted(probabilities, np.array([0, 0, 0, 1]), bins=5).error() == pytest.approx(
        (0.55 + 2 * 0.3 + 0) / 4
    )


def test_nll_of_an_impossible_class_is_finite() -> None:
    """Reference: -log of the smallest normal float64."""
    assert log_losses(np.array([[1.0, 0.0]]), np.array([1]))[0] == pytest.approx(708.396, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_temperature_is_the_minimum_of_the_smoothed_log_loss(seed: int) -> None:
    """Reference: SciPy's bounded search over the logarithm of the temperature."""
    from scipy.optimize import minimize_scalar

    logits, targets = random_case(seed)
    logits *= (0.3, 1, 4, 11, 0.05)[seed]
    smooth = 1 / (len(targets) + 2)

    def loss(log_temperature: float) -> float:
        likely = np.log(softmax(logits / math.exp(log_temperature), axis=1))
        true = likely[np.arange(len(targets)), targets]
        return -float(((1 - smooth) * true + smooth * likely.mean(1)).mean())

    found = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9})
    assert fit_temperature(logits, targets) == pytest.approx(math.exp(found.x), rel=1e-4)


def test_a_model_without_a_mistake_is_not_made_infinitely_sure() -> None:
    """60 right answers are no proof of more than 1 - 1 / 62."""
    targets = np.arange(60) % 3
    logits = np.zeros((60, 3))
    logits[np.arange(60), targets] = 2.0
    sure = softmax(logits / fit_temperature(logits, targets), axis=1).max(1)
    assert sure == pytest.approx(1 - 1 / 62 * 2 / 3, abs=1e-3)
