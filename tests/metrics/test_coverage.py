"""Coverage against the definition, every candidate tried."""

from __future__ import annotations

import numpy as np
import pytest

from tesela.metrics.coverage import Coverage


def brute(features: np.ndarray, weights: np.ndarray, taken: list[int], count: int) -> list[int]:
    """The greedy choice, each gain computed anew."""
    centred = features - features.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    likeness, chosen = 1 + unit @ unit.T, list(taken)

    def value(rows: list[int]) -> float:
        return float(weights @ likeness[:, rows].max(1)) if rows else 0.0

    for _ in range(count):
        free = [row for row in range(len(features)) if row not in chosen]
        chosen.append(max(free, key=lambda row: value([*chosen, row])))
    return chosen[len(taken) :]


@pytest.mark.parametrize("taken", [[], [3, 17]])
@pytest.mark.parametrize("seed", range(3))
def test_choices_are_those_of_the_plain_greedy_algorithm(taken: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    features, weights = random.normal(size=(60, 5)), random.uniform(size=60)
    coverage = Coverage(features, weights)
    coverage.cover(np.array(taken, np.int64))
    free = np.setdiff1d(np.arange(60), taken)
    assert coverage.choose(free, 12).tolist() == brute(features, weights, taken, 12)


def test_the_first_choices_are_of_different_groups_and_an_outlier_waits() -> None:
    random = np.random.default_rng(0)
    centres = np.eye(6)[:5] * 8
    groups = np.repeat(np.arange(5), [50, 40, 30, 20, 1])
    features = centres[groups] + 0.3 * random.normal(size=(141, 6))
    chosen = Coverage(features).choose(np.arange(141), 5)
    assert sorted(groups[chosen[:4]].tolist()) == [0, 1, 2, 3]


def test_share_grows_to_one_and_rows_run_out() -> None:
    features = np.random.default_rng(1).normal(size=(9, 3))
    coverage, shares = Coverage(features), [0.0]
    for _ in range(3):
        coverage.choose(np.arange(9), 1)
        shares.append(coverage.share())
    assert shares == sorted(shares)
    assert len(Coverage(features).choose(np.arange(9), 20)) == 9
    coverage.cover(np.arange(9))
    assert coverage.share() == pytest.approx(1.0)


def test_one_row_and_equal_rows_are_taken() -> None:
    assert Coverage(np.ones((1, 4))).choose(np.array([0]), 3).tolist() == [0]
    assert Coverage(np.ones((3, 4))).choose(np.arange(3), 2).tolist() == [0, 1]
