"""A comparison of runs as files: page (HTML), charts (SVG) and numbers (JSON)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tesela.core.files import write_json, write_text
from tesela.core.format import compact, duration, percent
from tesela.page.charts.axis import log_ticks, time_ticks
from tesela.page.charts.figure import Chart, chart_sheet, charts_row
from tesela.page.charts.scatter import Dot, scatter_chart
from tesela.page.document import data_table, document
from tesela.page.section import Section
from tesela.reports.comparison import Group, Spread, by_data, settings_table

NOTE = "Score: mean ± standard deviation over seeds. FLOPs: of one image, two per multiply-add."
COLUMNS = (
    "",
    "run",
    "model",
    "n",
    "score",
    "parameters",
    "trained",
    "FLOPs",
    "training",
    "images/s",
    "training images/s",
)
#: Columns that are shown even where all groups agree.
KEPT = ("", "run", "score")
#: Columns of words; the others hold numbers.
WORDS = ("run", "model")
RUN_COLUMNS = (("", "n"), ("folder", "text"), ("seed", "n"), ("score", "n"), ("time", "n"))
PLOTTED: tuple[tuple[str, str, Callable[[float], str], Callable[[float, float], list[float]]], ...] = (
    ("parameters", "parameters", compact, log_ticks),
    ("flops", "operations of one image (FLOPs)", compact, log_ticks),
    ("seconds", "training time", duration, time_ticks),
    ("images_per_second", "images classified per second", compact, log_ticks),
)


def write_comparison(folder: Path, groups: Sequence[Group]) -> Path:
    """Write the three files into ``folder``, each atomically, and return the path of the page.

    Raises:
        StorageError: the file system refused.
    """
    write_json(folder / "compare.json", {"groups": [group.mapping() for group in groups]})
    charts = [chart for found in by_data(groups).values() for chart in cost_charts(found)]
    write_text(folder / "compare.svg", chart_sheet(charts, title="Score against cost"))
    write_text(folder / "compare.html", comparison_page(groups))
    return folder / "compare.html"


def cells(number: int, group: Group) -> tuple[str, ...]:
    """One row of the table as text, in the order of ``COLUMNS``."""
    values = group.values
    return (
        str(number),
        group.folders,
        group.runs[0].model,
        str(len(group.runs)),
        score_text(values.get("score")),
        *(_amount(values.get(name)) for name in ("parameters", "trainable", "flops")),
        duration(values["seconds"].mean),
        *(_amount(values.get(name)) for name in ("images_per_second", "training_images_per_second")),
    )


def table_of(groups: Sequence[Group]) -> tuple[list[str], list[list[str]], str]:
    """Titles and rows of a table without the columns in which all groups agree, and a line on these."""
    rows = [cells(number, group) for number, group in enumerate(groups, 1)]
    shown = [
        place
        for place, title in enumerate(COLUMNS)
        if title in KEPT or len(rows) == 1 or len({row[place] for row in rows}) > 1
    ]
    shown = [place for place in shown if any(row[place] for row in rows)] if len(rows) > 1 else shown
    same = [
        f"{COLUMNS[place]} {rows[0][place]}"
        for place in range(1, len(COLUMNS))
        if place not in shown and rows[0][place] not in ("", "-")
    ]
    note = f"The same in all: {', '.join(same)}." if same else ""
    return [COLUMNS[place] for place in shown], [[row[place] for place in shown] for row in rows], note


def score_text(spread: Spread | None) -> str:
    """``98.12 ± 0.30 %``, without a standard deviation for one run, a dash for none."""
    if spread is None:
        return "-"
    deviation = f" ± {spread.deviation * 100:.2f}" if spread.deviation is not None else ""
    return f"{spread.mean * 100:.2f}{deviation} %"


def _percent(score: float | None) -> str:
    return "-" if score is None else percent(score, 2)


def _amount(spread: Spread | None) -> str:
    return "-" if spread is None else compact(spread.mean)


def cost_charts(groups: Sequence[Group]) -> list[Chart]:
    """Score against parameters, operations, training time and speed.

    Each group is a dot with its number in the table, and bars of one standard deviation if it has several
    runs.
    """
    return [
        scatter_chart(
            [
                _dot(number, group, group.values[name].mean, group.values["score"])
                for number, group in enumerate(groups, 1)
                if "score" in group.values and name in group.values
            ],
            title=f"Score against {label.partition(' (')[0]}",
            x_label=label,
            x_format=form,
            x_ticks=ticks,
        )
        for name, label, form, ticks in PLOTTED
    ]


def _dot(number: int, group: Group, cost: float, score: Spread) -> Dot:
    members = f" of {len(group.runs)} runs" if len(group.runs) > 1 else ""
    tip = f"{group.name}: {percent(round(score.mean, 4))}{members}"
    return Dot(x=cost, y=score.mean, error=score.deviation or 0.0, number=number, tip=tip)


def comparison_page(groups: Sequence[Group]) -> str:
    """The whole HTML page."""
    separate = by_data(groups)
    count = sum(len(group.runs) for group in groups)
    members = [
        (str(number), run.run, str(run.seed), _percent(run.score), duration(run.seconds))
        for number, group in enumerate(groups, 1)
        for run in group.runs
    ]
    sections = []
    for data, found in separate.items():
        titles, rows, same = table_of(found)
        columns = [(title, "text" if title in WORDS else "n") for title in titles]
        place = f" on {data}" if len(separate) > 1 else ""
        sections += [
            Section(title=f"Table{place}", note=f"{NOTE} {same}".strip(), body=data_table(columns, rows)),
            *settings_sections(found, place),
            Section(title=f"Score against cost{place}", body=charts_row(*cost_charts(found))),
        ]
    return document(
        "Comparison of runs",
        lead=f"{count} runs on {'; '.join(separate)}. Runs that differ only in their seed are one row.",
        sections=[*sections, Section(title="Single runs", body=data_table(RUN_COLUMNS, members))],
    )


def settings_sections(groups: Sequence[Group], place: str) -> list[Section]:
    """The table of the settings that differ; none where no setting does."""
    titles, rows = settings_table(groups)
    if not rows:
        return []
    columns = [(title, "text") for title in titles]
    return [Section(title=f"Settings that differ{place}", body=data_table(columns, rows))]
