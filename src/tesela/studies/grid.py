"""Grid of a study: its folder, and its cells, each of which is run once.

    study.json     what was asked for, and the settings of every cell
    cells/NAME/    a run folder for each cell
    study.html     the page, written again after each cell
    answer.json    its numbers

A cell with a result is read, one that was interrupted is resumed, any other is begun as ``tesela train``
begins it. Several processes may be given the same study: a run folder is locked by the one that trains in
it, and the others take the next. A larger grid (more seeds, sizes or models) in the same folder computes
what is new only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tesela.core.config import read_yaml
from tesela.core.errors import (
    ConfigError,
    DataError,
    DivergedError,
    FolderInUseError,
    InterruptedRunError,
    UsageError,
)
from tesela.core.files import read_json, write_json
from tesela.reports.comparison import read_run
from tesela.runs.folder import Run
from tesela.studies.cell import Cell, Trial
from tesela.studies.config import StudyConfig
from tesela.studies.facts import DataFacts
from tesela.training.config import TrainConfig, absolute, layered
from tesela.training.run import resumed_config, train

STUDY_FORMAT = "tesela-study/1"
#: Between two looks at what another process is computing.
BUSY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """A study's folder and the names in it."""

    path: Path

    @property
    def record(self) -> Path:
        """What was asked for."""
        return self.path / "study.json"

    @property
    def page(self) -> Path:
        """The page."""
        return self.path / "study.html"

    @property
    def answer(self) -> Path:
        """Its numbers."""
        return self.path / "answer.json"

    def run(self, cell: Cell) -> Run:
        """The run folder of a cell."""
        return Run(self.path / "cells" / cell.name)

    def claim(self, config: StudyConfig, facts: DataFacts, cells: Sequence[Cell]) -> None:
        """Write down what the grid is, or refuse a folder that holds another one.

        Raises:
            UsageError: the folder holds something else.
            ConfigError: a cell with other settings is there already.
            DataError: the data has changed since.
        """
        new = {cell.name: cell.record for cell in cells}
        wanted = {
            "format": STUDY_FORMAT,
            "kind": config.kind,
            "data": absolute(config.data),
            "digest": facts.digest,
        }
        known = self._known(config)
        if known:
            self._compare(known, wanted, new)
        for cell in cells:
            if cell.name not in known.get("cells", {}) and self.run(cell).exists():
                check_copied(cell, self.run(cell))
        write_json(self.record, {**wanted, "cells": {**known.get("cells", {}), **new}})

    def _known(self, config: StudyConfig) -> Mapping[str, Any]:
        if self.record.is_file():
            known = dict(read_json(self.record))
            if known.get("kind") != config.kind:
                raise ConfigError(
                    f"{self.path} holds a study {known.get('kind')}, not {config.kind}",
                    hint="choose another folder with --out",
                )
            return known
        if self.path.exists() and not (self.path.is_dir() and all(map(self._is_ours, self.path.iterdir()))):
            raise UsageError(f"{self.path} is not empty", hint="choose another folder with --out")
        return {}

    def _is_ours(self, child: Path) -> bool:
        """Whether another process is writing it at this moment, or runs were copied into it."""
        if child.name == "cells" and child.is_dir():
            return all(Run(cell).exists() for cell in child.iterdir())
        return child.name.startswith(f".{self.record.name}.")

    def _compare(
        self, known: Mapping[str, Any], wanted: Mapping[str, Any], new: Mapping[str, Mapping[str, Any]]
    ) -> None:
        if known["data"] != wanted["data"]:
            raise ConfigError(
                f"the study in {self.path} is of {known['data']}, not {wanted['data']}",
                hint="choose another folder with --out",
            )
        if known["digest"] != wanted["digest"]:
            raise DataError(
                f"the data has changed since the study in {self.path} began",
                hint="put the images back as they were, or choose another folder with --out",
            )
        for name, record in new.items():
            there = known["cells"].get(name, record)
            changed = [key for key in sorted({*there, *record}) if not _agree(there, record, key)]
            if not changed:
                continue
            listed = ", ".join(
                f"{key.rstrip('_')} ({there.get(key)} to {record.get(key)})" for key in changed
            )
            raise ConfigError(
                f"the study in {self.path} was begun with other settings: {listed}",
                hint="give the same settings again, or choose another folder with --out",
            )


def _agree(there: Mapping[str, Any], record: Mapping[str, Any], key: str) -> bool:
    """Whether two records of a cell have a setting in common, be it as a number or as a word."""
    if there.get(key) == record.get(key):
        return True
    if key == "after" or key not in there or key not in record:
        return False
    return layered({key: there[key]}) == layered({key: record[key]})


def configured(cell: Cell, folder: StudyFolder) -> TrainConfig:
    """The configuration of a cell's run.

    Raises:
        ConfigError: a setting does not exist, or its value is refused.
    """
    after = {} if cell.after is None else {"from": str(folder.run(cell.after).path)}
    return layered(cell.settings, {"seed": cell.seed, **after, "out": str(folder.run(cell).path)})


def check_copied(cell: Cell, run: Run) -> None:
    """Refuse a run that was put here, from another machine, and is not the cell.

    Raises:
        ConfigError: it was trained with other settings, or on data of another name.
    """
    there = layered(read_yaml(run.config))
    wanted = {**cell.settings, "seed": cell.seed}
    source = str(wanted.pop("data.source"))
    differing = [
        name for name, value in wanted.items() if layered(read_yaml(run.config), {name: value}) != there
    ]
    if Path(source).name != Path(str(there.data.source)).name:
        differing.append("data.source")
    if differing:
        raise ConfigError(
            f"{run.path} was trained with other settings than the study's: {', '.join(differing)}",
            hint="take that folder away, or choose another folder with --out",
        )


def read_trial(cell: Cell, run: Run) -> Trial:
    """The result of a finished cell."""
    result, contender = read_json(run.result), read_run(run.path)
    choices = read_json(run.choices)
    return Trial(
        cell=cell,
        folder=run.path,
        run=contender,
        epochs=float(result["epochs"]),
        images=float(result["epochs"]) * float(choices.get("images", {}).get("train", 0)),
        scores=dict(read_json(run.evaluation)) if run.evaluation.is_file() else {},
    )


def finished(cells: Sequence[Cell], folder: StudyFolder) -> list[Trial]:
    """The results that are there."""
    return [read_trial(cell, run) for cell in cells if (run := folder.run(cell)).result.is_file()]


def run_cells(
    cells: Sequence[Cell],
    folder: StudyFolder,
    *,
    say: Callable[[str], None],
    done: Callable[[list[Trial]], None],
) -> list[str]:
    """Run what has no result yet, in order; leave to another process what it is at, and wait for it.

    Args:
        cells: of the grid; each comes after the one whose network it starts from.
        folder: where they go.
        say: takes a line for each cell.
        done: takes all results after each cell.

    Returns:
        names of the cells whose training diverged, and of those that needed their network.

    Raises:
        InterruptedRunError: a signal came; the cell's state is saved.
        TeselaError: a cell cannot be trained.
    """
    failed: list[str] = []
    told = False
    while left := [
        cell for cell in cells if cell.name not in failed and not folder.run(cell).result.is_file()
    ]:
        busy = [cell.name for cell in left if not _taken(cell, cells, folder, failed, say=say, done=done)]
        if len(busy) == len(left):
            if not told:
                say(f"another process is at {busy[0]}: waiting for it")
            told = True
            time.sleep(BUSY_SECONDS)
    if told:
        done(finished(cells, folder))
    return failed


def _taken(
    cell: Cell,
    cells: Sequence[Cell],
    folder: StudyFolder,
    failed: list[str],
    *,
    say: Callable[[str], None],
    done: Callable[[list[Trial]], None],
) -> bool:
    """Run a cell; whether it has a result or has failed now, and is not another process's."""
    run = folder.run(cell)
    if run.result.is_file():
        return True
    place = f"{cells.index(cell) + 1}/{len(cells)}  {cell.name}"
    if cell.after is not None and not folder.run(cell.after).result.is_file():
        if cell.after.name in failed:
            failed.append(cell.name)
            say(f"{place}: left out, since {cell.after.name} failed")
        return cell.name in failed
    begin = time.monotonic()
    try:
        _run(cell, run, folder)
    except FolderInUseError:
        return False
    except DivergedError as error:
        failed.append(cell.name)
        say(f"{place}: {error.message}")
        return True
    except InterruptedRunError as error:
        raise InterruptedRunError(
            f"the study was interrupted in cell {cell.name}: {error.message}",
            hint="give the same command again: what is finished is kept",
        ) from None
    trials = finished(cells, folder)
    score = next(trial.score for trial in trials if trial.cell is cell)
    say(f"{place}: {score:.4f}, {time.monotonic() - begin:.0f} s")
    done(trials)
    return True


def _run(cell: Cell, run: Run, folder: StudyFolder) -> None:
    """One cell, from wherever it stands."""
    if run.exists():
        train(resumed_config(run.path), resume=True)
    else:
        train(configured(cell, folder))
