"""Confusion matrix as coloured cells."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from tesela.page.charts.figure import short, svg, text
from tesela.page.element import element

LABEL_LENGTH = 14


def confusion_chart(confusion: Sequence[Sequence[int]], labels: Sequence[str]) -> Markup:
    """The matrix: rows true, columns predicted, shade = share of the row; counts as long as they fit."""
    count, names = len(labels), [short(label, LABEL_LENGTH) for label in labels]
    cell = 34.0 if count <= 12 else 24.0 if count <= 30 else 12.0
    longest = max(map(len, names))
    flat = longest <= 2
    side, above = 30.0 + 6.6 * longest, 42.0 if flat else 30.0 + 4.8 * longest
    centre = above + count * cell / 2
    body = [
        text("label", "predicted", side + count * cell / 2, 14),
        text("label", "true", 12, centre, transform=f"rotate(-90 12 {centre:g})"),
    ]
    for index, name in enumerate(names):
        x, y = side + (index + 0.5) * cell, above - 6
        slanted = {} if flat else {"anchor": "start", "transform": f"rotate(-45 {x:g} {y:g})"}
        body.append(text("tick", name, side - 6, above + (index + 0.5) * cell + 4, anchor="end"))
        body.append(text("tick", name, x, y, **slanted))
    for row, values in enumerate(confusion):
        total = sum(values)
        for column, value in enumerate(values):
            x, y = side + column * cell, above + row * cell
            tip = f"true {labels[row]}, predicted {labels[column]}: {value}"
            body += _cell(value, value / total if total else 0.0, x, y, cell, right=row == column, tip=tip)
    width = side + count * cell + max(4.0, 0.0 if flat else 3.4 * longest)
    drawing = svg(width, above + count * cell + 4, "Confusion matrix", *body)
    frame = f"max-width:{width * 1.25:.0f}px;min-width:{width * 0.8:.0f}px"
    return element("div", "scroll", element("div", "", drawing, style=frame))


def _cell(
    value: int, share: float, x: float, y: float, side: float, *, right: bool, tip: str
) -> list[Markup]:
    box: dict[str, float] = {"x": x + 1, "y": y + 1, "width": side - 2, "height": side - 2, "rx": 3}
    parts = [element("rect", "empty", **box)]
    if not value:
        return parts
    shade = 0.12 + 0.83 * share**0.6
    kind, title = "right" if right else "wrong", element("title", "", tip)
    parts.append(element("rect", kind, title, fill_opacity=shade, **box))
    if side >= 20:
        ink = ("on" if shade > 0.55 else "off") + " tight" * (len(str(value)) * 8 > side)
        parts.append(text(f"count {ink}", str(value), x + side / 2, y + side / 2 + 4))
    return parts
