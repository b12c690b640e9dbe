"""The plot of a comparison as one SVG: score against parameters, operations, training time and speed.

Each group is a numbered dot, its number that of the table's row, with bars of one deviation either way where it has several runs. The
horizontal axes are logarithmic. The file carries its own colours for light and dark, so that it can stand alone or in a page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from tesela.page.charts import Axis, percent, ticks
from tesela.reports.comparison import Group, Spread

PANEL_WIDTH, PANEL_HEIGHT, GAP = 440.0, 290.0, 24.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 20.0, 40.0, 46.0
STYLE = """
svg.compare { --ink: #22262b; --muted: #666c74; --rule: #e2dfd8; --dot: #23698a; --on: #ffffff; background: #fbfaf7;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
@media (prefers-color-scheme: dark) {
  svg.compare { --ink: #e7e5e0; --muted: #9ba1a8; --rule: #2d3238; --dot: #6fb6d6; --on: #0e1114; background: #14171a; }
}
svg.compare text { fill: var(--muted); font-size: 12px; font-variant-numeric: tabular-nums; }
svg.compare .title { fill: var(--ink); font-size: 14px; font-weight: 600; }
svg.compare .rule { stroke: var(--rule); stroke-width: 1; } svg.compare .base { stroke: var(--muted); stroke-width: 1; }
svg.compare .bar { stroke: var(--dot); stroke-width: 1.6; } svg.compare circle { fill: var(--dot); }
svg.compare .count { fill: var(--on); font-size: 11px; font-weight: 600; }
"""


def short_number(value: float) -> str:
    """``86567656`` as ``86.6M``, ``0.05`` as it is."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def short_seconds(value: float) -> str:
    """Seconds in the unit that suits."""
    return (
        f"{value:.3g} s"
        if value < 90
        else f"{value / 60:.3g} min"
        if value < 5400
        else f"{value / 3600:.3g} h"
    )


PANELS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("parameters", "parameters", short_number),
    ("flops", "operations of one image (FLOPs)", short_number),
    ("seconds", "training time", short_seconds),
    ("images_per_second", "images classified per second", short_number),
)


def comparison_plot(groups: Sequence[Group]) -> str:
    """The SVG, two panels wide."""
    width, height = 2 * PANEL_WIDTH + GAP, 2 * PANEL_HEIGHT + GAP
    drawn = []
    for place, (name, label, form) in enumerate(PANELS):
        x, y = (place % 2) * (PANEL_WIDTH + GAP), (place // 2) * (PANEL_HEIGHT + GAP)
        drawn.append(f'<g transform="translate({x:g} {y:g})">{_panel(groups, name, label, form)}</g>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="compare" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="Score against cost"><style>{STYLE}</style>{"".join(drawn)}</svg>'
    )


def _panel(groups: Sequence[Group], name: str, label: str, form: Callable[[float], str]) -> str:
    title = f'<text class="title" x="{LEFT:g}" y="20">Score against {escape(label.partition(" (")[0])}</text>'
    points = [
        (number, group, group.values[name], group.values["score"])
        for number, group in enumerate(groups, 1)
        if "score" in group.values and name in group.values and group.values[name].mean > 0
    ]
    if not points:
        return f'{title}<text x="{LEFT:g}" y="60">Nothing was recorded.</text>'
    across = _log_axis([spread for _, _, spread, _ in points])
    scores = [edge for _, _, _, spread in points for edge in _edges(spread)]
    room = (max(scores) - min(scores)) * 0.1 or 0.01
    up = Axis(
        low=min(scores) - room, high=min(max(scores) + room, 1.0 + room), start=PANEL_HEIGHT - BOTTOM, end=TOP
    )
    body = [title]
    for value in ticks(up.low, up.high):
        body.append(
            f'<line class="rule" x1="{LEFT:g}" x2="{PANEL_WIDTH - RIGHT:g}" y1="{up(value):.1f}" y2="{up(value):.1f}"/>'
        )
        body.append(
            f'<text x="{LEFT - 7:g}" y="{up(value) + 4:.1f}" text-anchor="end">{percent(value)}</text>'
        )
    floor = PANEL_HEIGHT - BOTTOM
    body.append(
        f'<line class="base" x1="{LEFT:g}" x2="{PANEL_WIDTH - RIGHT:g}" y1="{floor:g}" y2="{floor:g}"/>'
    )
    for value in (time_ticks if name == "seconds" else log_ticks)(10**across.low, 10**across.high):
        body.append(
            f'<text x="{across(math.log10(value)):.1f}" y="{floor + 17:g}" text-anchor="middle">{form(value)}</text>'
        )
    body.append(
        f'<text x="{(LEFT + PANEL_WIDTH - RIGHT) / 2:g}" y="{floor + 36:g}" text-anchor="middle">{escape(label)}</text>'
    )
    body.extend(
        _dot(number, group, across(math.log10(cost.mean)), score, up)
        for number, group, cost, score in reversed(points)
    )
    return "".join(body)


def _dot(number: int, group: Group, x: float, score: Spread, up: Axis) -> str:
    low, high = _edges(score)
    bar = (
        f'<line class="bar" x1="{x:.1f}" x2="{x:.1f}" y1="{up(low):.1f}" y2="{up(high):.1f}"/>'
        if score.deviation
        else ""
    )
    tip = f"{group.name}: {percent(round(score.mean, 4))}" + (
        f" of {len(group.runs)} runs" if len(group.runs) > 1 else ""
    )
    dot = f'<circle cx="{x:.1f}" cy="{up(score.mean):.1f}" r="9"><title>{escape(tip)}</title></circle>'
    return f'{bar}{dot}<text class="count" x="{x:.1f}" y="{up(score.mean) + 4:.1f}" text-anchor="middle">{number}</text>'


def _edges(spread: Spread) -> tuple[float, float]:
    deviation = spread.deviation or 0.0
    return spread.mean - deviation, spread.mean + deviation


def _log_axis(spreads: Sequence[Spread]) -> Axis:
    low, high = (math.log10(pick(spread.mean for spread in spreads)) for pick in (min, max))
    room = max(0.12, 0.08 * (high - low))
    return Axis(low=low - room, high=high + room, start=LEFT, end=PANEL_WIDTH - RIGHT)


def log_ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Round values between ``low`` and ``high``, at most so many: 1, 2 and 5 times powers of ten, or fewer or more of them as it suits."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for factors in ((1.0, 1.5, 2.0, 3.0, 5.0, 7.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
        found = [
            factor * 10.0**power
            for power in powers
            for factor in factors
            if low <= factor * 10.0**power <= high
        ]
        if len(found) <= most:
            break
    return found[:: math.ceil(len(found) / most) or 1] or [math.sqrt(low * high)]


def time_ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """As ``log_ticks``, at round numbers of seconds, minutes and hours."""
    clock = [
        unit * count
        for unit, counts in ((1, (1, 2, 5, 10, 20, 30)), (60, (1, 2, 5, 10, 20, 30)), (3600, (1, 2, 5, 10)))
        for count in counts
    ]
    found = [float(value) for value in clock if low <= value <= high]
    return found[:: math.ceil(len(found) / most) or 1] or log_ticks(low, high, most=3)
