"""Training loop: steps, epochs and time; the objective owns the loss.

Exactness: images, their order and their augmentation are functions of (seed, epoch, index), dropout of (seed,
step), and everything else that matters is in the checkpoint. So a run that was killed and resumed ends with
the same bits as one that was not. Clocks decide only *when* something is saved or that the number of steps is
refitted, and a refit is written down before it counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

from tesela.core.errors import WeightsError
from tesela.core.failpoint import failpoint
from tesela.core.format import duration
from tesela.core.progress import Bar, describe_fields
from tesela.data.batch import Batch
from tesela.imaging.png import encode_png
from tesela.runs.history import Events
from tesela.tasks.objective import Draw, Loss
from tesela.tasks.task import Scorer
from tesela.training.divergence import diverged
from tesela.training.optim.budget import Budget, refit, steps_per_epoch
from tesela.training.optim.ema import Ema
from tesela.training.optim.schedule import ScheduleConfig, lr_factor
from tesela.training.parallel.validation import same_scores, score_batches
from tesela.training.state.checkpoint import Checkpoints
from tesela.training.state.progress import Progress
from tesela.training.step import TrainingStep, seed_step
from tesela.training.stop import Stop, StopRequested
from tesela.training.tuning.tuning import Tuning, changing_tensors, load_changing


class Batches(Protocol):
    """What gives the batches of an epoch: of images, or of what a frozen body makes of them."""

    def __len__(self) -> int:
        """Batches per epoch."""

    def epoch(self, epoch: int = 0, *, start: int = 0) -> Iterator[Batch]:
        """The batches from number ``start`` on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Numbers that shape the loop; see the fields of the same names in TrainConfig."""

    seed: int
    accumulate: int
    log_steps: int
    patience: int
    keep: str
    checkpoint_seconds: float
    checkpoint_steps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """The time budget of a run with ``--minutes``.

    Attributes:
        left: seconds that remain for steps and validations, given what a step takes (the final evaluation is
            reserved for by it).
        epoch_seconds: what validating and saving once is thought to take, until it is known.
        save: writes a refitted budget down.
    """

    left: Callable[[float], float]
    epoch_seconds: float
    save: Callable[[Budget], None]


class Loop:
    """One training, from wherever it stands to its end.

    Args:
        step: makes one update.
        scorer: makes a scorer for one validation.
        score: name of the validated value that selects a model; higher is better.
        tuning: which parts of the model are trained, and when.
        base: digest of the weights that are not, or None; a checkpoint holds the others only.
        ema: the moving average, or None.
        training: the training split.
        validation: the validation split, or None.
        schedule: the learning rate's.
        budget: the number of steps.
        pace: numbers that shape the loop.
        checkpoints: where the state is saved.
        events: where rows are written.
        stop: whether a signal came.
        bar: shows progress.
        clock: the time budget, or None.
        watch: gives further validation values of the model, or None.
        spent: seconds that earlier sittings took.
    """

    def __init__(
        self,
        *,
        step: TrainingStep,
        scorer: Callable[[], Scorer],
        score: str,
        tuning: Tuning,
        base: str | None,
        ema: Ema | None,
        training: Batches,
        validation: Batches | None,
        schedule: ScheduleConfig,
        budget: Budget,
        pace: Pace,
        checkpoints: Checkpoints,
        events: Events,
        stop: Stop,
        bar: Bar,
        clock: Clock | None = None,
        watch: Callable[[nn.Module], dict[str, float]] | None = None,
        spent: float = 0.0,
    ) -> None:
        self.step, self.tuning, self.base = step, tuning, base
        self.scorer, self.score = scorer, score
        self.ema, self.training, self.validation = ema, training, validation
        self.schedule, self.budget, self.pace, self.clock = schedule, budget, pace, clock
        self.checkpoints, self.events, self.stop, self.bar = checkpoints, events, stop, bar
        self.at, self.watch = Progress(), watch
        self.steps_per_epoch = steps_per_epoch(len(training), pace.accumulate)
        self._saved: int | None = None
        self._saved_time = self._begin = time.monotonic()
        self._spent = spent
        self._images = 0
        self._speed_mark = (self._begin, 0)
        self._first = self._refitted = 0
        self._aside: list[float] = []

    def run(self) -> None:
        """Train until the last step, or until a signal asks to stop.

        Raises:
            StopRequested: a signal came; the state is saved.
            DivergedError: the loss is not finite.
            StorageError: the state could not be saved.
        """
        batches: Iterator[Batch] | None = None
        try:
            while True:
                if self._at_epoch_end():
                    batches, begin = None, time.monotonic()
                    self._validate()
                    self._save()
                    self._aside.append(time.monotonic() - begin)
                if self._done():
                    break
                batches = batches or self._batches()
                self._one_step(batches)
                self._log()
                self._refit()
                stop, due = self.step.ranks.sums([self.stop.requested, self._due()])
                if due or stop:
                    self._save()
                if stop:
                    raise StopRequested
        except StopRequested:
            if self.step.whole_everywhere:  # else ranks have to be at one place, as above
                self._save()
            raise
        self._save()

    def _at_epoch_end(self) -> bool:
        whole = self.at.step % self.steps_per_epoch == 0 or self.at.step >= self.budget.total
        return whole and self.at.step > 0 and self.at.validated < self.at.step

    def _done(self) -> bool:
        return self.at.stopped or self.at.step >= self.budget.total

    def _batches(self) -> Iterator[Batch]:
        epoch, position = divmod(self.at.step, self.steps_per_epoch)
        self.tuning.enter(self.step.model, epoch)
        return iter(self.training.epoch(epoch, start=position * self.pace.accumulate))

    def _next(self, batches: Iterator[Batch]) -> Batch:
        try:
            return next(batches)
        except Exception:
            if self.stop.requested:  # Ctrl-C reaches loader processes too; their end is no error then
                raise StopRequested from None
            raise

    def _group(self, batches: Iterator[Batch]) -> list[Batch]:
        """The batches of one step; the last step of an epoch takes what is left."""
        position = self.at.step % self.steps_per_epoch * self.pace.accumulate
        count = min(self.pace.accumulate, len(self.training) - position)
        return [self._next(batches) for _ in range(count)]

    def _one_step(self, batches: Iterator[Batch]) -> None:
        lr = self.step.optimizers.set_lr(self.lr_factor())
        group = self._group(batches)
        sizes = self.step.sizes(group)
        images = sum(sizes)
        seed_step(self.pace.seed, self.at.step, self.step.ranks.index)
        draw = Draw(self.pace.seed, self.at.step)
        later: list[tuple[Loss, int]] = []
        for place, batch in enumerate(self.step.move(batch) for batch in group):
            loss = self.step.loss(batch, draw)
            if self.step.reads_at_once:
                self._count(loss, lr, batch, sizes[place])
            else:  # reading the value would make the GPU wait here
                later.append((loss, len(batch)))
            self.step.backward(loss, share=len(batch) / images, last=place == len(group) - 1)
        self.step.update()
        for loss, batch, size in zip(self.step.pooled(later, sizes), group, sizes, strict=False):
            self._count(loss, lr, batch, size)
        self.at.step += 1
        if self.ema is not None:
            self.ema.update(self.step.model, step=self.at.step)
        self.step.objective.after_step(self.step.model, step=self.at.step)
        failpoint("loop.after_step")

    def lr_factor(self) -> float:
        """The schedule's factor for the step that comes next."""
        progress = self.budget.progress(self.at.step)
        epoch = self.at.step // self.steps_per_epoch
        epochs = self.budget.at(self.at.step).total / self.steps_per_epoch
        advance = self.budget.progress(self.at.step + 1) - progress
        return lr_factor(self.schedule, progress=progress, advance=advance, epoch=epoch, epochs=epochs)

    def _count(self, loss: Loss, lr: float, batch: Batch, images: int) -> None:
        value = float(loss.value.detach())
        if not math.isfinite(value):
            self._diverge(value, lr, batch)
        values = {"loss": value, **{name: float(log) for name, log in loss.logs.items()}}
        weight = images if loss.weight is None else loss.weight
        self._images += images
        self.at.window.add(weight, values)
        self.at.epoch.add(weight, values)

    def _diverge(self, value: float, lr: float, batch: Batch) -> None:
        seed_step(self.pace.seed, self.at.step, self.step.ranks.index)
        culprit = self.step.culprit(batch)
        raise diverged(value, step=self.at.step, epoch=self.epoch, lr=lr, culprit=culprit, saved=self._saved)

    @property
    def epoch(self) -> int:
        """The epoch, from 0, that the last step belonged to."""
        return max(0, self.at.step - 1) // self.steps_per_epoch

    @property
    def shipped(self) -> nn.Module:
        """The model that is validated and shipped: the average where there is one."""
        return self.ema.model if self.ema is not None else self.step.model

    def _validate(self) -> None:
        means = {f"train_{name}": value for name, value in self.at.epoch.means().items()}
        scores = self._scores()
        row = {
            "epoch": self.epoch,
            "step": self.at.step,
            **means,
            **{f"val_{name}": value for name, value in scores.items()},
        }
        self._judge(scores)
        self.events.row("epoch", row)
        self.bar.line(self._epoch_text(means, scores))
        self.at.epoch.clear()
        self.at.validated = self.at.step

    def _epoch_text(self, means: Mapping[str, float], scores: Mapping[str, float]) -> str:
        """Epoch, means of training, scores of validation, and the time that is left."""
        epochs = math.ceil(self.budget.total / self.steps_per_epoch)
        best = "  best" if self.at.best_step == self.at.step else ""
        done, todo = self.at.step - self._first, self.budget.total - self.at.step
        seconds = (time.monotonic() - self._begin) / max(done, 1) * todo
        left = f"  {duration(seconds)} left" if todo and not self.at.stopped else ""
        validated = f"  |  val: {describe_fields(scores)}" if scores else ""
        trained = describe_fields({name.removeprefix("train_"): value for name, value in means.items()})
        return f"epoch {self.epoch + 1}/{epochs}  train: {trained}{validated}{best}{left}"

    def _scores(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        scorer = self.scorer()
        self.shipped.eval()
        watch = None if self.watch is None else partial(self.watch, self.shipped)
        with self.step.scoring(self.stop), torch.inference_mode(), self.step.autocast():
            score_batches(self.step, self.shipped, self.validation.epoch(0), scorer)
            scores = same_scores(lambda: self._result(scorer), watch, self.step)
        self.tuning.train(self.step.model)
        return scores

    def _result(self, scorer: Scorer) -> dict[str, float]:
        picture = scorer.picture()
        if picture is not None:
            self.events.picture(self.epoch, encode_png(picture, level=6))
        return scorer.validation()

    def _judge(self, scores: dict[str, float]) -> None:
        score = scores.get(self.score)
        if score is None:
            return
        better = self.at.best is None or score > self.at.best
        if self.pace.keep == "best" and (better or score == self.at.best):  # of equal ones the later
            self.at.best_step = self.at.step
            weights = changing_tensors(self.shipped, self.tuning.changing)
            self.checkpoints.save_best(self.step.whole({"model": weights, "step": self.at.step}))
        self.at.best = score if better else self.at.best
        self.at.stale = 0 if better else self.at.stale + 1
        self.at.stopped = 0 < self.pace.patience <= self.at.stale

    def _log(self) -> None:
        means = self.at.window.means()
        now = time.monotonic()
        begin, images = self._speed_mark
        speed = (self._images - images) / max(now - begin, 1e-9)
        self.bar.advance(1, **means, images_per_second=speed)
        if self.at.step % self.pace.log_steps and self.at.step < self.budget.total:
            return
        lr = self.step.optimizers.lr
        self.events.row("step", {"step": self.at.step, "epoch": self.epoch, **means, "lr": lr})
        self.events.timing({"step": self.at.step, "images_per_second": speed, "elapsed": self.elapsed()})
        self.at.window.clear()
        self._speed_mark = (now, self._images)

    def elapsed(self) -> float:
        """Seconds of all sittings so far."""
        return self._spent + time.monotonic() - self._begin

    def _refit(self) -> None:
        """Every twentieth of the way, fit the number of steps to the time that is left."""
        step, known = self.at.step, self.budget.rows[-1][0]
        due = step - max(self._refitted, self._first) >= max(5, self.budget.total // 20)
        if self.clock is None or not due or step < known or step >= self.budget.total:
            return
        now = time.monotonic()
        aside = sum(self._aside) / len(self._aside) if self._aside else self.clock.epoch_seconds
        pace = (now - self._begin - sum(self._aside)) / (step - self._first)
        left, each = self.clock.left(pace) - aside, pace + aside / self.steps_per_epoch
        fitted = refit(self.budget, step=step, seconds_left=left, seconds_per_step=each)
        total = self.step.ranks.first(lambda: "" if fitted is self.budget else str(fitted.total))
        if total:
            fitted = self.budget.refitted(step, int(total))
            self.clock.save(fitted)
            self.budget = fitted
            self.bar.resize(fitted.total)
        self._refitted = step

    def _due(self) -> bool:
        """Whether it is time to save."""
        by_steps = self.pace.checkpoint_steps and self.at.step % self.pace.checkpoint_steps == 0
        return bool(by_steps) or time.monotonic() - self._saved_time >= self.pace.checkpoint_seconds

    def _save(self) -> None:
        """Save the state, unless it is saved already or weights are not finite."""
        if self._saved == self.at.step and self._saved_validated == self.at.validated:
            return
        if self.step.finite(list(changing_tensors(self.step.model, self.tuning.trainable).values())):
            self.checkpoints.save(self.at.step, self.step.whole(self.state()))
            self._saved, self._saved_validated = self.at.step, self.at.validated
        self._saved_time = time.monotonic()

    _saved_validated = -1

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs, and nothing that depends on the clock."""
        return {
            "progress": self.at.state(),
            "base": self.base,
            "model": changing_tensors(self.step.model, self.tuning.changing),
            "step": self.step.state(),
            "ema": self.ema.state() if self.ema is not None else None,
            "metrics": self.events.position(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Stand where ``state`` was taken.

        Raises:
            WeightsError: the weights that are not trained, and so are not in ``state``, are not what they
                were.
        """
        if state.get("base") != self.base:
            raise WeightsError(
                "the weights that the run started from have changed since",
                hint="put them back, or begin a new run",
            )
        self.at = Progress.load(state["progress"])
        load_changing(self.step.model, state["model"], self.tuning.changing)
        self.step.load(state["step"])
        if self.ema is not None:
            self.ema.load(state["ema"])
        self._saved, self._saved_validated = self.at.step, self.at.validated
        self._first = self.at.step
        self.bar.advance(self.at.step)
