"""A comparison as files: ``compare.html``, one page without script or network; ``compare.svg``, the plot; ``compare.json``, the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from tesela.core.files import write_atomic, write_json
from tesela.page.document import document, section
from tesela.reports.comparison import Group, Spread
from tesela.reports.comparison_plot import comparison_plot, short_number, short_seconds

TABLE = "Score: accuracy, mean and deviation over seeds. FLOPs: of one image, two per multiply-add."
COLUMNS = (
    "",
    "runs",
    "n",
    "score",
    "parameters",
    "trained",
    "FLOPs",
    "training",
    "images/s",
    "training images/s",
)


def write_comparison(folder: Path, groups: Sequence[Group]) -> Path:
    """Write the three files into ``folder``, each atomically, and tell where the page is.

    Raises:
        StorageError: the file system refused.
    """
    write_json(folder / "compare.json", {"groups": [group.mapping() for group in groups]})
    write_atomic(folder / "compare.svg", comparison_plot(groups).encode())
    write_atomic(folder / "compare.html", comparison_page(groups).encode())
    return folder / "compare.html"


def cells(number: int, group: Group) -> tuple[str, ...]:
    """One row of the table as text, in the order of ``COLUMNS``."""
    values = group.values
    return (
        str(number),
        group.name,
        str(len(group.runs)),
        score_text(values.get("score")),
        *(_amount(values.get(name)) for name in ("parameters", "trainable", "flops")),
        short_seconds(values["seconds"].mean),
        *(_amount(values.get(name)) for name in ("images_per_second", "training_images_per_second")),
    )


def score_text(spread: Spread | None) -> str:
    """``98.12 ± 0.30 %``, without a deviation for one run, a dash for none."""
    if spread is None:
        return "-"
    deviation = f" ± {spread.deviation * 100:.2f}" if spread.deviation is not None else ""
    return f"{spread.mean * 100:.2f}{deviation} %"


def _amount(spread: Spread | None) -> str:
    return "-" if spread is None else short_number(spread.mean)


def comparison_page(groups: Sequence[Group]) -> str:
    """The whole HTML page."""
    data = sorted({group.runs[0].data for group in groups})
    lead = f"{sum(len(group.runs) for group in groups)} runs on {'; '.join(data)}. Runs that differ in their seed only are one row."
    head = "".join(
        f'<th class="{"name" if place == 1 else "n"}">{escape(name)}</th>'
        for place, name in enumerate(COLUMNS)
    )
    rows = "".join(_row(cells(number, group)) for number, group in enumerate(groups, 1))
    members = "".join(
        f'<tr><td class="n">{number}</td><td class="name">{escape(run.run)}</td><td class="n">{run.seed}</td>'
        f'<td class="n">{"-" if run.score is None else f"{run.score * 100:.2f} %"}</td><td class="n">{short_seconds(run.seconds)}</td></tr>'
        for number, group in enumerate(groups, 1)
        for run in group.runs
    )
    singles = '<tr><th class="n"></th><th>folder</th><th class="n">seed</th><th class="n">score</th><th class="n">time</th></tr>'
    body = (
        f'<h1>Comparison of runs</h1><p class="lead">{escape(lead)}</p>'
        + section("Table", f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>', text=TABLE)
        + section("Score against cost", comparison_plot(groups))
        + section("Single runs", f'<div class="scroll"><table>{singles}{members}</table></div>')
    )
    return document("Comparison of runs", body)


def _row(row: Sequence[str]) -> str:
    shown = (
        f'<td class="{"name" if place == 1 else "n"}">{escape(text)}</td>' for place, text in enumerate(row)
    )
    return f"<tr>{''.join(shown)}</tr>"
