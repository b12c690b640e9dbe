"""Means over seeds with 95 % intervals, and what a difference between two of them says.

With several values the interval is Student's t of their mean; with one, Wilson's of the images that it was
measured on. Differences are taken seed by seed, since a seed draws the same images for all that is compared.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np

from tesela.metrics.classification import wilson_interval

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A mean with its interval.

    Attributes:
        mean: of the values.
        low: lower end of the interval; the mean where none is known.
        high: upper end.
        deviation: standard deviation over seeds, None for one.
        count: number of values.
    """

    mean: float
    low: float
    high: float
    deviation: float | None
    count: int

    @property
    def bounded(self) -> bool:
        """Whether an interval is known."""
        return self.low < self.high or self.count > 1

    def mapping(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def mean_interval(values: Sequence[float], *, images: int | None = None) -> Estimate:
    """The mean of some values, with its interval.

    Args:
        values: one for each seed.
        images: how many images each share is of, for the interval of a single one.
    """
    mean = statistics.fmean(values)
    if len(values) > 1:
        deviation = statistics.stdev(values)
        half = student_quantile(CONFIDENCE, len(values) - 1) * deviation / math.sqrt(len(values))
        return Estimate(mean=mean, low=mean - half, high=mean + half, deviation=deviation, count=len(values))
    low, high = wilson_interval(round(mean * images), images) if images else (mean, mean)
    return Estimate(mean=mean, low=low, high=high, deviation=None, count=1)


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """First minus second, seed by seed; without an interval where there is one seed."""
    return mean_interval([one - other for one, other in zip(first, second, strict=True)])


def above(difference: Estimate) -> str:
    """Whether a difference is above 0: ``holds``, ``does not hold``, or ``undecided``."""
    if not difference.bounded:
        return "undecided"
    if difference.low > 0:
        return "holds"
    return "does not hold" if difference.high < 0 else "undecided"


def alike(differences: Sequence[Estimate], *, margin: float) -> str:
    """Whether differences are within ``margin`` of 0.

    ``does not hold`` where one is beyond it and its interval leaves out 0; ``holds`` where all are within it.
    """
    if not differences or not all(one.bounded for one in differences):
        return "undecided"
    beyond = [one for one in differences if abs(one.mean) > margin]
    if any(one.low > 0 or one.high < 0 for one in beyond):
        return "does not hold"
    return "undecided" if beyond else "holds"


def points_text(share: float) -> str:
    """A difference of shares in points: ``+2.1``, ``−0.4``."""
    return signed_text(100 * share, digits=1)


def signed_text(value: float, *, digits: int) -> str:
    """A difference with its sign; without one where it rounds to 0."""
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else f"{0:.{digits}f}"


@cache
def student_quantile(level: float, freedom: int) -> float:
    """The t within which Student's distribution has ``level`` of its mass on both sides of 0.

    Found by bisection on its closed form for whole degrees of freedom (Abramowitz and Stegun, 26.7.3-4).
    """
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_mass(middle, freedom) < level else (low, middle)
    return (low + high) / 2


def _student_mass(t: float, freedom: int) -> float:
    """Mass between -t and t."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    if freedom % 2:
        factors = [square * (2 * k) / (2 * k + 1) for k in range(1, (freedom - 1) // 2)]
        series = float(np.cumprod([1.0, *factors]).sum()) if freedom > 1 else 0.0
        return 2 / math.pi * (angle + sine * math.cos(angle) * series)
    factors = [square * (2 * k - 1) / (2 * k) for k in range(1, freedom // 2)]
    return sine * float(np.cumprod([1.0, *factors]).sum())
