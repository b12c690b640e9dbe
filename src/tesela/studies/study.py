"""One study: from what was asked for to its page; resumable at any moment."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tesela.core.files import write_json, write_text
from tesela.core.registry import lookup
from tesela.page.document import document, render
from tesela.page.section import Section
from tesela.studies.cell import Answer, Cell, Study, Trial
from tesela.studies.config import StudyConfig
from tesela.studies.facts import DataFacts, read_facts
from tesela.studies.grid import StudyFolder, configured, finished, run_cells
from tesela.studies.planned import PlannedCell, planned_cells
from tesela.studies.settings import run_settings
from tesela.training.config import layered


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyResult:
    """What a study came to.

    Attributes:
        folder: of the study.
        cells: how many its grid has.
        finished: how many of them have a result.
        failed: names of cells without one, whose training diverged.
        answer: what the results say.
    """

    folder: str
    cells: int
    finished: int
    failed: list[str]
    answer: Answer

    def mapping(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "out": self.folder,
            "page": str(StudyFolder(Path(self.folder)).page),
            "cells": self.cells,
            "finished": self.finished,
            "failed": self.failed,
            **self.answer.numbers,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedStudy:
    """A study whose grid is known and checked."""

    config: StudyConfig
    kind: Study
    facts: DataFacts
    cells: list[Cell]
    folder: StudyFolder


def open_study(config: StudyConfig, out: Path | str | None = None) -> OpenedStudy:
    """Read the data, make the grid, and check every cell's settings; nothing is written.

    Raises:
        UnknownNameError: no such kind or model.
        ConfigError: what was asked for does not fit the data, or a setting does not exist.
        DataError: the data cannot be trained on.
    """
    kind: Study = lookup("study", config.kind).load()()
    shared = run_settings(config, budget=("epochs", 1), seed=0, extra={})
    facts = read_facts(layered(shared))
    cells = kind.cells(config, facts)
    folder = StudyFolder(Path(out or f"studies/{config.kind}"))
    for cell in cells:
        configured(cell, folder)
    return OpenedStudy(config=config, kind=kind, facts=facts, cells=cells, folder=folder)


def plan_study(study: OpenedStudy) -> list[PlannedCell]:
    """The cells without a result, with their times."""
    return planned_cells(
        [cell for cell in study.cells if not study.folder.run(cell).result.is_file()], study.facts
    )


def run_study(study: OpenedStudy, *, say: Callable[[str], None]) -> StudyResult:
    """Run what has no result yet, and write the page after each cell.

    Args:
        study: see ``open_study``.
        say: takes a line for each cell.

    Raises:
        UsageError: the folder holds something else.
        ConfigError: it holds cells of other settings.
        InterruptedRunError: a signal came; the same call goes on.
        TeselaError: a cell cannot be trained.
    """
    study.folder.claim(study.config, study.facts, study.cells)

    def done(trials: list[Trial]) -> None:
        write_page(study, trials)

    failed = run_cells(study.cells, study.folder, say=say, done=done)
    trials = finished(study.cells, study.folder)
    answer = write_page(study, trials, failed)
    return StudyResult(
        folder=str(study.folder.path),
        cells=len(study.cells),
        finished=len(trials),
        failed=failed,
        answer=answer,
    )


def write_page(study: OpenedStudy, trials: list[Trial], failed: list[str] | None = None) -> Answer:
    """Write ``study.html`` and ``answer.json`` from the results that are there.

    Raises:
        StorageError: the file system refused.
    """
    answer = study.kind.answer(study.config, study.facts, trials)
    count = f"{len(trials)} of {len(study.cells)}"
    hours = sum(trial.run.seconds for trial in trials) / 3600
    seeds = f"{study.config.seeds} seed{'s' if study.config.seeds > 1 else ''}"
    tiles = [
        ("Runs", count, f"{hours:.2g} hours"),
        ("Seeds", str(study.config.seeds), "each draws its own images"),
    ]
    if failed:
        tiles.append(("Failed", str(len(failed)), ", ".join(failed)))
    page = document(
        f"{study.kind.title}: {study.facts.name}",
        lead=f"{answer.lead} {seeds}.",
        tiles=tiles,
        sections=[*answer.sections, _again(study)],
    )
    write_text(study.folder.page, page)
    write_json(study.folder.answer, {"kind": study.config.kind, "cells": len(study.cells), **answer.numbers})
    return answer


def _again(study: OpenedStudy) -> Section:
    """The command, and the settings of all runs."""
    config = study.config
    words = ["tesela", "study", config.kind, config.data, "--out", str(study.folder.path)]
    for name in ("models", "labels", "epochs", "minutes"):
        values = getattr(config, name)
        words += [f"--{name}", ",".join(f"{value:g}" if isinstance(value, float) else str(value)
                                        for value in values)] if values else []  # fmt: skip
    words += ["--seeds", str(config.seeds)]
    words += ["--first-seed", str(config.first_seed)] if config.first_seed else []
    default = next(part.default for part in dataclasses.fields(config) if part.name == "pretrain_share")
    if config.pretrain_share != default:
        words += ["--pretrain-share", f"{config.pretrain_share:g}"]
    words += [f"{name}={_word(value)}" for name, value in config.settings.items()]
    return Section(
        title="Run it again",
        note="The same command goes on where it stopped, and repeats nothing.",
        body=render("tesela.reports/commands.html.j2", commands=[shlex.join(words)], files={}),
    )


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
