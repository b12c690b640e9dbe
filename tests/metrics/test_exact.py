"""Exact sums against fractions and math.fsum."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from tesela.metrics.exact import ExactSums


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_sum_of_fractions_for_any_order(seed: int) -> None:
    """Reference: the sum in rational numbers, rounded once; magnitudes from 1e-300 to 1e300, both signs."""
    generator = np.random.default_rng(seed)
    values = generator.normal(0, 1, 300) * 10.0 ** generator.integers(-300, 300, 300)
    values = np.concatenate([values, [0.0, 5e-324, -5e-324]])
    wanted = float(sum((Fraction(value) for value in values.tolist()), Fraction(0)) / 303)
    for order in (values, values[::-1], generator.permutation(values)):
        sums = ExactSums()
        for part in np.array_split(order, 7):
            sums.add(part)
        assert sums.over([303]) == [wanted]


def test_places_and_merging() -> None:
    """Reference: math.fsum over each group."""
    generator = np.random.default_rng(1)
    values, places = generator.random(1000), generator.integers(0, 4, 1000)
    first, second = ExactSums(4), ExactSums(4)
    first.add(values[:400], places[:400])
    second.add(values[400:], places[400:])
    first.merge(second)
    assert first.over([1, 1, 1, 1]) == [math.fsum(values[places == place]) for place in range(4)]
    assert ExactSums(2).over([0, 3]) == [0.0, 0.0]
