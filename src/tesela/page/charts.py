"""Charts as inline SVG: lines over an axis, and the parts that other charts are made of.

Written out rather than drawn by matplotlib, so that text stays text, a chart takes its colours from the page's CSS variables
(light and dark from one file), weighs a few kilobytes and a page is written in milliseconds.

Odd: a chart is drawn 420 units wide and stretched by the page; its text is sized so that it can be read on a phone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 420.0, 240.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 22.0, 12.0, 38.0
MOST_POINTS = 240
LABEL_LENGTH = 14

Format = Callable[[float], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One line of a chart; ``tone`` 1 to 3 is its colour in the page's style, ``faint`` draws it thin (single steps)."""

    name: str
    points: list[tuple[float, float]]
    tone: int = 1
    faint: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """Where values lie on a chart: ``low`` at ``start``, ``high`` at ``end`` (in drawing units)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of ``value``."""
        return self.start + (value - self.low) / ((self.high - self.low) or 1.0) * (self.end - self.start)


def number(value: float) -> str:
    """A number for an axis: short, without an exponent where it can be avoided."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:g}"
    digits, _, power = f"{value:e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def percent(value: float) -> str:
    """A share as a percentage, with decimals only where it has some."""
    return f"{value * 100:.4g} %"


def ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) between ``low`` and ``high``."""
    span = (high - low) or 1.0
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def thin(points: Sequence[tuple[float, float]], *, most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most ``most`` points: means of equally long stretches; points that are not finite are left out."""
    finite = [point for point in points if all(map(math.isfinite, point))]
    if len(finite) <= most:
        return finite
    edges = [round(index * len(finite) / most) for index in range(most + 1)]
    return [_mean(finite[start:end]) for start, end in itertools.pairwise(edges)]


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_format: Format = number,
    whole: bool = False,
    low: float | None = None,
    high: float | None = None,
) -> str:
    """Lines over a common axis, with a legend; ``low`` and ``high`` fix an end of the vertical axis, ``whole`` is as of ``x_axis``."""
    drawn = [(item, thin(item.points)) for item in series if thin(item.points)]
    if not drawn:
        return f'<figure class="chart"><figcaption>{escape(title)}</figcaption><p class="muted">Nothing was recorded.</p></figure>'
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points]
    bottom, top = _range(ys, low, high)
    x = Axis(low=min(xs), high=max(xs) if max(xs) > min(xs) else min(xs) + 1, start=LEFT, end=WIDTH - RIGHT)
    y = Axis(low=bottom, high=top, start=HEIGHT - BOTTOM, end=TOP)
    body = [
        *horizontal_grid(y, y_format),
        *x_axis(x, x_label, whole=whole),
        *(_line(item, points, x, y) for item, points in drawn),
    ]
    return figure(
        title, body, legend=[(item.name, item.tone) for item, _ in drawn if not item.faint], height=HEIGHT
    )


def _range(values: Sequence[float], low: float | None, high: float | None) -> tuple[float, float]:
    smallest, largest = min(values), max(values)
    room = (largest - smallest) * 0.05 or abs(largest) * 0.05 or 0.5
    return (smallest - room if low is None else low), (largest + room if high is None else high)


def horizontal_grid(y: Axis, y_format: Format) -> Iterable[str]:
    """Lines and numbers of the vertical axis."""
    for value in ticks(y.low, y.high):
        place = y(value)
        yield f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{place:.1f}" y2="{place:.1f}"/>'
        yield f'<text class="tick" x="{LEFT - 6:g}" y="{place + 4:.1f}" text-anchor="end">{escape(y_format(value))}</text>'


def x_axis(
    x: Axis, label: str, *, floor: float = HEIGHT - BOTTOM, x_format: Format = number, whole: bool = False
) -> Iterable[str]:
    """The horizontal axis with its numbers and name; ``whole`` for things that are counted, which have no halves."""
    for value in (value for value in ticks(x.low, x.high, about=6) if not whole or value == round(value)):
        yield f'<text class="tick" x="{x(value):.1f}" y="{floor + 16:g}" text-anchor="middle">{escape(x_format(value))}</text>'
    yield f'<line class="axis" x1="{x.start:g}" x2="{x.end:g}" y1="{floor:g}" y2="{floor:g}"/>'
    yield f'<text class="label" x="{(x.start + x.end) / 2:g}" y="{floor + 33:g}" text-anchor="middle">{escape(label)}</text>'


def _line(item: Series, points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    kind = f"line tone{item.tone}" + (" faint" if item.faint else "")
    if len(points) == 1:
        return f'<circle class="dot tone{item.tone}" cx="{x(points[0][0]):.1f}" cy="{y(points[0][1]):.1f}" r="3"/>'
    path = " ".join(f"{x(px):.1f},{y(py):.1f}" for px, py in points)
    return f'<polyline class="{kind}" points="{path}"/>'


def figure(
    title: str,
    body: Iterable[str],
    *,
    height: float,
    width: float = WIDTH,
    legend: Sequence[tuple[str, int]] = (),
) -> str:
    """A drawing with its title and legend (name, tone)."""
    keys = "".join(f'<span class="key tone{tone}">{escape(name)}</span>' for name, tone in legend)
    svg = f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title, quote=True)}">{"".join(body)}</svg>'
    return f'<figure class="chart"><figcaption>{escape(title)}<span class="legend">{keys}</span></figcaption>{svg}</figure>'


def short(label: str) -> str:
    """A label cut to what fits beside a cell."""
    return label if len(label) <= LABEL_LENGTH else label[: LABEL_LENGTH - 1] + "…"
