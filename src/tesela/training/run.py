"""One training run: from a configuration to a run folder with a finished, evaluated model.

The order matters for exactness: the configuration is written down first, then what was chosen on this
machine, then checkpoints, and ``result.json`` last. A run that dies anywhere in between is taken up by
``resume`` at the last thing that is whole.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tesela.core.config import read_yaml, to_mapping, to_yaml
from tesela.core.errors import ConfigError, InterruptedRunError, TeselaError, UsageError
from tesela.core.files import json_text, read_json, write_text
from tesela.hardware.launch import Launch, launched
from tesela.hardware.ranks import ALONE, PeerLostError, Ranks
from tesela.runs.folder import Run
from tesela.runs.history import elapsed_seconds
from tesela.runs.result import RunResult
from tesela.tasks.opening import open_for_task
from tesela.training.config import TrainConfig, changes, layered, with_absolute_paths
from tesela.training.parallel.agreement import agree_on_data
from tesela.training.stop import Stop, StopRequested

if TYPE_CHECKING:
    from rich.console import Console

    from tesela.data.source import Source


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    console: Console | None = None,
    begin: float | None = None,
    source: Source | None = None,
) -> RunResult:
    """Train, evaluate and report; or take an interrupted run up where it stands.

    Args:
        config: the run; with ``resume`` it must say what the interrupted one said, see ``resumed_config``.
        resume: whether to continue the run in ``config.out``.
        console: where plan and progress go; None for silence.
        begin: monotonic time from which ``minutes`` and ``seconds`` count; now if None.
        source: the data, where it is open already.

    Raises:
        UsageError: the folder is taken, or there is nothing to resume.
        InterruptedRunError: a signal came; the state is saved.
        DivergedError: the loss is not finite.
        TeselaError: data, storage or weights cannot be used.
    """
    begin = time.monotonic() if begin is None else begin
    if not config.data.source:
        raise UsageError("no data was named", hint="tesela train DATA")
    config = with_absolute_paths(config)
    launch, stop = launched(), Stop()
    with stop.listening(), _ranks(config, launch) as ranks:
        if ranks.alone:
            return _lead(config, resume=resume, console=console, begin=begin, source=source, stop=stop)
        ranks.agree("the configuration", to_yaml(config), hint="give every process the same command")
        run = Run(str(config.out))
        try:
            if not ranks.writes:
                from tesela.training.parallel.follow import follow

                return follow(run, ranks, stop=stop, begin=begin)
            if ranks.restarts and run.exists():
                config, resume = resumed_config(run.path), True
            return _lead(
                config, resume=resume, console=console, begin=begin, source=source, stop=stop, ranks=ranks
            )
        except (StopRequested, PeerLostError):
            if stop.requested:
                raise _interrupted(run, stop) from None
            raise


@contextlib.contextmanager
def _ranks(config: TrainConfig, launch: Launch) -> Iterator[Ranks]:
    """The processes that train together; without connecting anything where there is only this one."""
    from tesela.hardware.device import choose_device
    from tesela.hardware.distributed import joined

    if launch.ranks > 1 and config.out is None:
        raise UsageError(
            "several processes train into one folder, and none was named", hint="tesela train DATA --out RUN"
        )
    with joined(launch, cuda=launch.ranks > 1 and choose_device(config.device).type == "cuda") as ranks:
        yield ranks


def _lead(
    config: TrainConfig,
    *,
    resume: bool,
    console: Console | None,
    begin: float,
    source: Source | None,
    stop: Stop,
    ranks: Ranks = ALONE,
) -> RunResult:
    """Train by this process alone, or as the one that writes for all of them."""
    config = config if config.out else replace(config, out=str(free_folder(config)))
    run = Run(str(config.out))
    with contextlib.ExitStack() as held:

        def opened() -> OpenedRun:
            check_folder(run, config, resume=resume)
            held.enter_context(run.locked())
            check_folder(run, config, resume=resume)  # again, now that nobody else can change it
            return _opened(config, run, source, stop)

        found = ranks.tell(opened, OpenedRun.text)
        if found.result is not None:
            _say(console, f"{run.path} is complete already")
            return found.result
        try:
            return _complete(found, run, stop=stop, console=console, begin=begin, ranks=ranks)
        except StopRequested:
            raise _interrupted(run, stop) from None
        except TeselaError:
            if found.fresh and not run.choices.exists():
                _withdraw(run)
            raise


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedRun:
    """A run folder that is locked, with its configuration.

    Attributes:
        config: with all defaults filled in.
        run: the folder.
        fresh: whether it begins now.
        source: the data, where it is open already.
        notes: remarks for the plan.
        result: of a run that is complete.
    """

    config: TrainConfig
    run: Run
    fresh: bool
    source: Source | None = None
    notes: tuple[tuple[str, str], ...] = ()
    result: RunResult | None = None

    def text(self) -> str:
        """What other processes of the same training need of it, as JSON."""
        choices = read_json(self.run.choices) if self.run.choices.exists() else None
        result = self.result.mapping() if self.result is not None else None
        return json_text({"config": to_mapping(self.config), "choices": choices, "result": result})


def _opened(config: TrainConfig, run: Run, source: Source | None, stop: Stop) -> OpenedRun:
    """The run in a folder that is locked."""
    if run.result.exists():
        return OpenedRun(config=config, run=run, fresh=False, result=RunResult.read(read_json(run.result)))
    _tidy(run)
    if run.exists():
        return OpenedRun(config=config, run=run, fresh=False, source=source)
    with stop.interruptible():
        source = source or open_for_task(config.task, config.data)
        config, notes = _settled(config, source)
    write_text(run.config, to_yaml(config))
    return OpenedRun(config=config, run=run, fresh=True, source=source, notes=notes)


def _settled(config: TrainConfig, source: Source) -> tuple[TrainConfig, tuple[tuple[str, str], ...]]:
    """The configuration with defaults filled in, and remarks for the plan."""
    from tesela.training.planning.defaults import fill_defaults
    from tesela.training.planning.inert import inert_options

    filled = fill_defaults(config, source)
    silent = [("no effect", line) for line in inert_options(config)] if config.recipe is None else []
    return filled.config, (*filled.notes, *silent)


def _complete(
    opened: OpenedRun, run: Run, *, stop: Stop, console: Console | None, begin: float, ranks: Ranks
) -> RunResult:
    """The phases of a run, each of which hands on values.

    Preparing and finishing can be broken off at any moment, since they only read, or write files that are
    whole or not there; the loop itself takes a signal between two steps.
    """
    from tesela.hardware.device import choose_device, exact_arithmetic
    from tesela.training.choices import Choices
    from tesela.training.decide import Decisions, decide
    from tesela.training.few_shot import check_few_shot
    from tesela.training.finish import finish
    from tesela.training.fit import fit_model
    from tesela.training.prepare import prepare

    config, source = opened.config, opened.source
    spent = elapsed_seconds(run)
    with stop.interruptible():
        device, known = choose_device(config.device), Choices.read(run.choices)
    with exact_arithmetic(device, known.threads if known else config.threads) as threads:
        with stop.interruptible():
            opening = time.monotonic()
            source = source or open_for_task(config.task, config.data)
            prepared = prepare(config, run, device, source, notes=opened.notes, ranks=ranks)
            agree_on_data(ranks, source)
            check_few_shot(prepared)

            def decided() -> Decisions:
                return decide(
                    prepared,
                    known,
                    threads=threads,
                    begin=begin,
                    spent=spent,
                    opening=opening,
                    console=console,
                )

            decisions = ranks.tell(decided, lambda found: json_text(to_mapping(found.choices)))
        outcome = fit_model(prepared, decisions, stop=stop, console=console)
        decisions.training.close()
        with stop.interruptible():
            return ranks.tell(
                lambda: finish(prepared, decisions, outcome, console=console),
                lambda result: json_text(result.mapping()),
            )


def resumed_config(out: Path | str, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """The configuration of the run in ``out`` with ``overrides`` on top.

    Raises:
        UsageError: there is no run.
        ConfigError: an override is unknown.
    """
    run = Run(out)
    if not run.exists():
        raise UsageError(
            f"there is no run to resume in {run.path}",
            hint="name the folder that tesela train --out wrote, or drop --resume",
        )
    return layered(read_yaml(run.config), {**(overrides or {}), "out": str(out)})


def check_folder(run: Run, config: TrainConfig, *, resume: bool) -> None:
    """Refuse to mix runs.

    Raises:
        UsageError: the folder is in use without ``resume``, or empty with it.
        ConfigError: fields that matter were changed.
    """
    if not resume:
        if run.exists():
            raise UsageError(
                f"{run.path} holds a run already", hint="add --resume to continue it, or choose another --out"
            )
        if not run.is_free():
            raise UsageError(f"{run.path} is not empty", hint="choose another folder with --out")
        return
    changed = changes(resumed_config(run.path), config)
    if changed:
        listed = ", ".join(
            f"{name.rstrip('_')} ({old} to {new})" for name, (old, new) in sorted(changed.items())
        )
        raise ConfigError(
            f"a run cannot be resumed with other settings: {listed}",
            hint="drop them, or begin a new run with another --out",
        )


def free_folder(config: TrainConfig) -> Path:
    """A new folder below runs/, named after data and model."""
    stem = f"{Path(config.data.source).stem or 'data'}-{config.recipe or config.model}"
    number = 1
    while not Run(Path("runs") / f"{stem}-{number}").is_free():
        number += 1
    return Path("runs") / f"{stem}-{number}"


def _tidy(run: Run) -> None:
    """Remove what a killed process left half written; nobody else writes here, the lock is held."""
    import shutil

    for folder in (run.path, run.checkpoints, run.bundle):
        for pattern in (".*.part", ".*.old"):
            for leftover in folder.glob(pattern):
                with contextlib.suppress(OSError):
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _withdraw(run: Run) -> None:
    """Remove all of a run that was refused before it began, so that it can be started again."""
    for path in (run.config, run.unreadable, run.path / ".lock"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        run.path.rmdir()


def _interrupted(run: Run, stop: Stop) -> InterruptedRunError:
    from tesela.training.state.checkpoint import Checkpoints

    steps = Checkpoints(run.checkpoints).steps()
    name = stop.signal.name if stop.signal else "a signal"
    done = f"after step {steps[-1]}; the state is saved" if steps else "before the first step was saved"
    return InterruptedRunError(f"stopped by {name} {done}", hint=f"tesela train --out {run.path} --resume")


def _say(console: Console | None, text: str) -> None:
    if console is not None:
        console.print(text, markup=False)
