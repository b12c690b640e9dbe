"""Intervals of means over seeds against scipy, and the verdicts that follow from them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tesela.metrics.classification import wilson_interval
from tesela.studies.interval import (
    above,
    alike,
    mean_interval,
    paired_difference,
    points_text,
    student_quantile,
)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8, 9, 30, 101])
def test_quantiles_of_student_are_scipys(freedom: int) -> None:
    assert student_quantile(0.95, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


def test_the_interval_of_a_mean_is_scipys() -> None:
    values = [0.41, 0.44, 0.39]
    found = mean_interval(values)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)
    assert found.deviation == pytest.approx(np.std(values, ddof=1))


def test_one_value_has_the_interval_of_its_images() -> None:
    found = mean_interval([0.7], images=200)
    assert (found.low, found.high) == wilson_interval(140, 200)
    assert found.deviation is None
    assert not mean_interval([0.7]).bounded


def test_differences_are_taken_seed_by_seed() -> None:
    difference = paired_difference([0.5, 0.6, 0.7], [0.4, 0.5, 0.6])
    assert difference.mean == pytest.approx(0.1)
    assert difference.deviation == pytest.approx(0, abs=1e-12)
    assert above(difference) == "holds"
    assert above(paired_difference([0.4, 0.5, 0.6], [0.5, 0.6, 0.7])) == "does not hold"
    assert above(paired_difference([0.5, 0.4, 0.6], [0.4, 0.6, 0.5])) == "undecided"
    assert above(paired_difference([0.9], [0.1])) == "undecided"


def test_likeness_is_a_matter_of_the_margin() -> None:
    near, far = paired_difference([0.500, 0.502], [0.501, 0.500]), paired_difference([0.5, 0.5], [0.4, 0.4])
    wide = paired_difference([0.5, 0.9], [0.5, 0.4])
    assert alike([near], margin=0.01) == "holds"
    assert alike([near, far], margin=0.01) == "does not hold"
    assert alike([near, wide], margin=0.01) == "undecided"
    assert alike([paired_difference([0.5], [0.5])], margin=0.01) == "undecided"


@pytest.mark.parametrize(
    ("share", "text"), [(0.0214, "+2.1"), (-0.004, "\N{MINUS SIGN}0.4"), (-0.0003, "0.0"), (0.0, "0.0")]
)
def test_points_have_a_sign_where_they_differ_from_none(share: float, text: str) -> None:
    assert points_text(share) == text
