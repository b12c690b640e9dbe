"""Chart axes: positions of values in the drawing, and round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A scale from ``low`` at ``start`` to ``high`` at ``end`` (in drawing units), linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The position of ``value``."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (value - low) / ((high - low) or 1.0) * (self.end - self.start)


def ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) between ``low`` and ``high``."""
    raw = ((high - low) or 1.0) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """At most ``most`` round values: powers of ten times 1, 2 and 5, or more or fewer of them."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values: list[float] = []
    for factors in ((1.0, 1.5, 2.0, 3.0, 5.0, 7.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
        values = _inside(low, high, (factor * 10.0**power for power in powers for factor in factors))
        if len(values) <= most:
            break
    return values[:: math.ceil(len(values) / most) or 1] or [math.sqrt(low * high)]


def time_ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """As ``log_ticks``, at round numbers of seconds, minutes and hours."""
    units = ((1.0, (1, 2, 5, 10, 20, 30)), (60.0, (1, 2, 5, 10, 20, 30)), (3600.0, (1, 2, 5, 10)))
    values = _inside(low, high, (unit * count for unit, counts in units for count in counts))
    return values[:: math.ceil(len(values) / most) or 1] or log_ticks(low, high, most=3)


def _inside(low: float, high: float, values: Iterable[float]) -> list[float]:
    return [value for value in values if low <= value <= high]
