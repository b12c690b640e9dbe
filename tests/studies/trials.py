"""Trials with known scores, as a grid of a kind of study would have left them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tesela.core.registry import lookup
from tesela.reports.comparison import Contender
from tesela.studies.cell import Cell, Study, Trial
from tesela.studies.config import StudyConfig
from tesela.studies.facts import DataFacts

FACTS = DataFacts(
    name="pictures",
    labels=tuple("abcdefghij"),
    counts=(5000,) * 10,
    side=32,
    channels=3,
    masks=False,
    scored=10_000,
    split="test",
    digest="0",
)


def kind_of(config: StudyConfig) -> Study:
    found: Study = lookup("study", config.kind).load()()
    return found


def trial(
    cell: Cell, score: float, *, flops: int = 500_000_000, parameters: int = 3_000_000, **scores: Any
) -> Trial:
    """A finished cell with this score."""
    contender = Contender(
        run=cell.name,
        model=str(cell.settings.get("model", "")),
        data="pictures, test",
        seed=cell.seed,
        score=score,
        parameters=parameters,
        trainable=parameters,
        flops=flops,
        seconds=300.0,
        images_per_second=None,
        training_images_per_second=100.0,
        settings={"data.source": "digits"},
    )
    images = float(cell.settings.get("epochs", 1)) * 50_000
    return Trial(
        cell=cell,
        folder=Path(cell.name),
        run=contender,
        epochs=1.0,
        images=images,
        scores={"images": 10_000, **scores},
    )


def trials(
    config: StudyConfig, score: Callable[[Cell], float | dict[str, Any]], facts: DataFacts = FACTS
) -> list[Trial]:
    """Trials of a whole grid; ``score`` gives the accuracy of a cell, or all values of a trial."""
    found = []
    for cell in kind_of(config).cells(config, facts):
        value = score(cell)
        found.append(trial(cell, value) if isinstance(value, float) else trial(cell, **value))
    return found
