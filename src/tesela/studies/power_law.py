"""Saturating power law, error = floor + scale * x ** -exponent, with its uncertainty.

Floor and exponent run over a grid; given these two, the law is linear in the scale, so scale and noise have a
closed form (flat prior on the scale above 0, 1 / sigma on the noise). Curves are drawn from that posterior,
and quantiles of the draws are the intervals: with too few sizes to tell the three numbers apart, they are
wide. Source of the form: Hestness et al. 2017, arXiv 1712.00409, section 2. Odd: noise is taken to be equal
at all sizes; at large ones it is usually less, so that intervals there are rather too wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tesela.core.errors import DataError

LEAST_SIZES = 3
LAW_DRAWS = 4000
FLOORS, EXPONENTS = 61, 100
LARGEST_EXPONENT = 2.0
LAW_LEVEL = 0.9

Values = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """An expected error, and an interval that a measured mean falls into nine times in ten."""

    x: float
    error: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerLaw:
    """A fitted law.

    Attributes:
        floor: error that no size goes below, of the most probable law.
        scale: its factor.
        exponent: its power.
        draws: (LAW_DRAWS, 4), floor, scale, exponent and noise of laws drawn from the posterior.
    """

    floor: float
    scale: float
    exponent: float
    draws: NDArray[np.float64]

    def errors(self, x: float) -> NDArray[np.float64]:
        """(LAW_DRAWS,) expected error at ``x`` by each drawn law."""
        floor, scale, exponent, _ = self.draws.T
        found: NDArray[np.float64] = floor + scale * x**-exponent
        return found

    def band(self, x: float) -> tuple[float, float]:
        """Interval of the curve itself at ``x``."""
        low, high = np.quantile(self.errors(x), [(1 - LAW_LEVEL) / 2, (1 + LAW_LEVEL) / 2])
        return float(low), float(high)

    def forecast(self, x: float, *, runs: int = 1) -> Forecast:
        """What the mean of so many runs at ``x`` will be; never outside 0..1."""
        noise = np.random.default_rng(1).standard_normal(len(self.draws)) * self.draws[:, 3]
        values = self.errors(x) + noise / np.sqrt(runs)
        low, middle, high = np.quantile(values, [(1 - LAW_LEVEL) / 2, 0.5, (1 + LAW_LEVEL) / 2])
        error, low, high = (float(np.clip(value, 0.0, 1.0)) for value in (middle, low, high))
        return Forecast(x=x, error=error, low=low, high=high)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """A forecast of the largest size by a law that has not seen it.

    Attributes:
        forecast: of the mean error there.
        measured: that mean.
    """

    forecast: Forecast
    measured: float

    @property
    def inside(self) -> bool:
        """Whether the interval contains what was measured."""
        return self.forecast.low <= self.measured <= self.forecast.high

    def mapping(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self.forecast), "measured": self.measured, "inside": self.inside}


def fit_power_law(x: Values, errors: Values, *, seed: int = 0) -> PowerLaw:
    """Fit the law to measured errors.

    Args:
        x: (N,) sizes above 0, such as labels of each class; several values may have the same size.
        errors: (N,) 1 - accuracy.
        seed: of the draws.

    Raises:
        DataError: there are fewer than three sizes or four values, or errors do not fall with the size.
    """
    sizes, values = np.asarray(x, np.float64), np.asarray(errors, np.float64)
    if len(np.unique(sizes)) < LEAST_SIZES or len(values) <= LEAST_SIZES:
        raise DataError(
            f"{len(values)} values at {len(np.unique(sizes))} sizes do not give the three numbers of a law",
            hint="add sizes or seeds",
        )
    unit = float(np.exp(np.log(sizes).mean()))  # so that scale and exponent are hardly correlated
    floors = np.linspace(0.0, float(values.min()), FLOORS, endpoint=False)
    exponents = np.linspace(LARGEST_EXPONENT / EXPONENTS, LARGEST_EXPONENT, EXPONENTS)
    falls = (sizes / unit) ** -exponents[:, None]  # (A, N)
    rests = values - floors[:, None]  # (F, N)
    squares = (falls**2).sum(1)  # (A,)
    scales = rests @ falls.T / squares  # (F, A)
    misfit = (rests**2).sum(1)[:, None] - scales**2 * squares
    tiny = 1e-12 + 1e-9 * float((values**2).sum())  # of values that lie on a law
    misfit = np.maximum(misfit, tiny)
    free = len(values) - 1
    logs = np.where(scales > 0, -0.5 * np.log(squares) - 0.5 * free * np.log(misfit), -np.inf)
    best = np.unravel_index(int(logs.argmax()), logs.shape)
    if not np.isfinite(logs[best]) or _rises(sizes, values):
        raise DataError("errors do not fall with the size", hint="train longer, or add larger sizes")
    weights = np.exp(logs - logs[best])
    generator = np.random.default_rng(seed)
    rows, columns = np.unravel_index(
        generator.choice(logs.size, LAW_DRAWS, p=(weights / weights.sum()).ravel()), logs.shape
    )
    noise = np.sqrt(misfit[rows, columns] / generator.chisquare(free, LAW_DRAWS))
    wobble = np.abs(
        scales[rows, columns] + noise / np.sqrt(squares[columns]) * generator.standard_normal(LAW_DRAWS)
    )
    powers = exponents[columns]
    power = float(exponents[best[1]])
    return PowerLaw(
        floor=float(floors[best[0]]),
        scale=float(scales[best]) * unit**power,
        exponent=power,
        draws=np.stack([floors[rows], wobble * unit**powers, powers, noise], axis=1),
    )


def held_out(x: Values, errors: Values) -> HeldOut:
    """Fit without the largest size, and forecast it.

    Raises:
        DataError: what is left is too little for a law.
    """
    largest = max(x)
    rest = [(size, error) for size, error in zip(x, errors, strict=True) if size < largest]
    there = [error for size, error in zip(x, errors, strict=True) if size == largest]
    law = fit_power_law([size for size, _ in rest], [error for _, error in rest])
    return HeldOut(forecast=law.forecast(largest, runs=len(there)), measured=float(np.mean(there)))


def _rises(sizes: NDArray[np.float64], values: NDArray[np.float64]) -> bool:
    """Whether the error is, on the whole, larger at larger sizes."""
    return bool(np.corrcoef(np.log(sizes), values)[0, 1] >= 0) if values.std() > 0 else True
