"""Accuracy against the number of labels, over models and seeds."""

from __future__ import annotations

from collections.abc import Sequence

from tesela.core.format import compact
from tesela.page.charts.figure import charts_row
from tesela.page.charts.trend import trend_chart
from tesela.page.section import Section
from tesela.studies.cell import Answer, Cell, Trial
from tesela.studies.config import StudyConfig
from tesela.studies.facts import DataFacts
from tesela.studies.families import family_candidates
from tesela.studies.means import INTERVALS, means, means_section
from tesela.studies.outlook import outlook_section, outlooks, trends
from tesela.studies.settings import run_settings

ROUND_SIZES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)
USUAL_SIZES = 5
SIZE_MINUTES = 5.0


class DataSizeStudy:
    """Accuracy against labels of each class; every cell has the same budget.

    With ``epochs`` these are passes over as many images as the smallest class has of each: fewer are passed
    over more often, so that all runs see the same number of images.
    """

    title = "Accuracy against labels"

    def cells(self, config: StudyConfig, facts: DataFacts) -> list[Cell]:
        """Models by numbers of labels, seed by seed."""
        facts.need_labels(config.kind)
        labels = config.labels or usual_labels(facts)
        facts.check_shares(labels)
        unit, length = config.budget if config.budgets else ("minutes", SIZE_MINUTES)
        found = []
        for seed in config.seed_numbers:
            for one in family_candidates(config.models, facts.side):
                for count in labels:
                    here = max(1, round(length * facts.least / count)) if unit == "epochs" else length
                    extra = {**one.settings, "data.per_class": count}
                    settings = run_settings(config, budget=(unit, here), seed=seed, extra=extra)
                    found.append(Cell(way=one.word, x=count, seed=seed, settings=settings))
        return found

    def answer(self, config: StudyConfig, facts: DataFacts, trials: Sequence[Trial]) -> Answer:
        """Means over seeds, and what more labels would bring."""
        del config
        found = outlooks(trials, label_count)
        chart = trend_chart(
            trends(trials, label_count, "labels of each class", found, compact),
            title="Accuracy on the " + facts.split + " images",
            x_label="labels of each class",
        )
        numbers = {way: one.mapping() for way, one in found.items()}
        return Answer(
            lead=f"{facts.name}: {len(facts.labels)} classes, scored on {facts.scored:,} images.",
            sections=[
                Section(title="Accuracy against labels", note=INTERVALS, body=charts_row(chart)),
                means_section(trials, title="Means over seeds", unit="labels of each class"),
                outlook_section(
                    found, title="What more labels would bring", unit="many labels", form=compact
                ),
            ],
            numbers={"means": means(trials), "outlook": numbers},
        )


def usual_labels(facts: DataFacts) -> tuple[int, ...]:
    """Round numbers of labels, the largest that the smallest class has."""
    return tuple(count for count in ROUND_SIZES if count <= facts.least)[-USUAL_SIZES:]


def label_count(trial: Trial) -> float:
    """Labels of each class."""
    return trial.cell.x
