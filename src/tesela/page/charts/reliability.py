"""Reliability diagram: how often a model is right at each probability, and how many images lie there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tesela.core.format import percent
from tesela.page.charts.axis import Axis
from tesela.page.charts.figure import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, x_axis, y_axis
from tesela.page.element import element

FLOOR, TALLEST = 276.0, 40.0
"""Base line of the lower diagram and height of its tallest bar."""


def reliability_chart(bins: Sequence[Mapping[str, Any]]) -> Chart:
    """Accuracy of each bin against its probability, the diagonal of a perfect model, images in each bin.

    Args:
        bins: ``low`` and ``high`` edge, ``count``, mean ``confidence`` and ``accuracy`` of each, as of
            ``tesela.metrics.calibration``.
    """
    x = Axis(low=0, high=1, start=LEFT, end=WIDTH - RIGHT)
    y = Axis(low=0, high=1, start=HEIGHT - BOTTOM, end=TOP)
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
    body.append(element("line", "ideal", x1=x(0), y1=y(0), x2=x(1), y2=y(1)))
    body.append(element("line", "axis", x1=x.start, x2=x.end, y1=y(0), y2=y(0)))
    body.append(element("text", "tick", str(most), x=LEFT - 6, y=FLOOR - TALLEST + 4, text_anchor="end"))
    body.append(element("text", "label", "images in each bin", x=LEFT + 4, y=FLOOR - TALLEST - 12))
    body.extend(x_axis(x, "probability of the predicted class", floor=FLOOR, form=percent))
    return Chart(
        title="By probability of the predicted class",
        body=body,
        height=FLOOR + 40,
        legend=[("share right", 1), ("mean probability", 2)],
    )
