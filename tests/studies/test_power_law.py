"""The saturating power law against scipy's least squares, and the coverage of its intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import curve_fit

from tesela.core.errors import DataError
from tesela.studies.power_law import fit_power_law, held_out

SIZES = (10, 30, 100, 300, 1000, 3000)


def law(x: np.ndarray, floor: float, scale: float, exponent: float) -> np.ndarray:
    return floor + scale * x**-exponent


def test_the_most_probable_law_is_that_of_least_squares() -> None:
    generator = np.random.default_rng(3)
    x = np.repeat(SIZES, 3).astype(float)
    errors = law(x, 0.12, 1.4, 0.4) + 0.01 * generator.standard_normal(len(x))
    fitted, (reference, _) = fit_power_law(x, errors), curve_fit(law, x, errors, p0=(0.1, 1, 0.5))
    for size in (10.0, 200.0, 3000.0):
        mine = law(np.array(size), fitted.floor, fitted.scale, fitted.exponent)
        assert mine == pytest.approx(law(np.array(size), *reference), abs=0.004)


def test_values_on_a_law_give_it_back() -> None:
    x = np.repeat(SIZES, 2).astype(float)
    fitted = fit_power_law(x, law(x, 0.0, 2.0, 0.5))
    assert fitted.exponent == pytest.approx(0.5, abs=0.021)
    assert fitted.forecast(10_000).error == pytest.approx(0.02, abs=0.003)


def test_intervals_cover_a_new_size_as_often_as_they_say() -> None:
    generator, inside, count = np.random.default_rng(0), 0, 120
    x = np.repeat(SIZES[:5], 3).astype(float)
    for _ in range(count):
        floor, scale, exponent = generator.uniform((0.0, 0.8, 0.2), (0.2, 1.6, 0.6))
        errors = law(x, floor, scale, exponent) + 0.01 * generator.standard_normal(len(x))
        there = law(np.full(3, 3000.0), floor, scale, exponent) + 0.01 * generator.standard_normal(3)
        found = fit_power_law(x, errors).forecast(3000.0, runs=3)
        inside += found.low <= there.mean() <= found.high
    assert 0.8 <= inside / count <= 0.99


def test_the_held_out_check_finds_a_curve_that_stops_falling() -> None:
    x = np.repeat(SIZES, 3).astype(float)
    errors = law(x, 0.0, 1.5, 0.4) + 0.003 * np.random.default_rng(1).standard_normal(len(x))
    assert held_out(x, errors).inside
    stuck = np.where(x == max(SIZES), 0.3, errors)
    assert not held_out(x, stuck).inside
    assert held_out(x, stuck).measured == pytest.approx(0.3)


def test_fewer_sizes_give_wider_intervals() -> None:
    x = np.repeat(SIZES, 3).astype(float)
    errors = law(x, 0.1, 1.4, 0.4) + 0.01 * np.random.default_rng(5).standard_normal(len(x))
    many, few = (fit_power_law(x[:count], errors[:count]).forecast(30_000) for count in (18, 9))
    assert few.high - few.low > 1.5 * (many.high - many.low)


@pytest.mark.parametrize(
    ("x", "errors", "said"),
    [
        ((10, 10, 100, 100), (0.5, 0.5, 0.3, 0.3), "at 2 sizes"),
        ((10, 100, 1000), (0.5, 0.4, 0.3), "3 values"),
        ((10, 30, 100, 300), (0.2, 0.3, 0.4, 0.5), "do not fall"),
        ((10, 30, 100, 300), (0.5, 0.5, 0.5, 0.5), "do not fall"),
    ],
)
def test_what_gives_no_law_is_refused(x: tuple[float, ...], errors: tuple[float, ...], said: str) -> None:
    with pytest.raises(DataError, match=said):
        fit_power_law(x, errors)
