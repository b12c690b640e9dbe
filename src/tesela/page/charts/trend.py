"""Trend chart: means with intervals over a logarithmic axis, and curves fitted to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tesela.core.format import compact, percent
from tesela.page.charts.axis import Axis, log_ticks
from tesela.page.charts.figure import Chart, Format, horizontal, line, vertical, x_axis, y_axis
from tesela.page.element import element

#: Colours of the page's style: four, and the same four with dashes.
TREND_TONES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """One mean: its place, its value, the ends of its interval, and its tooltip."""

    x: float
    y: float
    low: float
    high: float
    tip: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Trend:
    """What belongs together.

    Attributes:
        name: for the legend.
        marks: the measured means, ascending.
        curve: (x, low, y, high) of a fitted curve with its band; drawn in place of a line through the means.
    """

    name: str
    marks: Sequence[Mark]
    curve: Sequence[tuple[float, float, float, float]] = ()


def trend_chart(
    trends: Sequence[Trend],
    *,
    title: str,
    x_label: str,
    x_format: Format = compact,
    x_ticks: Callable[[float, float], list[float]] = log_ticks,
) -> Chart:
    """Shares over a logarithmic axis.

    Args:
        trends: what to draw; marks at ``x`` <= 0 are left out.
        title: of the chart.
        x_label: name of the horizontal axis.
        x_format: of its numbers.
        x_ticks: chooses these.
    """
    drawn = [
        Trend(name=trend.name, marks=[mark for mark in trend.marks if mark.x > 0], curve=trend.curve)
        for trend in trends
    ]
    marks = [mark for trend in drawn for mark in trend.marks]
    if not marks:
        return Chart(title=title, body=())
    xs = [*(mark.x for mark in marks), *(point[0] for trend in drawn for point in trend.curve)]
    room = max(10**0.06, (max(xs) / min(xs)) ** 0.05)
    x = horizontal(min(xs) / room, max(xs) * room, log=True)
    bottom, top = max(0.0, min(mark.low for mark in marks)), min(1.0, max(mark.high for mark in marks))
    curves = [point[2] for trend in drawn for point in trend.curve]
    bottom, top = min([bottom, *curves]), max([top, *curves])
    space = (top - bottom) * 0.08 or 0.01
    y = vertical(max(0.0, bottom - space), min(1.0, top + space))
    body = [*y_axis(y, percent), *x_axis(x, x_label, form=x_format, values=x_ticks(x.low, x.high))]
    for place, trend in enumerate(drawn):
        body += _drawn(trend, place % TREND_TONES + 1, x, y)
    return Chart(
        title=title,
        body=body,
        legend=[(trend.name, place % TREND_TONES + 1) for place, trend in enumerate(drawn)],
    )


def _drawn(trend: Trend, tone: int, x: Axis, y: Axis) -> list[Markup]:
    parts = []
    if trend.curve:
        edge = [(px, low) for px, low, _, _ in trend.curve]
        edge += [(px, high) for px, _, _, high in reversed(trend.curve)]
        parts.append(element("polygon", f"band tone{tone}", points=_path(edge, x, y)))
        middle = [(px, py) for px, _, py, _ in trend.curve]
        parts.append(element("polyline", f"line tone{tone}", points=_path(middle, x, y)))
    elif len(trend.marks) > 1:
        through = [(mark.x, mark.y) for mark in trend.marks]
        parts.append(element("polyline", f"line tone{tone}", points=_path(through, x, y)))
    for mark in trend.marks:
        if mark.low < mark.high:
            ends = (_inside(mark.low, y), _inside(mark.high, y))
            parts.append(line(f"bar tone{tone}", x(mark.x), y(ends[0]), x(mark.x), y(ends[1])))
        tip = element("title", "", mark.tip)
        parts.append(element("circle", f"dot tone{tone}", tip, cx=x(mark.x), cy=y(mark.y), r=3.6))
    return parts


def _path(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    return " ".join(f"{x(px):.1f},{y(_inside(py, y)):.1f}" for px, py in points)


def _inside(value: float, axis: Axis) -> float:
    return min(max(value, axis.low), axis.high)
