"""Scatter chart of numbered dots with error bars over a logarithmic axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tesela.core.format import compact, percent
from tesela.page.charts.axis import Axis, log_ticks
from tesela.page.charts.figure import Chart, Format, horizontal, line, text, vertical, x_axis, y_axis
from tesela.page.element import element


@dataclass(frozen=True, kw_only=True, slots=True)
class Dot:
    """One dot: its place, half the length of its error bar, the number in it and its tooltip."""

    x: float
    y: float
    error: float
    number: int
    tip: str


def scatter_chart(
    dots: Sequence[Dot],
    *,
    title: str,
    x_label: str,
    x_format: Format = compact,
    x_ticks: Callable[[float, float], list[float]] = log_ticks,
) -> Chart:
    """Shares over a logarithmic axis; dots at ``x`` <= 0 are left out, the first dot lies on top."""
    dots = [dot for dot in dots if dot.x > 0]
    if not dots:
        return Chart(title=title, body=())
    left, right = (pick(dot.x for dot in dots) for pick in (min, max))
    room = max(10**0.12, (right / left) ** 0.08)
    x = horizontal(left / room, right * room, log=True)
    bottom, top = min(dot.y - dot.error for dot in dots), max(dot.y + dot.error for dot in dots)
    room = (top - bottom) * 0.1 or 0.01
    y = vertical(bottom - room, min(top, 1.0) + room)
    axis = x_axis(x, x_label, form=x_format, values=x_ticks(x.low, x.high))
    marks = (part for dot in reversed(dots) for part in _dot(dot, x(dot.x), y))
    return Chart(title=title, body=[*y_axis(y, percent), *axis, *marks])


def _dot(dot: Dot, x: float, axis: Axis) -> list[Markup]:
    y, ends = axis(dot.y), (axis(dot.y - dot.error), axis(dot.y + dot.error))
    bar = [line("bar", x, ends[0], x, ends[1])] if dot.error else []
    return [
        *bar,
        element("circle", "dot tone1", element("title", "", dot.tip), cx=x, cy=y, r=9),
        text("count on", str(dot.number), x, y + 4),
    ]
