"""Numbers as text for people: durations, sizes in bytes, percentages, counts."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds in the two units that suit: ``4.1 s``, ``42 s``, ``1 min 35 s``, ``2 h 01 min``.

    Zeros at the end are dropped.
    """
    if seconds < 9.95:
        return f"{round(seconds, 1):g} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if seconds < 3599.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min" + (f" {rest:02d} s" if rest else "")
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h" + (f" {minutes:02d} min" if minutes else "")


def byte_size(count: int | None) -> str:
    """Bytes in the decimal unit that suits, ``1.5 KB``; ``unknown`` for None and negative counts."""
    if count is None or count < 0:
        return "unknown"
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def percent(share: float, digits: int | None = None) -> str:
    """A share as a percentage: ``12.5 %``.

    With as many decimals as it has, at most four digits, or exactly ``digits``.
    """
    return f"{share * 100:.4g} %" if digits is None else f"{share * 100:.{digits}f} %"


def number(value: float) -> str:
    """A number for an axis: short, without an exponent if that can be avoided."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:g}"
    digits, _, power = f"{value:e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def compact(value: float) -> str:
    """Three digits with a metric letter: ``86567656`` as ``86.6M``, ``0.05`` as it is."""
    for unit, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"
