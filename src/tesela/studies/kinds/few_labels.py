"""Few labels: pre-training on all images beside scratch and a CNN, in equal total time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tesela.core.errors import ConfigError
from tesela.core.format import compact, percent
from tesela.page.charts.figure import charts_row
from tesela.page.charts.trend import trend_chart
from tesela.page.document import data_table
from tesela.page.section import Section
from tesela.studies.cell import Answer, Cell, Trial, by_place, by_way
from tesela.studies.config import StudyConfig
from tesela.studies.facts import DataFacts
from tesela.studies.families import family_candidate
from tesela.studies.interval import Estimate, above, paired_difference, points_text
from tesela.studies.kinds.data_size import label_count, usual_labels
from tesela.studies.means import INTERVALS, means, means_section
from tesela.studies.outlook import trends
from tesela.studies.settings import TUNING, pretraining_settings, run_settings

USUAL_LABELS = (10, 100, 1000)
FEW_LABELS_MINUTES = 10.0
PRETRAINED, SCRATCH, CNN = "pre-trained", "scratch", "CNN"


class FewLabelsStudy:
    """Three ways to learn from few labels, each with the same total time.

    The pre-training sees all training images and no label. It is computed once for each seed; its time counts
    in every number of labels.
    """

    title = "Few labels"

    def cells(self, config: StudyConfig, facts: DataFacts) -> list[Cell]:
        """Ways by numbers of labels, seed by seed.

        Raises:
            ConfigError: the length is given in epochs, which do not compare, or models other than a
                transformer and a CNN are named.
        """
        facts.need_labels(config.kind)
        if config.epochs:
            raise ConfigError(
                "study few-labels compares ways of training in equal time, which epochs are not",
                hint="give the time of each way: --minutes 10",
            )
        if len(config.models) not in (0, 2):
            raise ConfigError(
                f"study few-labels is of a transformer and a CNN, not {len(config.models)} models",
                hint="name both, in this order: --models vit,cnn",
            )
        words = config.models or ("vit", "cnn")
        network, convolutional = (family_candidate(word, facts.side) for word in words)
        labels = config.labels or tuple(n for n in USUAL_LABELS if n <= facts.least) or usual_labels(facts)
        facts.check_shares(labels)
        minutes = config.budget[1] if config.budgets else FEW_LABELS_MINUTES
        before = minutes * config.pretrain_share
        found = []
        for seed in config.seed_numbers:
            pretraining = Cell(
                way="pretraining",
                seed=seed,
                settings=pretraining_settings(config, minutes=before, seed=seed, extra=network.settings),
                shown=False,
            )
            found.append(pretraining)
            for count in labels:
                few = {"data.per_class": count}
                ways: list[tuple[str, float, dict[str, Any], Cell | None]] = [
                    (PRETRAINED, minutes - before, TUNING, pretraining),
                    (SCRATCH, minutes, network.settings, None),
                    (CNN, minutes, convolutional.settings, None),
                ]
                for way, length, own, after in ways:
                    settings = run_settings(
                        config, budget=("minutes", length), seed=seed, extra={**few, **own}
                    )
                    found.append(Cell(way=way, x=count, seed=seed, settings=settings, after=after))
        return found

    def answer(self, config: StudyConfig, facts: DataFacts, trials: Sequence[Trial]) -> Answer:
        """Means over seeds, and the gain of the pre-training over each other way."""
        minutes = config.budget[1] if config.budgets else FEW_LABELS_MINUTES
        chart = trend_chart(
            trends(trials, label_count, "labels of each class", {}, compact),
            title="Accuracy in equal total time",
            x_label="labels of each class",
        )
        found = gains(trials)
        columns = [("labels of each class", "n"), ("above", "name"), ("gain", "n"), ("95 % interval", "n")]
        rows = [
            [f"{count:g}", other, f"{points_text(one.mean)} points", interval_text(one), above_text(one)]
            for (count, other), one in found.items()
        ]
        return Answer(
            lead=f"{facts.name}: every way has {minutes:g} minutes in all; the pre-training takes "
            f"{percent(config.pretrain_share)} of its own and sees {facts.images:,} images without labels.",
            sections=[
                Section(title="Accuracy against labels", note=INTERVALS, body=charts_row(chart)),
                means_section(
                    trials,
                    title="Means over seeds",
                    unit="labels of each class",
                    note="The time of a pre-trained run is that of its fine-tuning.",
                ),
                Section(
                    title="What pre-training gains",
                    note="Differences are taken seed by seed.",
                    body=data_table([*columns, ("", "name")], rows) if rows else "",
                ),
            ],
            numbers={
                "means": means(trials),
                "gains": [
                    {"labels": count, "above": other, **one.mapping()}
                    for (count, other), one in found.items()
                ],
            },
        )


def gains(trials: Sequence[Trial]) -> dict[tuple[float, str], Estimate]:
    """Accuracy of the pre-trained network above the other ways, by number of labels and way."""
    ways = by_way(trials)
    found = {}
    for count, group in by_place(ways.get(PRETRAINED, ())).items():
        for other in (SCRATCH, CNN):
            beside = {trial.cell.seed: trial.score for trial in by_place(ways.get(other, ())).get(count, ())}
            pairs = [(one.score, beside[one.cell.seed]) for one in group if one.cell.seed in beside]
            if pairs:
                found[count, other] = paired_difference(*zip(*pairs, strict=True))
    return found


def interval_text(difference: Estimate) -> str:
    """Its ends in points; a dash for one seed."""
    if not difference.bounded:
        return "-"
    return f"{points_text(difference.low)} to {points_text(difference.high)}"


def above_text(difference: Estimate) -> str:
    """What the interval says of the sign."""
    words = {"holds": "better", "does not hold": "worse", "undecided": "undecided"}
    return words[above(difference)] if difference.bounded else "one seed"
