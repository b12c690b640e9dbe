"""Charts of means with intervals: places of marks, bars, curves and bands."""

from __future__ import annotations

import re

import pytest

from tesela.page.charts.intervals import Row, intervals_chart
from tesela.page.charts.trend import Mark, Trend, trend_chart


def marks(*values: tuple[float, float, float, float]) -> list[Mark]:
    return [Mark(x=x, y=y, low=low, high=high, tip=f"at {x:g}") for x, y, low, high in values]


def attributes(svg: str, tag: str, *names: str) -> list[tuple[float, ...]]:
    found = re.findall(rf"<{tag} [^>]*>", svg)
    return [
        tuple(float(re.search(rf' {name}="([^"]*)"', one)[1]) for name in names)  # type: ignore[index]
        for one in found
        if f' {names[0]}="' in one
    ]


def test_marks_lie_on_a_logarithmic_axis_with_their_intervals() -> None:
    chart = trend_chart(
        [Trend(name="a", marks=marks((10, 0.2, 0.1, 0.3), (100, 0.4, 0.4, 0.4), (1000, 0.6, 0.5, 0.7)))],
        title="t",
        x_label="x",
    )
    svg = str(chart.svg())
    places = attributes(svg, "circle", "cx", "cy")
    assert places[1][0] - places[0][0] == pytest.approx(places[2][0] - places[1][0], abs=0.2)
    assert places[0][1] - places[1][1] == pytest.approx(places[1][1] - places[2][1], abs=0.2)
    bars = [line for line in re.findall(r"<line [^>]*>", svg) if "bar" in line]
    assert len(bars) == 2  # the second has no interval
    assert "polyline" in svg and "polygon" not in svg and "at 100" in svg


def test_a_curve_stands_for_the_line_and_has_a_band() -> None:
    curve = [(10, 0.1, 0.2, 0.3), (4000, 0.6, 0.7, 0.8)]
    chart = trend_chart(
        [Trend(name=str(place), marks=marks((10, 0.2, 0.2, 0.2), (0, 0.9, 0.9, 0.9)), curve=curve)
         for place in range(6)],
        title="t",
        x_label="x",
    )  # fmt: skip
    svg = str(chart.svg())
    assert svg.count("<polygon") == svg.count("<polyline") == 6
    assert svg.count("<circle") == 6  # nothing at 0
    assert [tone for _, tone in chart.legend] == [1, 2, 3, 4, 5, 6]


def test_rows_of_intervals_mark_zero() -> None:
    rows = [
        Row(name="first", mean=0.02, low=-0.01, high=0.05, tip="one"),
        Row(name="second <b>", mean=0.04, low=0.04, high=0.04, tip="two", tone=2),
    ]
    svg = str(intervals_chart(rows, title="t", x_label="x", zero=True).svg())
    (first, second) = attributes(svg, "circle", "cx", "cy")
    zero = float(re.search(r'class="ideal"[^>]* x1="([^"]*)"', svg)[1])  # type: ignore[index]
    assert first[0] - zero == pytest.approx(second[0] - first[0], abs=0.2) and second[1] > first[1]
    assert svg.count('class="bar') == 1 and "<b>" not in svg
    long = Row(name="vit_lite7_p4:width=128:depth=6:heads=4", mean=0.0, low=0.0, high=0.0, tip="three")
    assert ">vit_lite7_p4:width=128:depth=…<" in str(intervals_chart([long], title="t", x_label="x").svg())


def test_nothing_to_draw_says_so() -> None:
    assert not trend_chart([], title="t", x_label="x").body
    assert not intervals_chart([], title="t", x_label="x").body
