"""Line chart: series over a common axis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tesela.core.format import number
from tesela.page.charts.axis import Axis, ticks
from tesela.page.charts.figure import Chart, Format, horizontal, vertical, x_axis, y_axis
from tesela.page.element import element

MOST_POINTS = 240

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One line of a chart.

    Attributes:
        name: for the legend.
        points: (x, y) of each value.
        tone: 1 to 3, a colour of the page's style.
        faint: draw a thin line (single steps) that the legend leaves out.
        tips: of each point; with them the series is drawn as dots instead of a line.
    """

    name: str
    points: Points
    tone: int = 1
    faint: bool = False
    tips: Sequence[str] = ()


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_format: Format = number,
    whole: bool = False,
    low: float | None = None,
    high: float | None = None,
    margin: float = 0.0,
) -> Chart:
    """Lines over a common axis.

    Args:
        series: what to draw; series without a finite value are left out.
        title: of the chart.
        x_label: name of the horizontal axis.
        y_format: of the numbers beside the vertical axis.
        whole: the horizontal axis counts things, which have no halves.
        low: lower end of the vertical axis; by default a little below the smallest value.
        high: upper end, likewise.
        margin: room left and right of the first and last value, in their unit.
    """
    drawn = [(item, points) for item in series if (points := thin(item.points))]
    if not drawn:
        return Chart(title=title, body=())
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points]
    room = (max(ys) - min(ys)) * 0.05 or abs(max(ys)) * 0.05 or 0.5
    left, right = min(xs) - margin, max(xs) + margin
    x = horizontal(left, right if right > left else left + 1)
    y = vertical(min(ys) - room if low is None else low, max(ys) + room if high is None else high)
    values = [value for value in ticks(x.low, x.high, about=6) if not whole or value == round(value)]
    body = [
        *y_axis(y, y_format),
        *x_axis(x, x_label, values=values),
        *(part for item, points in drawn for part in _marks(item, points, x, y)),
    ]
    legend = [(item.name, item.tone) for item, _ in drawn if not item.faint]
    return Chart(title=title, body=body, legend=legend)


def _marks(item: Series, points: Points, x: Axis, y: Axis) -> list[Markup]:
    if item.tips:
        return [
            element("circle", f"dot tone{item.tone}", element("title", "", tip), cx=x(px), cy=y(py), r=3.4)
            for (px, py), tip in zip(item.points, item.tips, strict=True)
        ]
    if len(points) == 1:
        return [element("circle", f"dot tone{item.tone}", cx=x(points[0][0]), cy=y(points[0][1]), r=3)]
    path = " ".join(f"{x(px):.1f},{y(py):.1f}" for px, py in points)
    return [element("polyline", f"line tone{item.tone}" + " faint" * item.faint, points=path)]


def thin(points: Points, *, most: int = MOST_POINTS) -> Points:
    """At most ``most`` points: means of equally long stretches; points that are not finite are left out."""
    finite = [point for point in points if all(map(math.isfinite, point))]
    if len(finite) <= most:
        return finite
    edges = [round(index * len(finite) / most) for index in range(most + 1)]
    return [_mean(finite[start:end]) for start, end in itertools.pairwise(edges)]


def _mean(points: Points) -> tuple[float, float]:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)
