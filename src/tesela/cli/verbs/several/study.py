"""``tesela study``: a resumable grid of runs that answers a question, and its page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tesela.studies.planned import PlannedCell


def study(
    kind: str,
    data: str,
    /,
    *settings: str,
    out: Path | None = None,
    models: str = "",
    labels: str = "",
    seeds: int = 3,
    first_seed: int = 0,
    epochs: str = "",
    minutes: str = "",
    pretrain_share: float = 0.5,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Run a grid of trainings that answers a question, and write one page: data-size, compute, positions, ...

    data-size: accuracy against labels, and what more labels would bring. compute: against training compute
    and model size. positions: kinds of positions. few-labels: pre-training beside scratch and a CNN in equal
    time. claims: what the articles claim, on data with labels or with masks.

    Each run is an ordinary run folder below OUT/cells. Kill it and give the same command again: nothing runs
    twice. More seeds, labels or models may be given later; only what is new is computed.

    Args:
        kind: data-size, compute, positions, few-labels or claims.
        data: the data, as tesela train takes it.
        settings: further settings of every run, as key=value words of tesela train.
        out: folder of the study; studies/KIND by default.
        models: families (vit, hybrid, cct, cnn) or names of tesela models, with commas between; settings of a
            model follow it: vit_nano:depth=2.
        labels: training images of each class, with commas between.
        seeds: how often each is repeated.
        first_seed: the first of the seeds; other machines may compute others.
        epochs: length of a run in epochs; study compute takes several, with commas between.
        minutes: length of a run in minutes instead, for all that a compared way needs.
        pretrain_share: share of the minutes that goes into pre-training.
        dry_run: show the grid and the time that it will take, and do nothing.
        json: print one JSON object as the last line.
    """
    from tesela.cli import output
    from tesela.hardware.allocator import keep_freed_memory
    from tesela.studies.config import StudyConfig

    output.use_json(json)
    config = StudyConfig(
        kind=kind,
        data=data,
        models=tuple(word.strip() for word in models.split(",") if word.strip()),
        labels=numbers(labels, int, "labels"),
        seeds=seeds,
        first_seed=first_seed,
        epochs=numbers(epochs, int, "epochs"),
        minutes=numbers(minutes, float, "minutes"),
        pretrain_share=pretrain_share,
        settings=read_settings(settings),
    )
    keep_freed_memory()  # before torch is imported
    from tesela.studies.study import open_study, plan_study, run_study

    opened = open_study(config, out)
    if dry_run:
        planned = plan_study(opened)
        show_plan(planned, cells=len(opened.cells))
        rows = [{"cell": one.cell.name, "seconds": round(one.seconds, 1)} for one in planned]
        output.result({"cells": len(opened.cells), "planned": rows, "out": opened.folder.path}, json)
        return 0
    found = run_study(opened, say=output.note)
    output.say(f"{found.finished} of {found.cells} runs")
    output.say(f"page    {opened.folder.page}")
    output.result(found.mapping(), json)
    return 1 if found.failed else 0


def numbers(text: str, kind: Callable[[str], Any], name: str) -> tuple[Any, ...]:
    """Numbers with commas between.

    Raises:
        UsageError: one is no number.
    """
    from tesela.core.errors import UsageError

    try:
        return tuple(kind(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise UsageError(
            f"--{name} takes numbers, not {text}", hint=f"write them with commas between: --{name} 10,100"
        ) from None


def read_settings(words: tuple[str, ...]) -> dict[str, Any]:
    """``key=value`` words of ``tesela train`` as settings by dotted name.

    Raises:
        UsageError: a word has no equals sign.
        ConfigError: there is no such setting.
    """
    from tesela.cli.verbs.train import FREE_MAPPINGS, check_key, flag_key, parsed
    from tesela.core.errors import UsageError

    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"{word} is no setting", hint="write settings of the runs as key=value")
        check_key(key, shown=key)
        found[flag_key(key)] = parsed(value) if key.partition(".")[0] in FREE_MAPPINGS else value
    return found


def show_plan(planned: list[PlannedCell], *, cells: int) -> None:
    """A row for each run that is left, and the time of all."""
    from rich.table import Table
    from rich.text import Text

    from tesela.cli import output
    from tesela.core.format import duration

    table = Table(box=None, header_style="bold")
    table.add_column("run")
    table.add_column("time", justify="right")
    for one in planned:
        table.add_row(Text(one.cell.name), duration(one.seconds))
    output.say(table)
    total = duration(sum(one.seconds for one in planned))
    output.say(f"{len(planned)} of {cells} runs are left, about {total}")
