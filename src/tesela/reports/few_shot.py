"""Report section on few-shot accuracy, of the finished model and during training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from tesela.core.format import percent
from tesela.evaluation.shots import CLASSIFIERS, spread_text
from tesela.page.charts.figure import Chart, charts_row
from tesela.page.charts.line import Series, line_chart
from tesela.page.charts.trend import Mark, Trend, trend_chart
from tesela.page.document import data_table
from tesela.page.section import Section
from tesela.tasks.material import Material

FEW_SHOT_NOTE = (
    "Classifiers of the frozen features of so many training images of each class; the model's own head takes "
    "no part."
)
WATCHED = re.compile(r"val_few_shot_(\d+)")
LINE_TONES = 3


def few_shot_section(material: Material) -> Section:
    """Accuracy by shots and classifier, and by epoch where it was followed; empty without either."""
    rows = material.few_shot.get("few_shot") or []
    names = [name for name in CLASSIFIERS if rows and name in rows[0]]
    watched = _watched(material)
    charts = [*([_by_shots(rows, names)] if rows else []), *([watched] if watched.body else [])]
    if not charts:
        return Section(title="Few-shot accuracy")
    note, table = FEW_SHOT_NOTE, Markup("")
    if rows:
        few = material.few_shot
        note += (
            f" Mean and standard deviation over {few['draws']} draws, on {few['images']:,} images of the "
            f"{few['split']} split."
        )
        columns = [("images of each class", "n"), *((CLASSIFIERS[name], "n") for name in names)]
        table = data_table(
            columns, [[str(row["shots"]), *(spread_text(row[name]) for name in names)] for row in rows]
        )
    return Section(title="Few-shot accuracy", note=note, body=charts_row(*charts) + table)


def _by_shots(rows: list[Mapping[str, Any]], names: list[str]) -> Chart:
    trends = []
    for name in names:
        marks = []
        for row in rows:
            mean, deviation = row[name]["mean"], row[name]["deviation"] or 0.0
            tip = f"{CLASSIFIERS[name]}, {row['shots']} of each class: {spread_text(row[name])}"
            mark = Mark(x=row["shots"], y=mean, low=mean - deviation, high=mean + deviation, tip=tip)
            marks.append(mark)
        trends.append(Trend(name=CLASSIFIERS[name], marks=marks))
    return trend_chart(trends, title="Accuracy by images of each class", x_label="images of each class")


def _watched(material: Material) -> Chart:
    """Ridge regression on the validation images after each epoch."""
    epochs = material.of_kind("epoch")
    shots = sorted({int(found[1]) for row in epochs for key in row if (found := WATCHED.fullmatch(key))})
    series = [
        Series(
            name=f"{count} of each class",
            points=[
                (place, row[key])
                for place, row in enumerate(epochs, 1)
                if isinstance(row.get(key := f"val_few_shot_{count}"), (int, float))
            ],
            tone=number % LINE_TONES + 1,
        )
        for number, count in enumerate(shots)
    ]
    title = "Ridge regression while training, validation images"
    return line_chart(series, title=title, x_label="epoch", y_format=percent, whole=True)
