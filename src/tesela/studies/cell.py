"""Cells of a grid, the results of their runs, and the protocol of a kind of study."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tesela.page.section import Section
from tesela.reports.comparison import Contender
from tesela.studies.config import StudyConfig
from tesela.studies.facts import DataFacts


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One run of a grid.

    Attributes:
        way: what is compared: a model, a kind of positions, a way of training.
        x: where it stands on the axis of the study, such as the number of labels of each class.
        seed: of the run and of the draw of its images.
        settings: of the run, by dotted name.
        after: the cell whose trained network it starts from, or None.
        shown: whether its score is one of the study's; that of a pre-training is not.
    """

    way: str
    x: float = 0.0
    seed: int
    settings: Mapping[str, Any]
    after: Cell | None = None
    shown: bool = True

    @property
    def name(self) -> str:
        """Name of its folder."""
        place = f"-{self.x:g}" if self.x else ""
        return re.sub(r"[^\w.=-]", "_", f"{self.way}{place}-seed{self.seed}")

    @property
    def record(self) -> dict[str, Any]:
        """All that decides its result, as plain values."""
        plain = {**self.settings, "seed": self.seed, "after": self.after.name if self.after else None}
        found: dict[str, Any] = json.loads(json.dumps(plain))  # as it will be read back
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A cell whose run is finished.

    Attributes:
        cell: it.
        folder: of the run.
        run: score and cost.
        epochs: passes over its training images.
        images: training images that were seen, each as often as it was.
        scores: its evaluation.json.
    """

    cell: Cell
    folder: Path
    run: Contender
    epochs: float
    images: float
    scores: Mapping[str, Any]

    @property
    def scored(self) -> int:
        """Images that the score is of."""
        return int(self.scores.get("images", 0))

    @property
    def score(self) -> float:
        """The task's model-selection metric on the split that is scored."""
        return float(self.run.score or 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a study says so far.

    Attributes:
        lead: one sentence.
        sections: of the page.
        numbers: the same as plain values, for a file.
    """

    lead: str
    sections: Sequence[Section]
    numbers: Mapping[str, Any] = field(default_factory=dict)


class Study(Protocol):
    """A kind of study."""

    title: str

    def cells(self, config: StudyConfig, facts: DataFacts) -> list[Cell]:
        """The grid, in the order in which it is computed: whole rounds of a seed first.

        Raises:
            ConfigError: what was asked for does not fit the data.
        """

    def answer(self, config: StudyConfig, facts: DataFacts, trials: Sequence[Trial]) -> Answer:
        """What the finished cells say."""


def by_way(trials: Iterable[Trial]) -> dict[str, list[Trial]]:
    """Shown trials by what is compared, in the order of the grid."""
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.cell.shown:
            found.setdefault(trial.cell.way, []).append(trial)
    return found


def by_place(trials: Iterable[Trial]) -> dict[float, list[Trial]]:
    """Trials by where they stand on the axis, ascending."""
    found: dict[float, list[Trial]] = {}
    for trial in sorted(trials, key=lambda trial: (trial.cell.x, trial.cell.seed)):
        found.setdefault(trial.cell.x, []).append(trial)
    return found
