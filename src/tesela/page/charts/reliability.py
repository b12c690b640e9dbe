"""Reliability diagram: accuracy and number of images at each probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tesela.core.format import percent
from tesela.page.charts.figure import LEFT, Chart, horizontal, line, text, vertical, x_axis, y_axis
from tesela.page.element import element

FLOOR, TALLEST = 276.0, 40.0
"""Base line of the lower diagram and height of its tallest bar."""


def reliability_chart(bins: Sequence[Mapping[str, Any]]) -> Chart:
    """Accuracy of each bin against its probability, the diagonal of a perfect model, images in each bin.

    Args:
        bins: ``low`` and ``high`` edge, ``count``, mean ``confidence`` and ``accuracy`` of each, as of
            ``tesela.metrics.calibration``.
    """
    x, y = horizontal(0, 1), vertical(0, 1)
    most = max((row["count"] for row in bins), default=1) or 1
    body = list(y_axis(y, percent))
    for row in (row for row in bins if row["count"]):
        start, width = x(row["low"]) + 1, x(row["high"]) - x(row["low"]) - 2
        sure, right, tall = row["confidence"], row["accuracy"], TALLEST * row["count"] / most
        tip = element("title", "", f"{row['count']} images: probability {sure:.1%}, right {right:.1%}")
        bars = (
            ("right", start, y(right), width, y(0) - y(right), 0.75),
            ("mark", start - 1, y(sure) - 1.5, width + 2, 3, 1),
            ("neutral", start, FLOOR - tall, width, tall, 0.6),
        )
        body += [
            element("rect", kind, tip, fill_opacity=shade, x=left, y=top, width=wide, height=high)
            for kind, left, top, wide, high, shade in bars
        ]
    body += [
        line("ideal", x(0), y(0), x(1), y(1)),
        line("axis", x.start, y(0), x.end, y(0)),
        text("tick", str(most), LEFT - 6, FLOOR - TALLEST + 4, anchor="end"),
        text("label", "images in each bin", LEFT + 4, FLOOR - TALLEST - 12, anchor="start"),
        *x_axis(x, "probability of the predicted class", floor=FLOOR, form=percent),
    ]
    legend = [("share right", 1), ("mean probability", 2)]
    return Chart(title="By probability of the predicted class", body=body, height=FLOOR + 40, legend=legend)
