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

Format = Callable[[float], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A drawing with its title and legend; in a template it stands for its HTML.

    Attributes:
        title: plain text.
        body: the SVG elements; a chart without any says that nothing was recorded.
        height: in drawing units.
        legend: name and tone (1 to 3, a colour of the page's style) of what is drawn.
    """

    title: str
    body: Sequence[Markup]
    height: float = HEIGHT
    legend: Sequence[tuple[str, int]] = ()

    def svg(self, **attributes: float) -> Markup:
        """The drawing alone."""
        box = f"0 0 {WIDTH:g} {self.height:g}"
        return element("svg", "", *self.body, viewBox=box, role="img", aria_label=self.title, **attributes)

    def __html__(self) -> str:
        """The figure for a page."""
        keys = [element("span", f"key tone{tone}", name) for name, tone in self.legend]
        caption = element("figcaption", "", self.title, element("span", "legend", *keys, ""))
        content = self.svg() if self.body else element("p", "muted", "Nothing was recorded.")
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
        parts.append(element("text", "title", chart.title, x=x + LEFT, y=y + 20))
        content = chart.svg(x=x, y=y + SHEET_TITLE, width=WIDTH, height=chart.height)
        parts.append(
            content if chart.body else element("text", "label", "Nothing was recorded.", x=x + LEFT, y=y + 60)
        )
    box = f"0 0 {2 * step_x:g} {(len(charts) + 1) // 2 * step_y:g}"
    return element(
        "svg",
        "sheet",
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=box,
        role="img",
        aria_label=title,
    )


def y_axis(axis: Axis, form: Format = number) -> Iterable[Markup]:
    """Horizontal grid lines with their numbers."""
    for value in ticks(axis.low, axis.high):
        y = axis(value)
        yield element("line", "grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y)
        yield element("text", "tick", form(value), x=LEFT - 6, y=y + 4, text_anchor="end")


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
        yield element("text", "tick", form(value), x=axis(value), y=floor + 16, text_anchor="middle")
    yield element("line", "axis", x1=axis.start, x2=axis.end, y1=floor, y2=floor)
    middle = (axis.start + axis.end) / 2
    yield element("text", "label", label, x=middle, y=floor + 34, text_anchor="middle")
