"""Kinds of positions, and where they are added: the study of the ViT paper's appendix D.4."""

from __future__ import annotations

from collections.abc import Sequence

from tesela.core.errors import ConfigError
from tesela.core.format import percent
from tesela.page.charts.figure import charts_row
from tesela.page.charts.intervals import Row, intervals_chart
from tesela.page.document import data_table
from tesela.page.section import Section
from tesela.studies.cell import Answer, Cell, Trial, by_way
from tesela.studies.config import StudyConfig
from tesela.studies.facts import DataFacts
from tesela.studies.families import family_candidate
from tesela.studies.interval import Estimate, mean_interval, paired_difference
from tesela.studies.means import estimate_text, means
from tesela.studies.settings import run_settings

POSITION_KINDS = {
    "none": "none (bag of patches)",
    "learned": "1-D, learned in raster order",
    "learned2d": "2-D, rows and columns",
    "sincos2d": "2-D, sine and cosine",
    "relative": "relative",
    "rotary": "rotary",
}
POSITION_PLACES = {"input": "at the input", "block": "anew at each block", "shared": "shared by all blocks"}
#: Kinds that are added to tokens, with the places where they differ: without a table, each block is shared.
ADDED = {"learned": ("block", "shared"), "learned2d": ("block", "shared"), "sincos2d": ("shared",)}
POSITION_EPOCHS = 5.0


class PositionsStudy:
    """Positions of one transformer, everything else equal."""

    title = "Positions"

    def cells(self, config: StudyConfig, facts: DataFacts) -> list[Cell]:
        """Kinds by places, seed by seed.

        Raises:
            ConfigError: several models are named, or one without positions.
        """
        facts.need_labels(config.kind)
        facts.check_shares(config.labels)
        if len(config.models) > 1 or len(config.labels) > 1:
            raise ConfigError(
                "study positions is of one model and one number of labels", hint="name one of each"
            )
        one = family_candidate(config.models[0] if config.models else "vit", facts.side)
        if one.word == "cnn" or "resnet" in one.model:
            raise ConfigError(f"{one.word} has no positions", hint="name a transformer: --models vit")
        budget = config.budget if config.budgets else ("epochs", POSITION_EPOCHS)
        images = {"data.per_class": config.labels[0]} if config.labels else {}
        variants = [(kind, place) for kind in POSITION_KINDS for place in ("input", *ADDED.get(kind, ()))]
        return [
            Cell(
                way=f"{kind}-{place}",
                seed=seed,
                settings=run_settings(
                    config,
                    budget=budget,
                    seed=seed,
                    extra={
                        "net.pool": "mean",
                        **one.settings,
                        **images,
                        "net.position": kind,
                        "net.position_at": place,
                    },
                ),
            )
            for seed in config.seed_numbers
            for kind, place in variants
        ]

    def answer(self, config: StudyConfig, facts: DataFacts, trials: Sequence[Trial]) -> Answer:
        """Means over seeds, as in the paper's table, and differences to no positions."""
        del config
        found = by_way(trials)
        scores = {way: [trial.score for trial in group] for way, group in found.items()}
        estimates = {
            way: mean_interval(values, images=found[way][0].scored) for way, values in scores.items()
        }
        rows = [_row(way, one, estimate_text(one)) for way, one in estimates.items()]
        table = [
            [title, *(_cell(estimates.get(f"{kind}-{place}")) for place in POSITION_PLACES)]
            for kind, title in POSITION_KINDS.items()
        ]
        bare = {trial.cell.seed: trial.score for trial in found.get("none-input", ())}
        gains = {}
        for way, group in found.items():
            common = [trial for trial in group if trial.cell.seed in bare]
            if way != "none-input" and common:
                mine, others = [one.score for one in common], [bare[one.cell.seed] for one in common]
                gains[way] = paired_difference(mine, others)
        differences = [_row(way, one, f"{percent(one.mean, 2)} above none") for way, one in gains.items()]
        columns = [("positions", "name"), *((title, "n") for title in POSITION_PLACES.values())]
        return Answer(
            lead=f"{facts.name}: scored on {facts.scored:,} images; the same network but for its positions.",
            sections=[
                Section(
                    title="Accuracy by positions",
                    note="Mean ± standard deviation over seeds.",
                    body=data_table(columns, table) if trials else "",
                ),
                Section(
                    title="Intervals",
                    note="95 % intervals; differences are taken seed by seed.",
                    body=charts_row(
                        intervals_chart(rows, title="Accuracy", x_label="accuracy"),
                        intervals_chart(
                            differences,
                            title="Above no positions at all",
                            x_label="difference in accuracy",
                            zero=True,
                        ),
                    )
                    if trials
                    else "",
                ),
            ],
            numbers={"means": means(trials), "gains": {way: one.mapping() for way, one in gains.items()}},
        )


def _row(way: str, one: Estimate, said: str) -> Row:
    """A bar of a way, in the tone of where positions are added."""
    tone = list(POSITION_PLACES).index(way.partition("-")[2]) + 1
    return Row(name=way, mean=one.mean, low=one.low, high=one.high, tip=f"{way}: {said}", tone=tone)


def _cell(estimate: object) -> str:
    return "" if estimate is None else estimate_text(estimate)  # type: ignore[arg-type]
