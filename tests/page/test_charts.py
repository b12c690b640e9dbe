"""What charts of counted things need beyond the report's own tests."""

from __future__ import annotations

import re

from tesela.page.charts import Series, line_chart
from tesela.page.document import document


def test_counted_things_have_no_halves() -> None:
    """Three layers: ticks at 1, 2, 3 where ``whole``, halves otherwise."""
    series = [Series(name="a", points=[(1.0, 0.0), (2.0, 1.0), (3.0, 4.0)])]

    def numbers(*, whole: bool) -> list[str]:
        chart = line_chart(series, title="t", x_label="layer", whole=whole)
        return re.findall(r'text-anchor="middle">([\d.]+)<', chart)

    assert numbers(whole=True) == ["1", "2", "3"]
    assert "1.5" in numbers(whole=False)


def test_a_page_is_one_file_with_its_script_last() -> None:
    """Title escaped; style before the body; the script after all that it looks for."""
    page = document("a < b", "<p id='x'></p>", style=".own {}", script="start();")
    assert "<title>a &lt; b</title>" in page
    assert page.index(".own {}") < page.index("<body>") < page.index("<p id='x'>") < page.index("start();")
    assert "<script" not in document("a", "")
