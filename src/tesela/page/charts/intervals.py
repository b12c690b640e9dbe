"""Chart of intervals: a row for each thing, with its mean and the ends of its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tesela.core.format import percent
from tesela.page.charts.axis import Axis, ticks
from tesela.page.charts.figure import RIGHT, WIDTH, Chart, Format, line, short, text, x_axis
from tesela.page.element import element

ROW, TOP, BOTTOM = 24.0, 8.0, 40.0
#: Width of a letter in a name, and letters of the longest names.
LETTER, LONGEST = 6.6, 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row: its name, mean and interval, its colour (1 to 4) and its tooltip."""

    name: str
    mean: float
    low: float
    high: float
    tip: str
    tone: int = 1


def intervals_chart(
    rows: Sequence[Row], *, title: str, x_label: str, zero: bool = False, form: Format = percent
) -> Chart:
    """Rows below one another.

    Args:
        rows: from above.
        title: of the chart.
        x_label: name of the axis.
        zero: values are differences: 0 is on the axis and marked.
        form: of the axis' numbers.
    """
    if not rows:
        return Chart(title=title, body=())
    ends = [*(row.low for row in rows), *(row.high for row in rows), *([0.0] if zero else [])]
    room = (max(ends) - min(ends)) * 0.06 or 0.01
    names = [short(row.name, LONGEST) for row in rows]
    labels = 14 + LETTER * max(map(len, names))
    axis = Axis(low=min(ends) - room, high=max(ends) + room, start=labels, end=WIDTH - RIGHT)
    floor = TOP + ROW * len(rows)
    values = ticks(axis.low, axis.high, about=6 if axis.end - axis.start > WIDTH / 2 else 3)
    body = [line("grid", axis(value), TOP, axis(value), floor) for value in values]
    body += x_axis(axis, x_label, floor=floor, form=form, values=values)
    if zero:
        body.append(line("ideal", axis(0.0), TOP, axis(0.0), floor))
    for place, (name, row) in enumerate(zip(names, rows, strict=True)):
        y = TOP + ROW * (place + 0.5)
        body.append(text("tick", name, labels - 8, y + 4, anchor="end"))
        if row.low < row.high:
            body.append(line(f"bar tone{row.tone}", axis(row.low), y, axis(row.high), y))
        tip = element("title", "", row.tip)
        body.append(element("circle", f"dot tone{row.tone}", tip, cx=axis(row.mean), cy=y, r=4))
    return Chart(title=title, body=body, height=floor + BOTTOM)
