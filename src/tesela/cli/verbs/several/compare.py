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
        runs: Run folders; those that training has not finished are named and left out.
        out: Folder for compare.html (table and plot in one page), compare.svg and compare.json.
        json: Print one JSON object as the last line.
    """
    from pathlib import Path

    from tesela.cli import output
    from tesela.core.errors import UsageError
    from tesela.reports.comparison import by_data, group_runs
    from tesela.reports.comparison_page import write_comparison

    output.use_json(json)
    skipped: list[UsageError] = []
    groups = group_runs(runs, skipped=skipped)
    for error in skipped:
        output.note(f"left out: {error.message} ({error.hint})")
    for data, found in by_data(groups).items():
        output.say(comparison_table(data, found))
        differences = settings_of(found)
        if differences is not None:
            output.say("\nSettings that differ")
            output.say(differences)
    page = write_comparison(Path(out), groups) if out is not None else None
    if page is not None:
        output.say(f"page    {page}")
        output.say(f"plot    {page.with_suffix('.svg')}")
    left_out = [error.message for error in skipped]
    output.result({"groups": [group.mapping() for group in groups], "out": out, "left_out": left_out}, json)
    return 1 if skipped else 0


def comparison_table(data: str, groups: Sequence[Group]) -> Any:
    """One row for each group that was scored on ``data``, best first; only the columns that differ."""
    from rich.table import Table
    from rich.text import Text

    from tesela.reports.comparison_page import NOTE, WORDS, table_of

    titles, rows, same = table_of(groups)
    table = Table(
        title=data,
        title_justify="left",
        box=None,
        header_style="bold",
        caption=f"{NOTE} {same}".strip(),
        caption_justify="left",
    )
    for title in titles:
        words = title in WORDS
        table.add_column(title, justify="left" if words else "right", overflow="fold", no_wrap=title != "run")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def settings_of(groups: Sequence[Group]) -> Any:
    """A row for each setting that differs, a column for each group by its number; None if none does."""
    from rich.table import Table
    from rich.text import Text

    from tesela.reports.comparison import settings_table

    titles, rows = settings_table(groups)
    if not rows:
        return None
    table = Table(box=None, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold", no_wrap=title == "setting")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
