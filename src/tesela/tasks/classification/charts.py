"""The report's own charts as inline SVG: confusion matrix and reliability diagram. Lines are ``tesela.page.charts``."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from tesela.page.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    figure,
    horizontal_grid,
    percent,
    short,
    x_axis,
)


def confusion_chart(confusion: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """The matrix as coloured cells: rows true, columns predicted, shade = share of the row; counts while they fit."""
    count = len(labels)
    cell = 34.0 if count <= 12 else 24.0 if count <= 30 else 12.0
    names = [short(label) for label in labels]
    longest = max(len(name) for name in names)
    side = 30.0 + 6.6 * longest
    above = 42.0 if longest <= 2 else 30.0 + 4.8 * longest
    body = [
        f'<text class="label" x="{side + count * cell / 2:g}" y="14" text-anchor="middle">predicted</text>'
    ]
    middle = above + count * cell / 2
    body.append(
        f'<text class="label" x="12" y="{middle:g}" text-anchor="middle" transform="rotate(-90 12 {middle:g})">true</text>'
    )
    for index, name in enumerate(names):
        middle = (index + 0.5) * cell
        turn = "" if longest <= 2 else f' transform="rotate(-45 {side + middle:g} {above - 6:g})"'
        anchor = "middle" if longest <= 2 else "start"
        body.append(
            f'<text class="tick" x="{side - 6:g}" y="{above + middle + 4:g}" text-anchor="end">{escape(name)}</text>'
        )
        body.append(
            f'<text class="tick" x="{side + middle:g}" y="{above - 6:g}" text-anchor="{anchor}"{turn}>{escape(name)}</text>'
        )
    for row, values in enumerate(confusion):
        total = sum(values)
        for column, value in enumerate(values):
            where = side + column * cell, above + row * cell
            body.append(
                _cell(
                    value,
                    total,
                    where,
                    cell,
                    right=row == column,
                    tip=f"true {labels[row]}, predicted {labels[column]}: {value}",
                )
            )
    width = side + count * cell + max(4.0, 0.0 if longest <= 2 else 3.4 * longest)
    svg = (
        f'<svg viewBox="0 0 {width:g} {above + count * cell + 4:g}" role="img" aria-label="Confusion matrix"'
    )
    frame = f"max-width:{width * 1.25:.0f}px;min-width:{width * 0.8:.0f}px"
    return f'<div class="scroll"><div style="{frame}">{svg}>{"".join(body)}</svg></div></div>'


def _cell(value: int, total: int, where: tuple[float, float], side: float, *, right: bool, tip: str) -> str:
    x, y = where
    share = value / total if total else 0.0
    shade = 0.0 if not value else 0.12 + 0.83 * share**0.6
    kind = "right" if right else "wrong"
    box = (
        f'<rect class="empty" x="{x + 1:g}" y="{y + 1:g}" width="{side - 2:g}" height="{side - 2:g}" rx="3"/>'
    )
    if not value:
        return box
    box += (
        f'<rect class="{kind}" fill-opacity="{shade:.3f}" x="{x + 1:g}" y="{y + 1:g}" width="{side - 2:g}" height="{side - 2:g}" rx="3">'
        f"<title>{escape(tip)}</title></rect>"
    )
    if side < 20:
        return box
    kind = ("on" if shade > 0.55 else "off") + (" tight" if len(str(value)) * 8 > side else "")
    return (
        box
        + f'<text class="count {kind}" x="{x + side / 2:g}" y="{y + side / 2 + 4:g}" text-anchor="middle">{value}</text>'
    )


def reliability_chart(bins: Sequence[dict[str, Any]]) -> str:
    """Accuracy of each bin against its probability, the diagonal of a perfect model, and how many images lie in each bin."""
    x = Axis(low=0, high=1, start=LEFT, end=WIDTH - RIGHT)
    y = Axis(low=0, high=1, start=HEIGHT - BOTTOM, end=TOP)
    floor = 306.0
    most = max((row["count"] for row in bins), default=1) or 1
    body = list(horizontal_grid(y, percent))
    for row in (row for row in bins if row["count"]):
        start, size = x(row["low"]) + 1, x(row["high"]) - x(row["low"]) - 2
        tip = f"{row['count']} images: probability {row['confidence']:.1%}, right {row['accuracy']:.1%}"
        body.append(_bar("right", start, y(row["accuracy"]), size, y(0) - y(row["accuracy"]), 0.75, tip))
        body.append(_bar("mark", start - 1, y(row["confidence"]) - 1.5, size + 2, 3, 1, tip))
        tall = 44 * row["count"] / most
        body.append(_bar("neutral", start, floor - tall, size, tall, 0.6, tip))
    body.append(f'<line class="ideal" x1="{x(0):g}" y1="{y(0):g}" x2="{x(1):g}" y2="{y(1):g}"/>')
    body.append(f'<line class="axis" x1="{x.start:g}" x2="{x.end:g}" y1="{y(0):g}" y2="{y(0):g}"/>')
    body.append(f'<text class="tick" x="{LEFT - 6:g}" y="{floor - 40:g}" text-anchor="end">{most}</text>')
    body.append(f'<text class="label" x="{LEFT + 4:g}" y="{floor - 56:g}">images in each bin</text>')
    body.extend(x_axis(x, "probability of the predicted class", floor=floor, x_format=percent))
    return figure(
        "By probability of the predicted class",
        body,
        height=floor + 40,
        legend=[("share right", 1), ("mean probability", 2)],
    )


def _bar(kind: str, x: float, y: float, width: float, height: float, shade: float, tip: str) -> str:
    return (
        f'<rect class="{kind}" fill-opacity="{shade:g}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}">'
        f"<title>{escape(tip)}</title></rect>"
    )
