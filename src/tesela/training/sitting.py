"""One process's go at a run: prepare, train on from wherever the run stands, write the model, evaluate, report.

Preparing and finishing can be broken off at any moment, since they only read, or write files that are whole or not there; the loop itself
takes a signal between two steps.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tesela.core.files import write_json
from tesela.core.progress import progress_bar
from tesela.core.registry import lookup
from tesela.data.loader import Loader
from tesela.data.open import open_source
from tesela.hardware.device import choose_device, exact_arithmetic
from tesela.hardware.memory import activation_bytes, automatic_batch, free_memory, state_bytes, weight_bytes
from tesela.layers.attention.attention import set_attention_kernel
from tesela.layers.attention.kernels import Switchable
from tesela.runs.folder import Run
from tesela.runs.history import Events, elapsed_seconds
from tesela.runs.result import RunResult
from tesela.training.choices import Choices
from tesela.training.config import DEFAULT_EPOCHS, TrainConfig
from tesela.training.finish import Finish
from tesela.training.loop import Batches, Clock, Loop, Pace
from tesela.training.optim.budget import Budget, steps_in
from tesela.training.optim.ema import Ema
from tesela.training.optim.optimizer import build_optimizers
from tesela.training.plan import Plan
from tesela.training.precision import Timed, candidates, choose, measure
from tesela.training.start import start
from tesela.training.state.checkpoint import Checkpoints
from tesela.training.step import Step
from tesela.training.stop import Stop
from tesela.training.tuning.frozen import FrozenBody
from tesela.training.tuning.tuning import Tuning, adapt

if TYPE_CHECKING:
    from rich.console import Console

    from tesela.training.run import Explain

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

    def __init__(
        self, config: TrainConfig, run: Run, *, stop: Stop, console: Console | None, begin: float
    ) -> None:
        self.config, self.run, self.stop, self.console, self.begin = config, run, stop, console, begin
        self.spent = elapsed_seconds(run)
        self.checkpoints = Checkpoints(run.checkpoints)
        self.features_due = True

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
                return Finish(self).complete(explain)

    # ---------------------------------------------------------------------------------------------------- prepare

    def _prepare(self, known: Choices | None, threads: int) -> None:
        config, opening = self.config, time.monotonic()
        self.source = open_source(config.data.source, config=config.data)
        self.start = start(config, self.source)
        if config.tune == "lora":
            adapt(self.start.model, config.lora, seed=config.seed)
        self.model = self.start.model.to(self.device)
        self.tuning = Tuning(self.model, config.tune, unfreeze=config.tune_unfreeze)
        self.tuning.train(self.model)
        self.trainable = self.tuning.count(self.model)
        self.frozen = FrozenBody(
            self.model,
            self.start.spec,
            config,
            device=self.device,
            training=self.count("train"),
            validation=self.count("val"),
        )
        task = "classify" if config.task == "auto" else config.task
        self.objective = lookup("objective", task).load()(label_smoothing=config.label_smoothing)
        per_image = known.activation_bytes if known else self._activation_bytes()
        batch = known.batch_size if known else self._batch_size(per_image)
        self.training = self._loader("train", batch, training=True)
        self.validation = self._loader("val", batch, training=False) if self.count("val") else None
        self.accumulate = max(1, min(config.accumulate, len(self.training)))
        self._list_unreadable()
        self.opened = time.monotonic() - opening
        self.choices = known or self._choose(batch, threads, per_image)
        self.choices.save(self.run.choices)
        set_attention_kernel(self.model, self.choices.attention)
        plan = self._plan()
        if self.console is not None:
            self.console.print(plan.table())
        plan.check()

    def count(self, split: str) -> int:
        """Images of a split, 0 where there is none."""
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
        rows = [
            {"split": split, **dataclasses.asdict(bad)}
            for split, loader in loaders.items()
            for bad in loader.unreadable
        ]
        if rows:
            write_json(self.run.unreadable, rows)
            for row in rows[:5]:
                self.say(f"unreadable: {row['split']} {row['name']}: {row['message']}")
            self.say(
                f"unreadable and left out: {len(rows)} of the images; all are listed in {self.run.unreadable}"
            )
        self.left_out = len(rows)

    def _activation_bytes(self) -> int:
        spec = self.start.spec
        images = torch.zeros(2, spec.channels, spec.height, spec.width, device=self.device)
        targets = torch.zeros(2, dtype=torch.int64, device=self.device)
        return activation_bytes(
            self.model, lambda model: self.objective.loss(model, images, targets), images=len(images)
        )

    def _batch_size(self, per_image: int) -> int:
        images = self.count("train")
        if self.config.batch_size != "auto":
            return min(self.config.batch_size, images)
        return automatic_batch(images, per_image=per_image, free=free_memory(self.device))

    def _choose(self, batch_size: int, threads: int, per_image: int) -> Choices:
        config = self.config
        first = next(iter(self.training.epoch(0)))
        limit = min(20.0, 1.2 * config.minutes) if config.minutes else 20.0  # 2 % of a time budget
        place = self.frozen.place()
        attends = any(isinstance(module, Switchable) for module in self.model.modules())
        pairs = candidates(
            config.precision, config.attention, self.device, attends=attends, backward=not place
        )
        found = self._measure(self.model, pairs, (first.images, first.targets), limit)
        best = choose(found)
        per_epoch, seconds = max(1, len(self.training) // self.accumulate), best.seconds
        if place:
            features = torch.zeros(len(first.images), self.frozen.width)
            seconds = self._measure(self.frozen.head, [("fp32", "fused")], (features, first.targets), 1.0)[
                0
            ].seconds
        choices = Choices(
            model=self.start.name,
            device=self.device.type,
            threads=threads,
            precision=best.precision,
            attention=best.attention,
            batch_size=batch_size,
            steps_per_epoch=per_epoch,
            step_seconds=seconds * self.accumulate,
            measured=[[timed.precision, timed.attention, timed.seconds] for timed in found],
            activation_bytes=per_image,
            features=place,
            feature_seconds=best.seconds if place else 0.0,
        )
        if config.minutes is None:
            return choices.with_budget(((0, per_epoch * (config.epochs or DEFAULT_EPOCHS)),))
        self.choices = choices
        left, aside = self._seconds_left(choices.step_seconds), self._epoch_seconds()
        total = steps_in(
            left,
            step_seconds=choices.step_seconds,
            epoch_seconds=aside,
            steps_per_epoch=per_epoch,
            least=LEAST_STEPS,
        )
        return choices.with_budget(((0, total),))

    def _measure(
        self, model: nn.Module, pairs: list[tuple[str, str]], batch: tuple[Tensor, Tensor], limit: float
    ) -> list[Timed]:
        return measure(
            model,
            self.objective,
            pairs,
            batch,
            build=lambda trial: build_optimizers(trial, self.config.optim),
            set_kernel=set_attention_kernel,
            device=self.device,
            limit=limit,
        )

    # ------------------------------------------------------------------------------------------------------- time

    def _seconds_left(self, step_seconds: float) -> float:
        """What the budget leaves for steps and validations from now on: without features, final evaluation and report."""
        budget = 60.0 * (self.config.minutes or 0.0)
        evaluation = (
            self._forward_seconds(step_seconds, self.count("test") or self.count("val")) + self.opened
        )
        report = REPORT_SECONDS if self.config.report else 0.0
        features = self.frozen.seconds(self.choices) if self.features_due else 0.0
        here = time.monotonic() - self.begin
        return max(0.0, budget - self.spent - here - evaluation - features - report - 0.01 * budget)

    def _forward_seconds(self, step_seconds: float, images: int) -> float:
        """What the whole model takes for so many images."""
        share = 1.0 if self.config.tune == "head" else FORWARD_SHARE
        batch = self.choices.feature_seconds or share * step_seconds / self.accumulate
        return batch * images / self.choices.batch_size

    def _epoch_seconds(self) -> float:
        choices, saving = self.choices, 0.03 + state_bytes(self.model, ema=self.config.ema.decay > 0) / 2e8
        if choices.features:
            return choices.step_seconds * self.count("val") / choices.batch_size + saving
        return self._forward_seconds(choices.step_seconds, self.count("val")) + saving

    def _plan(self) -> Plan:
        config, choices, spec = self.config, self.choices, self.start.spec
        budget = Budget(tuple((row[0], row[1]) for row in choices.budget))
        epochs = budget.total / choices.steps_per_epoch
        weights = weight_bytes(self.model, ema=config.ema.decay > 0)
        frozen = sum(parameter.nbytes for parameter in self.model.parameters() if not parameter.requires_grad)
        tried = f", fastest of {len(choices.measured)}" if len(choices.measured) > 1 else ""
        return Plan(
            out=self.run.path,
            data=self.source.name,
            images={split: len(items) for split, items in self.source.splits.items()},
            classes=len(self.source.labels),
            model=self.start.name,
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            trainable=self.trainable,
            tuning=self._tuning_text(),
            features=self.frozen.text(choices, self.run),
            view=(spec.height, spec.width, spec.channels),
            batch_size=choices.batch_size * self.accumulate,
            steps=budget.total,
            epochs=round(epochs, 1),
            seconds=budget.total * choices.step_seconds
            + epochs * self._epoch_seconds()
            + self.frozen.seconds(choices),
            precision=f"{choices.precision}, {choices.attention} attention ({choices.step_seconds * 1000:.3g} ms a step{tried})",
            device=f"{choices.device}, {choices.threads} thread{'s' if choices.threads != 1 else ''}",
            memory=weights
            + choices.activation_bytes * choices.batch_size
            + (self.frozen.bytes if choices.features == "ram" else 0),
            memory_free=free_memory(self.device),
            disk=4 * (weights - frozen) + frozen + (self.frozen.bytes if choices.features == "disk" else 0),
        )

    def _tuning_text(self) -> str:
        config = self.config
        if config.tune == "all" and not config.tune_unfreeze:
            return ""
        rank = (
            f" of rank {config.lora.rank} on {','.join(config.lora.targets)}" if config.tune == "lora" else ""
        )
        return f"{config.tune}{rank}" + (
            f", a group of layers more every {config.tune_unfreeze:g} epochs" if config.tune_unfreeze else ""
        )

    # ------------------------------------------------------------------------------------------------------ train

    def _train(self) -> None:
        config, choices = self.config, self.choices
        self.base = self.tuning.digest(self.model)
        model, training, validation = self._inputs()
        step = Step(
            model,
            self.objective,
            build_optimizers(model, config.optim),
            device=self.device,
            precision="fp32" if choices.features else choices.precision,
            clip_norm=config.clip_norm,
        )
        tuning = Tuning(model, "all") if choices.features else self.tuning
        self.ema = Ema(model, config.ema, changing=tuning.changing) if config.ema.decay > 0 else None
        budget = Budget(tuple((row[0], row[1]) for row in choices.budget))
        events = Events(self.run, tensorboard=config.tensorboard)
        try:
            with progress_bar(self.console, "training", budget.total) as bar:
                self.loop = Loop(
                    step=step,
                    tuning=tuning,
                    base=self.base,
                    ema=self.ema,
                    training=training,
                    validation=validation,
                    schedule=config.schedule,
                    budget=budget,
                    pace=Pace(
                        seed=config.seed,
                        accumulate=self.accumulate,
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

    def _inputs(self) -> tuple[nn.Module, Batches, Batches | None]:
        """What is trained, and the batches it is trained and validated on: the whole model on images, or its head on kept features."""
        if not self.choices.features:
            return self.model, self.training, self.validation
        loaders = {
            "train": self.training,
            **({"val": self.validation} if self.validation is not None else {}),
        }
        with self.stop.interruptible():
            found = self.frozen.batches(loaders, self.choices, self.run, base=self.base, console=self.console)
        self.features_due = False
        return self.frozen.head, found["train"], found.get("val")

    def _take_up(self, events: Events) -> None:
        """Stand where the newest whole checkpoint was taken, or at the beginning."""
        loaded = self.checkpoints.load_newest()
        if loaded is None:
            events.open(None, step=0)
            return
        for line in loaded.damaged:
            self.say(line)
        self.loop.load(loaded.state)
        self.say(f"resumed after step {loaded.step}")
        if not events.open(loaded.state["metrics"], step=loaded.step):
            self.say(
                f"{self.run.metrics.name} was changed or cut since the checkpoint; its earlier rows are not what was written"
            )

    def _clock(self) -> Clock | None:
        if self.config.minutes is None:
            return None

        def save(budget: Budget) -> None:
            self.choices = self.choices.with_budget(budget.rows)
            self.choices.save(self.run.choices)

        def left(step_seconds: float) -> float:
            return self._seconds_left(step_seconds)

        return Clock(left=left, epoch_seconds=self._epoch_seconds(), save=save)

    def say(self, text: str) -> None:
        """Tell the person at the terminal."""
        if self.console is not None:
            self.console.print(text, markup=False)
