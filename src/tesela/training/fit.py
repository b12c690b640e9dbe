"""Fit: the loop, from wherever the run stands to its last step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from tesela.core.errors import ConfigError
from tesela.core.progress import progress_bar
from tesela.hardware.distributed import sharing
from tesela.runs.history import Events
from tesela.training.decide import Decisions
from tesela.training.few_shot import FewShotWatch
from tesela.training.loop import Batches, Clock, Loop, Pace
from tesela.training.optim.budget import Budget
from tesela.training.optim.ema import Ema
from tesela.training.optim.optimizer import build_optimizers
from tesela.training.parallel.agreement import agree_on_images
from tesela.training.parallel.step import ParallelStep
from tesela.training.prepare import Prepared
from tesela.training.state.checkpoint import Checkpoints, Loaded, SharedCheckpoints, read_checkpoint
from tesela.training.step import TrainingStep
from tesela.training.stop import Stop
from tesela.training.tuning.tuning import Tuning, load_changing

if TYPE_CHECKING:
    from rich.console import Console
    from torch.distributed.fsdp import FSDPModule


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A training that made its last step.

    Attributes:
        shipped: the trained model, or its head alone where features were kept: the moving average if there is
            one, of the best epoch where that is wanted.
        steps: updates made.
        kept: step that the shipped weights are of.
        seconds: time of the loop, in all processes.
    """

    shipped: nn.Module
    steps: int
    kept: int
    seconds: float


def fit_model(
    prepared: Prepared,
    decisions: Decisions,
    *,
    stop: Stop,
    console: Console | None,
    checkpoints: Path | None = None,
) -> Outcome:
    """Train to the last step.

    Args:
        prepared: the run.
        decisions: what was fixed.
        stop: whether a signal came.
        console: where progress goes.
        checkpoints: their folder; the run's if None.

    Raises:
        StopRequested: a signal came; the state is saved.
        DivergedError: the loss is not finite.
        StorageError: the state could not be saved.
    """
    config, choices = prepared.config, decisions.choices
    checkpoints = checkpoints or prepared.run.checkpoints
    base = prepared.tuning.digest(prepared.model)
    model, training, validation = _inputs(prepared, decisions, base=base, stop=stop, console=console)
    ranks, tuning = prepared.ranks, Tuning(model, "all") if choices.features else prepared.tuning
    ema = Ema(model, config.ema, changing=tuning.changing) if config.ema.decay > 0 else None
    shared = not ranks.alone and config.shard == "full"
    spare, roots = _shared_out(prepared, model, ema, precision=choices.precision) if shared else (None, ())
    step = _step(prepared, decisions, model, roots)
    if not choices.features:
        with stop.interruptible(), step.autocast():
            prepared.objective.begin(decisions.training, console=console)
    events = Events(prepared.run, tensorboard=config.tensorboard and prepared.ranks.writes)
    try:
        with sharing(ranks), progress_bar(console, "training", decisions.budget.total) as bar:
            loop = Loop(
                step=step,
                scorer=prepared.scorer,
                score=prepared.task.score,
                tuning=tuning,
                base=base,
                ema=ema,
                training=training,
                validation=validation,
                schedule=config.schedule,
                budget=decisions.budget,
                pace=Pace(
                    seed=config.seed,
                    accumulate=decisions.accumulate,
                    log_steps=config.log_steps,
                    patience=config.patience,
                    keep=config.keep,
                    checkpoint_seconds=config.checkpoint_seconds,
                    checkpoint_steps=config.checkpoint_steps,
                ),
                checkpoints=(Checkpoints if ranks.writes else SharedCheckpoints)(checkpoints),
                events=events,
                stop=stop,
                bar=bar,
                clock=_clock(prepared, decisions),
                watch=_watch(prepared, decisions),
                spent=decisions.timing.spent,
            )
            _resume(loop, events, console)
            loop.run()
    finally:
        events.close()
    kept, shipped = loop.at.best_step or loop.at.step, loop.shipped
    if spare is not None:
        from tesela.training.parallel.sharded import filled

        shipped = filled(spare, shipped)
    if kept < loop.at.step and ranks.writes:
        best = read_checkpoint(loop.checkpoints.best)
        load_changing(shipped, best["model"], tuning.changing)
    return Outcome(shipped=shipped, steps=loop.at.step, kept=kept, seconds=loop.elapsed())


def _shared_out(
    prepared: Prepared, model: nn.Module, ema: Ema | None, *, precision: str
) -> tuple[nn.Module, Sequence[FSDPModule]]:
    """Share out the weights of model, objective and average.

    Returns:
        A hollow copy of the model for the whole weights at the end, and the roots of what is shared out.

    Raises:
        ConfigError: something of the run does not go with it.
    """
    from tesela.training.parallel.sharded import check_shardable, hollow, shard  # FSDP takes 2 s to import

    check_shardable(prepared.config, precision)
    spare = hollow(model)
    roots = [shard(model, prepared.objective)]
    return spare, [*roots, *([shard(ema.model)] if ema is not None else [])]


def _step(
    prepared: Prepared, decisions: Decisions, model: nn.Module, roots: Sequence[FSDPModule]
) -> TrainingStep:
    """The update of the weights, by this process alone or with others, shared out where there are roots."""
    config, choices = prepared.config, decisions.choices
    optimizers = build_optimizers(model, config.optim, objective=prepared.objective)
    if prepared.ranks.alone:
        return TrainingStep(
            model,
            prepared.objective,
            optimizers,
            device=prepared.device,
            precision="fp32" if choices.features else choices.precision,
            clip_norm=config.clip_norm,
        )
    if choices.features:
        raise ConfigError(
            "the run keeps features of a frozen body, which several processes do not share",
            hint="resume it with one process",
        )
    agree_on_images(prepared.ranks, decisions.training, decisions.validation)
    decisions.training.share(prepared.ranks)
    kind: Callable[..., TrainingStep] = ParallelStep
    if roots:
        from tesela.training.parallel.sharded import ShardedStep

        kind = functools.partial(ShardedStep, roots=roots)
    return kind(
        model,
        prepared.objective,
        optimizers,
        device=prepared.device,
        precision=choices.precision,
        clip_norm=config.clip_norm,
        ranks=prepared.ranks,
    )


def _inputs(
    prepared: Prepared, decisions: Decisions, *, base: str | None, stop: Stop, console: Console | None
) -> tuple[nn.Module, Batches, Batches | None]:
    """What is trained, and the batches: the whole model on images, or its head on kept features."""
    training, validation = decisions.training, decisions.validation
    if not decisions.choices.features:
        return prepared.model, training, validation
    loaders = {"train": training, **({"val": validation} if validation is not None else {})}
    with stop.interruptible():
        kept = prepared.frozen.batches(loaders, decisions.choices, prepared.run, base=base, console=console)
    return prepared.frozen.head, kept["train"], kept.get("val")


def _clock(prepared: Prepared, decisions: Decisions) -> Clock | None:
    """The time budget of a run with ``--minutes``; by now its features are there."""
    if prepared.config.minutes is None:
        return None
    choices, timing = decisions.choices, decisions.timing

    def save(budget: Budget) -> None:
        choices.with_budget(budget.rows).save(prepared.run.choices)

    def left(step_seconds: float) -> float:
        return timing.left(choices, step_seconds, features_due=False)

    return Clock(left=left, epoch_seconds=timing.epoch_seconds(choices), save=save)


def _watch(prepared: Prepared, decisions: Decisions) -> FewShotWatch | None:
    """Few-shot accuracies after each epoch, where they are asked for."""
    if not prepared.config.few_shot or decisions.validation is None:
        return None
    return FewShotWatch(
        prepared=prepared, validation=decisions.validation, precision=decisions.choices.precision
    )


def _resume(loop: Loop, events: Events, console: Console | None) -> None:
    """Stand where the newest whole checkpoint was taken, or at the beginning."""
    loaded: Loaded | None = None

    def newest() -> str:
        nonlocal loaded
        loaded = loop.checkpoints.load_newest()
        return str(loaded.step) if loaded else ""

    ranks = loop.step.ranks
    at = ranks.first(newest)
    if at and not ranks.writes:
        loaded = loop.checkpoints.load(int(at))
    if loaded is None:
        events.open(None, step=0)
        return
    loop.load(loaded.state)
    lines = [*loaded.damaged, f"resumed after step {loaded.step}"]
    if not events.open(loaded.state["metrics"], step=loaded.step):
        lines.append(
            "metrics.jsonl was changed or cut since the checkpoint; its earlier rows are not what was written"
        )
    for line in lines if console is not None else ():
        console.print(line, markup=False)  # type: ignore[union-attr]
