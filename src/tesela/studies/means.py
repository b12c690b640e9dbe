"""Means over seeds as tables: what is compared down, the axis of the study across."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tesela.core.format import compact, duration, percent
from tesela.page.document import data_table
from tesela.page.section import Section
from tesela.studies.cell import Trial, by_place, by_way
from tesela.studies.interval import Estimate, mean_interval

INTERVALS = (
    "Bars are 95 % intervals: of the mean over seeds (Student's t), or, of a single seed, of the images that "
    "were scored (Wilson). Lines are fitted laws with the band of their uncertainty, or join the means."
)


def means(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """A row for each group of seeds."""
    return [
        {
            "way": way,
            "x": place,
            **mean_interval([one.score for one in here], images=here[0].scored).mapping(),
            "scores": {str(one.cell.seed): one.score for one in here},
            "seconds": sum(one.run.seconds for one in here) / len(here),
            "parameters": here[0].run.parameters,
        }
        for way, group in by_way(trials).items()
        for place, here in by_place(group).items()
    ]


def means_section(trials: Sequence[Trial], *, title: str, unit: str, note: str = "") -> Section:
    """A table: what is compared down, the axis across."""
    rows, places = by_way(trials), sorted({trial.cell.x for trial in trials if trial.cell.shown})
    columns = [("", "name"), ("parameters", "n"), ("time of a run", "n")]
    columns += [(f"{place:g}" if place else "score", "n") for place in places]
    cells = []
    for way, group in rows.items():
        at = by_place(group)
        seconds = sum(trial.run.seconds for trial in group) / len(group)
        values = [
            estimate_text(mean_interval([trial.score for trial in at[place]], images=at[place][0].scored))
            if place in at
            else "-"
            for place in places
        ]
        cells.append([way, compact(group[0].run.parameters), duration(seconds), *values])
    words = " ".join(filter(None, (f"By {unit}." if unit else "", note)))
    return Section(title=title, note=words, body=data_table(columns, cells) if cells else "")


def estimate_text(estimate: Estimate) -> str:
    """``61.2 % ± 0.8`` over seeds, with an interval where there is one seed."""
    if estimate.deviation is not None:
        return f"{percent(estimate.mean, 1)} ± {estimate.deviation * 100:.1f}"
    if not estimate.bounded:
        return percent(estimate.mean, 1)
    return f"{percent(estimate.mean, 1)} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"
