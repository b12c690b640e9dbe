"""One process's go at a run: prepare, train on from wherever the run stands, write the model, evaluate, report.

Preparing and finishing can be broken off at any moment, since they only read, or write files that are whole or not there; the loop itself
takes a signal between two steps.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

import torch

import tesela
from tesela.core.errors import UsageError
from tesela.core.files import write_atomic, write_json
from tesela.core.progress import progress_bar
from tesela.core.registry import lookup
from tesela.data.loader import Loader
from tesela.data.open import open_source
from tesela.layers.attention import set_attention_kernel
from tesela.models.bundle import CARD, BundleInfo, describe, write_bundle, write_info
from tesela.train.budget import Budget, steps_in
from tesela.train.card import Card
from tesela.train.checkpoint import Checkpoints, read_checkpoint
from tesela.train.choices import Choices
from tesela.train.config import DEFAULT_EPOCHS, TrainConfig
from tesela.train.ema import Ema
from tesela.train.events import Events, elapsed_seconds
from tesela.train.folder import Run
from tesela.train.loop import Clock, Loop, Pace
from tesela.train.memory import activation_bytes, automatic_batch, free_memory, weight_bytes
from tesela.train.optim import build_optimizers
from tesela.train.plan import Plan
from tesela.train.precision import candidates, choose, measure
from tesela.train.result import RunResult
from tesela.train.setup import choose_device, exact_arithmetic, start
from tesela.train.step import Step
from tesela.train.stop import Stop

if TYPE_CHECKING:
    from rich.console import Console

    from tesela.train.run import Explain

#: A forward pass is taken to cost this share of a training step.
FORWARD_SHARE = 0.35
REPORT_SECONDS = 5.0
#: A time budget begins with at least so many steps: a wrong first measurement is then put right by the refits.
LEAST_STEPS = 20


class Sitting:
    """Everything one process does for a run.

    Args:
        config: the run's configuration.
        run: its folder, locked.
        stop: whether a signal came.
        console: where plan and progress go.
        begin: monotonic time at which the sitting began.
    """

    def __init__(self, config: TrainConfig, run: Run, *, stop: Stop, console: Console | None, begin: float) -> None:
        self.config, self.run, self.stop, self.console, self.begin = config, run, stop, console, begin
        self.spent = elapsed_seconds(run)
        self.checkpoints = Checkpoints(run.checkpoints)

    def complete(self, explain: Explain | None) -> RunResult:
        """Train to the end, then evaluate and report."""
        config = self.config
        with self.stop.interruptible():
            self.device = choose_device(config.device)
            known = Choices.read(self.run.choices)
        with exact_arithmetic(self.device, known.threads if known else config.threads) as threads:
            with self.stop.interruptible():
                self._prepare(known, threads)
            self._train()
            self.training.close()
            with self.stop.interruptible():
                return self._finish(explain)

    # ---------------------------------------------------------------------------------------------------- prepare

    def _prepare(self, known: Choices | None, threads: int) -> None:
        config, opening = self.config, time.monotonic()
        self.source = open_source(config.data.source, config=config.data)
        self.start = start(config, self.source)
        self.model = self.start.model.to(self.device).train()
        task = "classify" if config.task == "auto" else config.task
        self.objective = lookup("objective", task).load()(label_smoothing=config.label_smoothing)
        per_image = known.activation_bytes if known else self._activation_bytes()
        batch = known.batch_size if known else self._batch_size(per_image)
        self.training = self._loader("train", batch, training=True)
        self.validation = self._loader("val", batch, training=False) if self._count("val") else None
        self._list_unreadable()
        self.opened = time.monotonic() - opening
        self.choices = known or self._choose(batch, threads, per_image)
        self.choices.save(self.run.choices)
        set_attention_kernel(self.model, self.choices.attention)
        plan = self._plan()
        if self.console is not None:
            self.console.print(plan.table())
        plan.check()

    def _count(self, split: str) -> int:
        return len(self.source.splits[split]) if split in self.source.splits else 0

    def _loader(self, split: str, batch_size: int, *, training: bool) -> Loader:
        data = self.config.data
        return Loader(
            self.source.splits[split],
            self.start.spec,
            batch_size=batch_size,
            augment=self.config.augment if training else None,
            seed=self.config.seed,
            workers=data.workers,
            cache=data.cache,
            shuffle=training,
            drop_last=training,
            num_classes=len(self.source.labels),
            device=self.device,
            max_unreadable=data.max_unreadable,
        )

    def _list_unreadable(self) -> None:
        """Tell which images are left out, and write all of them down."""
        loaders = {"train": self.training, **({"val": self.validation} if self.validation else {})}
        rows = [{"split": split, **dataclasses.asdict(bad)} for split, loader in loaders.items() for bad in loader.unreadable]
        if rows:
            write_json(self.run.unreadable, rows)
            for row in rows[:5]:
                self._say(f"unreadable: {row['split']} {row['name']}: {row['message']}")
            self._say(f"unreadable and left out: {len(rows)} of the images; all are listed in {self.run.unreadable}")
        self.left_out = len(rows)

    def _activation_bytes(self) -> int:
        spec = self.start.spec
        images = torch.zeros(2, spec.channels, spec.height, spec.width, device=self.device)
        return activation_bytes(self.model, self.objective, images, torch.zeros(2, dtype=torch.int64, device=self.device))

    def _batch_size(self, per_image: int) -> int:
        images = self._count("train")
        if self.config.batch_size != "auto":
            return min(self.config.batch_size, images)
        return automatic_batch(images, per_image=per_image, free=free_memory(self.device))

    def _choose(self, batch_size: int, threads: int, per_image: int) -> Choices:
        config = self.config
        first = next(iter(self.training.epoch(0)))
        found = measure(
            self.model,
            self.objective,
            candidates(config.precision, config.attention, self.device),
            (first.images, first.targets),
            build=lambda model: build_optimizers(model, config.optim),
            set_kernel=set_attention_kernel,
            device=self.device,
            limit=min(20.0, 1.2 * config.minutes) if config.minutes else 20.0,  # 2 % of a time budget
        )
        best = choose(found)
        per_epoch = max(1, len(self.training) // config.accumulate)
        seconds = best.seconds * config.accumulate
        choices = Choices(
            model=self.start.name,
            device=self.device.type,
            threads=threads,
            precision=best.precision,
            attention=best.attention,
            batch_size=batch_size,
            steps_per_epoch=per_epoch,
            step_seconds=seconds,
            measured=[[timed.precision, timed.attention, timed.seconds] for timed in found],
            activation_bytes=per_image,
        )
        if config.minutes is None:
            return choices.with_budget(((0, per_epoch * (config.epochs or DEFAULT_EPOCHS)),))
        left, aside = self._seconds_left(seconds, batch_size), self._epoch_seconds(choices)
        total = steps_in(left, step_seconds=seconds, epoch_seconds=aside, steps_per_epoch=per_epoch, least=LEAST_STEPS)
        return choices.with_budget(((0, total),))

    # ------------------------------------------------------------------------------------------------------- time

    def _seconds_left(self, step_seconds: float, batch_size: int) -> float:
        """What the budget leaves for steps and validations from now on: without final evaluation and report."""
        budget = 60.0 * (self.config.minutes or 0.0)
        evaluation = self._forward_seconds(step_seconds, batch_size, self._count("test") or self._count("val")) + self.opened
        report = REPORT_SECONDS if self.config.report else 0.0
        here = time.monotonic() - self.begin
        return max(0.0, budget - self.spent - here - evaluation - report - 0.01 * budget)

    def _forward_seconds(self, step_seconds: float, batch_size: int, images: int) -> float:
        return FORWARD_SHARE * step_seconds / self.config.accumulate * images / batch_size

    def _epoch_seconds(self, choices: Choices) -> float:
        saving = 0.03 + weight_bytes(self.model, ema=self.config.ema.decay > 0) / 3e8
        return self._forward_seconds(choices.step_seconds, choices.batch_size, self._count("val")) + saving

    def _plan(self) -> Plan:
        config, choices, spec = self.config, self.choices, self.start.spec
        budget = Budget(tuple((row[0], row[1]) for row in choices.budget))
        epochs = budget.total / choices.steps_per_epoch
        weights = weight_bytes(self.model, ema=config.ema.decay > 0)
        tried = f", fastest of {len(choices.measured)}" if len(choices.measured) > 1 else ""
        return Plan(
            out=self.run.path,
            data=self.source.name,
            images={split: len(items) for split, items in self.source.splits.items()},
            classes=len(self.source.labels),
            model=self.start.name,
            parameters=self._parameters(),
            view=(spec.height, spec.width, spec.channels),
            batch_size=choices.batch_size * config.accumulate,
            steps=budget.total,
            epochs=round(epochs, 1),
            seconds=budget.total * choices.step_seconds + epochs * self._epoch_seconds(choices),
            precision=f"{choices.precision}, {choices.attention} attention ({choices.step_seconds * 1000:.3g} ms a step{tried})",
            device=f"{choices.device}, {choices.threads} thread{'s' if choices.threads != 1 else ''}",
            memory=weights + choices.activation_bytes * choices.batch_size,
            memory_free=free_memory(self.device),
            disk=4 * weights,
        )

    def _parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    # ------------------------------------------------------------------------------------------------------ train

    def _train(self) -> None:
        config, choices = self.config, self.choices
        step = Step(
            self.model,
            self.objective,
            build_optimizers(self.model, config.optim),
            device=self.device,
            precision=choices.precision,
            clip_norm=config.clip_norm,
        )
        self.ema = Ema(self.model, config.ema) if config.ema.decay > 0 else None
        budget = Budget(tuple((row[0], row[1]) for row in choices.budget))
        events = Events(self.run, tensorboard=config.tensorboard)
        try:
            with progress_bar(self.console, "training", budget.total) as bar:
                self.loop = Loop(
                    step=step,
                    ema=self.ema,
                    training=self.training,
                    validation=self.validation,
                    schedule=config.schedule,
                    budget=budget,
                    pace=Pace(
                        seed=config.seed,
                        accumulate=config.accumulate,
                        log_steps=config.log_steps,
                        patience=config.patience,
                        checkpoint_seconds=config.checkpoint_seconds,
                        checkpoint_steps=config.checkpoint_steps,
                    ),
                    checkpoints=self.checkpoints,
                    events=events,
                    stop=self.stop,
                    bar=bar,
                    clock=self._clock(),
                    spent=self.spent,
                )
                self._take_up(events)
                self.loop.run()
        finally:
            events.close()

    def _take_up(self, events: Events) -> None:
        """Stand where the newest whole checkpoint was taken, or at the beginning."""
        loaded = self.checkpoints.load_newest()
        if loaded is None:
            events.open(None, step=0)
            return
        for line in loaded.damaged:
            self._say(line)
        self.loop.load(loaded.state)
        self._say(f"resumed after step {loaded.step}")
        if not events.open(loaded.state["metrics"], step=loaded.step):
            self._say(f"{self.run.metrics.name} was changed or cut since the checkpoint; its earlier rows are not what was written")

    def _clock(self) -> Clock | None:
        if self.config.minutes is None:
            return None

        def save(budget: Budget) -> None:
            self.choices = self.choices.with_budget(budget.rows)
            self.choices.save(self.run.choices)

        def left(step_seconds: float) -> float:
            return self._seconds_left(step_seconds, self.choices.batch_size)

        return Clock(left=left, epoch_seconds=self._epoch_seconds(self.choices), save=save)

    # ----------------------------------------------------------------------------------------------------- finish

    def _finish(self, explain: Explain | None) -> RunResult:
        from tesela.train.evaluate import evaluate_run

        model = self.loop.shipped
        if self.config.patience and self.loop.best_path.exists():
            model.load_state_dict(read_checkpoint(self.loop.best_path)["model"])
        info = write_bundle(self.run.bundle, model, self._info())
        split = next((name for name in ("test", "val") if self._count(name)), None)
        scores: dict[str, Any] = {}
        if split is not None:
            precision, kernel = self.choices.precision, self.choices.attention
            scores = evaluate_run(
                self.run.path, split=split, device=self.device.type, precision=precision, kernel=kernel, console=self.console
            )
            self._describe(info, scores, split)
        if self.config.report:
            self._report(explain)
        result = self._result(scores, split)
        write_json(self.run.result, result.mapping())
        return result

    def _report(self, explain: Explain | None) -> None:
        from tesela.train.report import write_report

        try:
            write_report(self.run, explain)
        except UsageError as error:  # a model that cannot be explained has a report all the same
            self._say(f"the report has no explanations: {error.message}")
            write_report(self.run)

    def _info(self) -> BundleInfo:
        provenance = {
            "data": self.source.name,
            "recipe": self.config.recipe,
            "from": self.start.origin,
            "seed": self.config.seed,
            "steps": self.loop.at.step,
            "tesela": tesela.__version__,
            "torch": str(torch.__version__),
        }
        fields = {"provenance": provenance, "license": self.start.license}
        return describe(self.loop.shipped, name=self.start.name, labels=list(self.source.labels), image=self.start.spec, **fields)  # type: ignore[arg-type]

    def _describe(self, info: BundleInfo, scores: dict[str, Any], split: str) -> None:
        """Put the scores into the bundle's config.json and its model card."""
        measured: dict[str, Any] = {name: scores[name] for name in ("accuracy", "top5", "ece", "nll") if name in scores}
        write_info(self.run.bundle, dataclasses.replace(info, metrics={split: measured}))
        spec = self.start.spec
        card = Card(
            model=self.start.name,
            parameters=self._parameters(),
            data=self.source.name,
            images={name: len(items) for name, items in self.source.splits.items()},
            labels=self.source.labels,
            size=(spec.height, spec.width, spec.channels),
            scores=measured,
            split=split,
            steps=self.loop.at.step,
            recipe=self.config.recipe,
            origin=self.start.origin,
            license=self.start.license,
        )
        write_atomic(self.run.bundle / CARD, card.text().encode())

    def _result(self, scores: dict[str, Any], split: str | None) -> RunResult:
        at = self.loop.at
        speed = at.step * self.choices.batch_size * self.config.accumulate / max(self.loop.elapsed(), 1e-9)
        return RunResult(
            run=str(self.run.path),
            accuracy=scores.get("accuracy"),
            top5=scores.get("top5"),
            parameters=self._parameters(),
            steps=at.step,
            epochs=round(at.step / self.choices.steps_per_epoch, 2),
            seconds=round(self.spent + time.monotonic() - self.begin, 2),
            images_per_second=round(speed, 1),
            model=self.start.name,
            precision=self.choices.precision,
            split=split,
            unreadable=self.left_out,
        )

    def _say(self, text: str) -> None:
        if self.console is not None:
            self.console.print(text, markup=False)
