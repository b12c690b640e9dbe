"""``tesela compare``: runs side by side, in one table and one plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tesela.reports.comparison import Group


def compare(*runs: str, out: str | None = None, json: bool = False) -> int:
    """Compare runs: score against size, FLOPs, time and images/s, mean and standard deviation over seeds.

    Folders without a finished run are named and left out, and the exit code is 1.

    Args:
        runs: Run folders that training has finished.
        out: Folder for compare.html (table and plot in one page), compare.svg and compare.json.
        json: Print one JSON object as the last line.
    """
    from pathlib import Path

    from tesela.cli import output
    from tesela.core.errors import UsageError
    from tesela.reports.comparison import group_runs
    from tesela.reports.comparison_page import write_comparison

    output.use_json(json)
    skipped: list[UsageError] = []
    groups = group_runs(runs, skipped=skipped)
    for error in skipped:
        output.note(f"left out: {error.message} ({error.hint})")
    output.say(comparison_table(groups))
    page = write_comparison(Path(out), groups) if out is not None else None
    if page is not None:
        output.say(f"page    {page}")
        output.say(f"plot    {page.with_suffix('.svg')}")
    left_out = [error.message for error in skipped]
    output.result({"groups": [group.mapping() for group in groups], "out": out, "left_out": left_out}, json)
    return 1 if skipped else 0


def comparison_table(groups: Sequence[Group]) -> Any:
    """One row for each group, best first."""
    from rich.table import Table
    from rich.text import Text

    from tesela.reports.comparison_page import COLUMNS, cells

    table = Table(
        box=None,
        header_style="bold",
        caption="score: mean ± standard deviation over seeds; FLOPs of one image",
        caption_justify="left",
    )
    for place, name in enumerate(COLUMNS):
        table.add_column(
            name, justify="left" if place == 1 else "right", overflow="fold", no_wrap=place not in (1, 9)
        )
    for number, group in enumerate(groups, 1):
        table.add_row(*(Text(cell) for cell in cells(number, group)))
    return table
