"""Charts and pages beyond what the tests of the report read off them."""

from __future__ import annotations

import re

import pytest
from bs4 import BeautifulSoup, Tag
from markupsafe import Markup, escape

from tesela.page.charts.axis import Axis, log_ticks, time_ticks
from tesela.page.charts.confusion import confusion_chart
from tesela.page.charts.figure import chart_sheet
from tesela.page.charts.line import Series, line_chart
from tesela.page.charts.reliability import reliability_chart
from tesela.page.charts.scatter import Dot, scatter_chart
from tesela.page.document import data_table, document
from tesela.page.element import element
from tesela.page.section import Section

HOSTILE = """<script>alert('x')</script>" onload="x"""


def test_counted_things_have_no_halves() -> None:
    """Three layers: ticks at 1, 2, 3 with ``whole``, halves otherwise."""
    series = [Series(name="a", points=[(1.0, 0.0), (2.0, 1.0), (3.0, 4.0)])]

    def numbers(*, whole: bool) -> list[str]:
        chart = escape(line_chart(series, title="t", x_label="layer", whole=whole))
        return re.findall(r'text-anchor="middle">([\d.]+)<', chart)

    assert numbers(whole=True) == ["1", "2", "3"]
    assert "1.5" in numbers(whole=False)


def test_points_with_tips_are_dots() -> None:
    """Reference: the HTML parser: one circle for each point, with its tip; the line of the other series
    stays."""
    dots = Series(name="head", points=[(1, 2.0), (1, 3.0), (2, 4.0)], tips=["a", "b", HOSTILE])
    mean = Series(name="mean", points=[(1, 2.5), (2, 4.0)])
    chart = line_chart([mean, dots], title="t", x_label="layer", margin=0.5)
    page = BeautifulSoup(escape(chart), "html.parser")
    assert [one.text for one in page.select("circle title")] == ["a", "b", HOSTILE]
    assert len(page.find_all("polyline")) == 1
    assert [key.text for key in page.select(".key")] == ["mean", "head"]


def test_a_page_is_one_file_with_its_script_last() -> None:
    """Title escaped; style before the body; the script after all that it looks for; empty sections left
    out."""
    sections = [Section(title="Full", body=element("p", "", id="x")), Section(title="Empty", note="n")]
    page = document("a < b", lead="l", sections=sections, style=".own > b {}", script="if (a < b) start();")
    assert "<title>a &lt; b</title>" in page
    assert (
        page.index(".own > b {}")
        < page.index("<body>")
        < page.index('id="x"')
        < page.index("a < b) start();")
    )
    assert "Full" in page and "Empty" not in page
    assert "<script" not in document("a", lead="l")


def test_every_value_is_escaped() -> None:
    """Reference: the HTML parser: hostile texts come back as text from every place that takes one."""
    dot = Dot(x=1, y=0.5, error=0.1, number=1, tip=HOSTILE)
    parts = (
        element("p", HOSTILE, HOSTILE, title=HOSTILE),
        data_table([(HOSTILE, HOSTILE), ("", "meter")], [[HOSTILE, HOSTILE]]),
        escape(scatter_chart([dot], title=HOSTILE, x_label=HOSTILE)),
        escape(line_chart([Series(name=HOSTILE, points=[(1, 2.0)])], title=HOSTILE, x_label=HOSTILE)),
        escape(line_chart([], title=HOSTILE, x_label=HOSTILE)),
    )
    sections = [Section(title=HOSTILE, note=HOSTILE, body=body) for body in (*parts, HOSTILE)]
    text = document(HOSTILE, lead=HOSTILE, tiles=[(HOSTILE,) * 3], sections=sections)
    page = BeautifulSoup(text, "html.parser")
    assert not page.find_all("script")
    assert not page.find_all(onload=True)
    for place in (
        "title",
        "h1",
        ".lead",
        "dt",
        "dd small",
        "h2",
        "section > p",
        "th",
        "td",
        "circle title",
        ".key",
    ):
        found = page.select_one(place)
        assert found is not None and found.text == HOSTILE, place
    svg = page.select_one("svg")
    assert svg is not None and svg["aria-label"] == HOSTILE


def test_a_sheet_stands_alone() -> None:
    """It has the style of charts for light and dark, a title for each chart, and says where nothing was
    recorded."""
    dots = [Dot(x=10.0**place, y=0.9, error=0.0, number=place, tip="") for place in range(3)]
    charts = [scatter_chart(some, title=f"chart {len(some)}", x_label="x") for some in (dots, dots[:1], [])]
    page = BeautifulSoup(chart_sheet(charts, title="all"), "html.parser")
    assert "prefers-color-scheme: dark" in str(page.style)
    assert [one.text for one in page.select("text.title")] == ["chart 3", "chart 1", "chart 0"]
    assert len(page.find_all("circle")) == 4
    assert "Nothing was recorded." in page.text


def test_elements_by_hand() -> None:
    """Names, numbers with two decimals, text escaped, markup not."""
    assert element("b", "", "<", Markup("<i></i>")) == "<b>&lt;<i></i></b>"
    assert (
        element("rect", "a b", x=1.0, fill_opacity=0.3333) == '<rect class="a b" x="1" fill-opacity="0.33"/>'
    )


def test_logarithmic_axes() -> None:
    """Reference: by hand: equal factors are equally far apart; ticks are round numbers, of seconds as clocks
    have them."""
    axis = Axis(low=1, high=100, start=0, end=200, log=True)
    assert [axis(value) for value in (1, 10, 100)] == pytest.approx([0, 100, 200])
    assert log_ticks(9.0, 1100.0) == [10.0, 30.0, 100.0, 300.0, 1000.0]
    assert time_ticks(25.0, 4000.0) == [30.0, 120.0, 600.0, 1800.0]
    assert all(9.0 <= tick <= 11.0 for tick in log_ticks(9.0, 11.0))


def test_equal_ratios_have_equal_distances() -> None:
    """The cost axis is logarithmic: 10, 100 and 1,000 are as far from one another."""
    dots = [Dot(x=cost, y=0.5, error=0.0, number=1, tip="") for cost in (10.0, 100.0, 1000.0)]
    page = BeautifulSoup(escape(scatter_chart(dots, title="t", x_label="cost")), "html.parser")
    places = sorted(float(str(circle["cx"])) for circle in page.find_all("circle"))
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)
    assert places[1] - places[0] > 20


def number(element: Tag, name: str) -> float:
    return float(str(element[name]))


def test_nothing_is_drawn_beyond_a_charts_edge() -> None:
    """Reference: the HTML parser: every rectangle and every text inside the view box."""
    bins = [
        {"low": place / 10, "high": place / 10 + 0.1, "count": place, "confidence": 0.5, "accuracy": 0.4}
        for place in range(10)
    ]
    drawing = BeautifulSoup(escape(reliability_chart(bins)), "html.parser").find("svg")
    assert drawing is not None
    _, _, width, height = map(float, str(drawing["viewbox"]).split())
    for box in drawing.find_all("rect"):
        assert number(box, "x") >= 0 and number(box, "x") + number(box, "width") <= width
        assert number(box, "y") >= 0 and number(box, "y") + number(box, "height") <= height
    assert all(0 < number(word, "y") < height for word in drawing.find_all("text"))


def test_names_stand_at_their_rows_and_columns() -> None:
    """Reference: the cells: each name on the middle of its row and of its column."""
    chart = BeautifulSoup(escape(confusion_chart([[3, 1], [0, 2]], ["a", "b"])), "html.parser")
    boxes = [box for box in chart.find_all("rect") if "empty" in box["class"]]
    middle = [number(box, "x") + number(box, "width") / 2 for box in boxes[:2]]
    rows = [number(box, "y") + number(box, "height") / 2 for box in boxes[::2]]
    words = [word for word in chart.find_all("text") if word.text in ("a", "b")]
    ends = [word for word in words if word.get("text-anchor") == "end"]
    assert [number(word, "y") for word in ends] == pytest.approx(rows, abs=6)
    across = [word for word in words if word not in ends]
    assert [number(word, "x") for word in across] == pytest.approx(middle, abs=1)
