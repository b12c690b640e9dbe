"""The parts all charts share: axes with their numbers, and the figure with title and legend.

SVG is written out rather than drawn by matplotlib: text stays text, a chart takes its colours from the page's
CSS variables (light and dark from one file), weighs a few kilobytes and takes milliseconds.

Odd: a chart is 360 units wide and stretched by the page; its text is sized to be legible on a phone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tesela.core.format import number
from tesela.page.charts.axis import Axis, ticks
from tesela.page.document import css
from tesela.page.element import element

WIDTH, HEIGHT = 360.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 18.0, 12.0, 40.0
SHEET_TITLE, SHEET_GAP = 30.0, 20.0
NOTHING = "Nothing was recorded."

Format = Callable[[float], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A drawing with its title and legend; in a template it stands for its HTML.

    Attributes:
        title: plain text.
        body: the SVG elements; a chart without any says that nothing was recorded.
        height: in drawing units.
        legend: name and tone (1 to 8, a colour of the page's style, dashed from 5 on) of what is drawn.
    """

    title: str
    body: Sequence[Markup]
    height: float = HEIGHT
    legend: Sequence[tuple[str, int]] = ()

    def svg(self, **attributes: float) -> Markup:
        """The drawing alone."""
        return svg(WIDTH, self.height, self.title, *self.body, **attributes)

    def __html__(self) -> str:
        """The figure for a page."""
        keys = [element("span", f"key tone{tone}", name) for name, tone in self.legend]
        caption = element("figcaption", "", self.title, element("span", "legend", *keys, ""))
        content = self.svg() if self.body else element("p", "muted", NOTHING)
        return element("figure", "chart", caption, content)


def charts_row(*charts: Chart) -> Markup:
    """Charts side by side, as many as fit."""
    return element("div", "charts", *map(Markup.escape, charts))


def chart_sheet(charts: Sequence[Chart], *, title: str) -> Markup:
    """Charts in two columns as one SVG file that carries its own style, for light and dark."""
    step_x, step_y = WIDTH + SHEET_GAP, HEIGHT + SHEET_TITLE + SHEET_GAP
    parts = [element("style", "", Markup(css("chart.css")))]  # noqa: S704 - a file of this package
    for place, chart in enumerate(charts):
        x, y = place % 2 * step_x, place // 2 * step_y
        parts.append(text("title", chart.title, x + LEFT, y + 20, anchor="start"))
        if chart.body:
            parts.append(chart.svg(x=x, y=y + SHEET_TITLE, width=WIDTH, height=chart.height))
        else:
            parts.append(text("label", NOTHING, x + LEFT, y + 60, anchor="start"))
    height = (len(charts) + 1) // 2 * step_y
    return svg(2 * step_x, height, title, *parts, xmlns="http://www.w3.org/2000/svg")


def svg(width: float, height: float, title: str, /, *body: Markup, **attributes: float | str) -> Markup:
    """A drawing of this size."""
    box = f"0 0 {width:g} {height:g}"
    return element("svg", "", *body, viewBox=box, role="img", aria_label=title, **attributes)


def short(label: str, length: int) -> str:
    """At most so many letters of a label, the last of them a mark where it was cut."""
    return label if len(label) <= length else label[: length - 1] + "…"


def text(kind: str, words: str, x: float, y: float, *, anchor: str = "middle", **attributes: str) -> Markup:
    """Words in a drawing."""
    return element("text", kind, words, x=x, y=y, text_anchor=anchor, **attributes)


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    """A straight line in a drawing."""
    return element("line", kind, x1=x1, y1=y1, x2=x2, y2=y2)


def horizontal(low: float, high: float, *, log: bool = False) -> Axis:
    """The axis from the left to the right of a chart."""
    return Axis(low=low, high=high, start=LEFT, end=WIDTH - RIGHT, log=log)


def vertical(low: float, high: float) -> Axis:
    """The axis from the base line to the top of a chart."""
    return Axis(low=low, high=high, start=HEIGHT - BOTTOM, end=TOP)


def y_axis(axis: Axis, form: Format = number) -> Iterable[Markup]:
    """Horizontal grid lines with their numbers."""
    for value in ticks(axis.low, axis.high):
        y = axis(value)
        yield line("grid", LEFT, y, WIDTH - RIGHT, y)
        yield text("tick", form(value), LEFT - 6, y + 4, anchor="end")


def x_axis(
    axis: Axis,
    label: str,
    *,
    floor: float = HEIGHT - BOTTOM,
    form: Format = number,
    values: Sequence[float] | None = None,
) -> Iterable[Markup]:
    """The base line at ``floor`` with numbers, at ``values`` or round ones, and the axis' name."""
    for value in ticks(axis.low, axis.high) if values is None else values:
        yield text("tick", form(value), axis(value), floor + 16)
    yield line("axis", axis.start, floor, axis.end, floor)
    yield text("label", label, (axis.start + axis.end) / 2, floor + 34)
