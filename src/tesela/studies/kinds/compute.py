"""Accuracy against training compute and size, over models, training lengths and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tesela.core.format import compact
from tesela.models.catalog import find_model
from tesela.page.charts.figure import charts_row
from tesela.page.charts.trend import trend_chart
from tesela.page.section import Section
from tesela.studies.cell import Answer, Cell, Trial
from tesela.studies.config import StudyConfig
from tesela.studies.facts import DataFacts
from tesela.studies.families import family_candidate, family_candidates
from tesela.studies.means import INTERVALS, means, means_section
from tesela.studies.outlook import Outlook, look_ahead, outlook_section, outlooks, trends
from tesela.studies.settings import run_settings

USUAL_LENGTHS = (1, 2, 4, 8)
#: Widths of the ViT in quarters of the catalogue's.
QUARTER_WIDTHS = (1, 2, 4, 6)
#: A training step costs about three forward passes: one forward, two backward.
PASSES = 3


class ComputeStudy:
    """Each model for each training length, on all images or on ``labels`` of each class."""

    title = "Accuracy against compute"

    def cells(self, config: StudyConfig, facts: DataFacts) -> list[Cell]:
        """Models by training lengths, seed by seed."""
        facts.need_labels(config.kind)
        facts.check_shares(config.labels)
        budgets = config.budgets or tuple(("epochs", length) for length in USUAL_LENGTHS)
        models = family_candidates(config.models or usual_models(facts.side), facts.side)
        images = {"data.per_class": max(config.labels)} if config.labels else {}
        return [
            Cell(
                way=one.word,
                x=length,
                seed=seed,
                settings=run_settings(
                    config, budget=(unit, length), seed=seed, extra={**one.settings, **images}
                ),
            )
            for seed in config.seed_numbers
            for one in models
            for unit, length in budgets
        ]

    def answer(self, config: StudyConfig, facts: DataFacts, trials: Sequence[Trial]) -> Answer:
        """Means over seeds, and what longer training or a larger model would bring."""
        unit = "minutes" if config.minutes else "epochs"
        longer, larger = outlooks(trials, training_operations), larger_models(trials, facts)
        chart = trend_chart(
            trends(trials, training_operations, "operations", longer, compact),
            title="Accuracy against training compute",
            x_label="operations of the training (FLOPs)",
        )
        return Answer(
            lead=f"{facts.name}: {len(facts.labels)} classes, {facts.images:,} training images, "
            f"scored on {facts.scored:,}.",
            sections=[
                Section(title="Accuracy against compute", note=INTERVALS + COUNTED, body=charts_row(chart)),
                means_section(trials, title="Means over seeds", unit=f"{unit} of training"),
                outlook_section(
                    longer, title="What longer training would bring", unit="much compute", form=compact
                ),
                outlook_section(
                    larger, title="What a larger model would bring", unit="many parameters", form=compact
                ),
            ],
            numbers={
                "means": means(trials),
                "longer": {way: one.mapping() for way, one in longer.items()},
                "larger": {name: one.mapping() for name, one in larger.items()},
            },
        )


COUNTED = " Operations are counted as three forward passes for each image that was seen."


def usual_models(side: int) -> tuple[str, ...]:
    """The ViT in four widths beside the other families."""
    config: Any = find_model(family_candidate("vit", side).model).config
    step = config.width // 4
    widths = [step * quarters // config.heads * config.heads for quarters in QUARTER_WIDTHS]
    sizes = tuple("vit" if width == config.width else f"vit:width={width}" for width in widths)
    others = [one.word for one in family_candidates((), side) if one.word != "vit"]
    return (*sizes, *others)


def training_operations(trial: Trial) -> float:
    """Operations of the whole training; 0 where the model has no closed form."""
    return float(PASSES * (trial.run.flops or 0) * trial.images)


def larger_models(trials: Sequence[Trial], facts: DataFacts) -> dict[str, Outlook]:
    """The outlook over sizes of each network that takes part in several, at the longest training."""
    longest = max((trial.cell.x for trial in trials), default=0.0)
    sizes: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.cell.x == longest:
            name = family_candidate(trial.cell.way, facts.side).model
            sizes.setdefault(name, []).append(trial)
    return {
        f"{name}, {longest:g} {'minutes' if 'minutes' in group[0].cell.settings else 'epochs'}": look_ahead(
            [float(trial.run.parameters) for trial in group], [trial.score for trial in group]
        )
        for name, group in sizes.items()
        if len({trial.cell.way for trial in group}) > 1
    }
