"""Exact sums of float64 numbers: the same bits for any order, batch or number of ranks.

Each number is a whole multiple of 2^-1074, so sums are kept as Python's unbounded integers in that unit and
rounded once, at the end (the idea of Shewchuk 1997 and of math.fsum, in a form that can be merged).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

_DIGITS = 53  # of a float64's mantissa
_HALF = 26
_UNIT = 1074 + _DIGITS


class ExactSums:
    """A fixed number of running sums.

    Args:
        count: how many.
    """

    def __init__(self, count: int = 1) -> None:
        self._totals = [0] * count

    def add(self, values: npt.NDArray[np.floating[Any]], places: npt.NDArray[np.int64] | None = None) -> None:
        """Add finite values (N,), each to the sum that ``places`` (N,) names.

        All to the first one by default.
        """
        mantissas, exponents = np.frexp(values.astype(np.float64))
        whole = np.ldexp(mantissas, _DIGITS).astype(np.int64)
        high, low = whole >> _HALF, whole & ((1 << _HALF) - 1)
        where = np.zeros(len(values), np.int64) if places is None else places
        keys = np.stack([where, exponents.astype(np.int64)])
        groups, group = np.unique(keys, axis=1, return_inverse=True)
        sums = np.zeros((2, groups.shape[1]), np.int64)  # halves of 27 bits: 2^36 of them fit
        np.add.at(sums[0], group.reshape(-1), high)
        np.add.at(sums[1], group.reshape(-1), low)
        for (place, exponent), top, bottom in zip(groups.T.tolist(), *sums.tolist(), strict=True):
            self._totals[place] += ((top << _HALF) + bottom) << (exponent + _UNIT - _DIGITS)

    def merge(self, other: ExactSums) -> None:
        """Add another's sums to these, one by one."""
        self._totals = [mine + its for mine, its in zip(self._totals, other._totals, strict=True)]

    def over(self, counts: list[int]) -> list[float]:
        """Each sum divided by a whole number and rounded once; 0 where the divisor is 0."""
        unit = 1 << _UNIT
        pairs = zip(self._totals, counts, strict=True)
        return [float(Fraction(total, unit * count)) if count else 0.0 for total, count in pairs]
