"""Decide phase: batch size, precision, attention kernel and steps, measured here.

A resumed run takes what was written down, since another choice would be another run.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from tesela.core.config import to_mapping
from tesela.core.errors import DataError
from tesela.core.files import write_json
from tesela.data.batch import Batch
from tesela.data.digest import data_digest, image_counts
from tesela.data.levels import level_notes
from tesela.data.loader import Loader
from tesela.data.scan import causes
from tesela.data.source import Source
from tesela.evaluation.scoring import evaluation_mode
from tesela.hardware.allocator import give_back_freed_memory
from tesela.hardware.autocast import autocast
from tesela.hardware.memory import activation_bytes, automatic_batch, free_memory, weight_bytes
from tesela.layers.attention.attention import set_attention_kernel
from tesela.layers.attention.kernels import HasKernel
from tesela.tasks.objective import Draw, Objective
from tesela.training.choices import Choices
from tesela.training.config import DEFAULT_EPOCHS
from tesela.training.optim.budget import Budget, steps_in, steps_per_epoch
from tesela.training.optim.optimizer import build_optimizers
from tesela.training.planning.inert import idle_options
from tesela.training.planning.plan import Plan, RunFacts, plan_table
from tesela.training.planning.timing import TimePlan, step_seconds
from tesela.training.precision import Timed, candidates, fastest, time_settings
from tesela.training.prepare import Prepared

if TYPE_CHECKING:
    from rich.console import Console

#: About the longest time for finding out how to compute.
MEASURED_SECONDS = 8.0
#: A time budget begins with at least so many steps: a wrong first measurement is then put right by the
#: refits.
LEAST_STEPS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Decisions:
    """Everything that is fixed before the first step.

    Attributes:
        choices: what was measured and chosen, as written down.
        training: batches of the training split.
        validation: batches of the validation split, or None.
        accumulate: batches whose gradients make up one step.
        timing: the run's time.
        left_out: images of both splits that cannot be read.
        plan: the numbers for people.
    """

    choices: Choices
    training: Loader
    validation: Loader | None
    accumulate: int
    timing: TimePlan
    left_out: int
    plan: Plan

    @property
    def budget(self) -> Budget:
        """The number of steps, as first planned and refitted since."""
        return Budget(tuple((row[0], row[1]) for row in self.choices.budget))


def decide(
    prepared: Prepared,
    known: Choices | None,
    *,
    threads: int,
    begin: float,
    spent: float,
    opening: float,
    console: Console | None,
) -> Decisions:
    """Open the loaders, measure what is open, write it down and show the plan.

    Args:
        prepared: the run.
        known: what was written down when the run began, or None.
        threads: threads for computing.
        begin: monotonic time at which this process began.
        spent: seconds that earlier processes took.
        opening: monotonic time at which preparing began.
        console: where the plan goes.

    Raises:
        DataError: too many images are unreadable, or they are not those that the run began with.
        StorageError: the run does not fit on the disk.
    """
    config, model = prepared.config, prepared.model
    if known is not None:
        check_same_data(known, prepared.source)
    if console is not None:
        console.print(plan_table(make_facts(prepared).rows(), title="Plan"))
    per_image = known.activation_bytes if known else _activation_bytes(prepared)
    batch_size = known.batch_size if known else _batch_size(prepared, per_image)
    training = _loader(prepared, "train", batch_size)
    training.check_shares(prepared.ranks)
    validation = _loader(prepared, "val", batch_size) if prepared.count("val") else None
    accumulate = max(1, min(config.accumulate, len(training)))
    for line in idle_options(config, batches=len(training), validated=validation is not None):
        if console is not None:
            console.print(f"no effect   {line}", markup=False, soft_wrap=True)
    left_out = _list_unreadable(prepared, training, validation, console)
    for note in level_notes(prepared.source.splits["train"]) if console is not None else ():
        console.print(f"note: {note}", markup=False)  # type: ignore[union-attr]
    timing = TimePlan(
        prepared=prepared,
        begin=begin,
        spent=spent,
        opened=time.monotonic() - opening,
        accumulate=accumulate,
    )
    if known is None and console is not None:
        console.print("measuring   which number format and attention kernel are fastest here ...")
    choices = known or _choose(prepared, training, timing, threads=threads, per_image=per_image)
    if known is None:
        seconds = timing.planned_seconds(choices)
        choices = dataclasses.replace(choices, planned_seconds=round(seconds, 2))
        give_back_freed_memory()  # of kernels that were not chosen
    plan = make_plan(prepared, choices, timing)
    if console is not None:
        console.print(plan_table(plan.rows()))
    plan.check()  # before anything is kept, so that a refused run leaves its folder free
    choices.save(prepared.run.choices)
    for part in (model, prepared.objective):
        set_attention_kernel(part, choices.attention)
    return Decisions(
        choices=choices,
        training=training,
        validation=validation,
        accumulate=accumulate,
        timing=timing,
        left_out=left_out,
        plan=plan,
    )


def check_same_data(known: Choices, source: Source) -> None:
    """Refuse to go on with other images: splits, order and epochs are functions of them.

    Raises:
        DataError: it says how many there were and are.
    """
    if not known.data or known.data == data_digest(source):
        return
    counts = image_counts(source)
    then, now = (", ".join(f"{count:,} {split}" for split, count in found.items())
                 for found in (known.images, counts))  # fmt: skip
    what = f"{then} then, {now} now" if counts != known.images else f"{now} as then, but not the same files"
    raise DataError(
        f"the data has changed since the run began: {what}",
        hint="put the images back as they were, or begin a new run with another --out",
    )


def _loader(prepared: Prepared, split: str, batch_size: int) -> Loader:
    config, training = prepared.config, split == "train"
    # batch normalisation cannot train on a single image
    smallest = batch_size if config.accumulate == 1 else 2
    return Loader(
        prepared.source.splits[split],
        prepared.start.spec,
        batch_size=batch_size,
        targets=prepared.targets,
        augment=config.augment if training else None,
        seed=config.seed,
        workers=config.data.workers,
        cache=config.data.cache,
        shuffle=training,
        least=smallest if training else 1,
        device=prepared.device,
        max_unreadable=config.data.max_unreadable,
    )


def _list_unreadable(
    prepared: Prepared, training: Loader, validation: Loader | None, console: Console | None
) -> int:
    """Show which images are left out, and write all of them down."""
    loaders = {"train": training, **({"val": validation} if validation else {})}
    rows = [
        {"split": split, **dataclasses.asdict(bad)}
        for split, loader in loaders.items()
        for bad in loader.unreadable
    ]
    if rows:
        file = prepared.run.unreadable
        write_json(file, rows)
        lines = [f"unreadable: {row['split']} {row['name']}: {row['message']}" for row in rows[:5]]
        counted = causes(bad for loader in loaders.values() for bad in loader.unreadable)
        lines.append(f"unreadable and left out: {counted}; all are listed in {file}")
        for line in lines if console is not None else ():
            console.print(line, markup=False)  # type: ignore[union-attr]
    return len(rows)


def _activation_bytes(prepared: Prepared) -> int:
    """Memory that one image takes for the backward pass, from a dry run on two empty images."""
    spec, device = prepared.start.spec, prepared.device
    batch = Batch(
        images=torch.zeros(2, spec.channels, spec.height, spec.width),
        targets=torch.from_numpy(prepared.targets.dry(2, spec)),
        indices=torch.arange(2),
    ).to(device)

    objective = copy.deepcopy(prepared.objective)  # a resumed run, which skips this, must have the same state

    def loss(model: nn.Module) -> object:
        return objective.loss(model, batch, Draw(0, 0))

    return activation_bytes(prepared.model, loss, images=len(batch))


def _batch_size(prepared: Prepared, per_image: int) -> int:
    images, wanted = prepared.count("train"), prepared.config.batch_size
    if wanted != "auto":
        return min(wanted, images)
    ranks = prepared.ranks.count
    cards = ranks if prepared.device.type == "cuda" else 1  # processes on a CPU share its memory
    found = automatic_batch(images, per_image=per_image, free=cards * free_memory(prepared.device))
    return min(images, -(-found // ranks) * ranks)


def _choose(
    prepared: Prepared, training: Loader, timing: TimePlan, *, threads: int, per_image: int
) -> Choices:
    config, frozen = prepared.config, prepared.frozen
    first = next(iter(training.epoch(0)))
    first = first.part(*prepared.ranks.span(len(first)))  # what this rank computes of it
    limit = min(MEASURED_SECONDS, 1.2 * (config.minutes or math.inf))  # 2 % of a time budget
    place = frozen.place()
    attends = any(
        isinstance(module, HasKernel)
        for part in (prepared.model, prepared.objective)
        for module in part.modules()
    )
    pairs = candidates(
        config.precision, config.attention, prepared.device, attends=attends, backward=not place
    )
    passes = config.epochs or (math.inf if config.minutes else DEFAULT_EPOCHS)
    measured = _measure(
        prepared, prepared.model, prepared.objective, pairs, first, limit, images=passes * training.num_images
    )
    best = fastest(measured)
    if not place:  # the choice was made on a small batch; times are of a whole one
        chosen, limit = [(best.precision, best.attention)], 4.2 * best.seconds
        best = _measure(prepared, prepared.model, prepared.objective, chosen, first, limit)[0]
    per_epoch, seconds = steps_per_epoch(len(training), timing.accumulate), best.seconds
    if place:
        features = dataclasses.replace(first, images=torch.zeros(len(first), frozen.width))
        pair = [("fp32", "fused")]
        seconds = _measure(prepared, frozen.head, prepared.objective, pair, features, 1.0)[0].seconds
    choices = Choices(
        model=prepared.start.name,
        image=to_mapping(prepared.start.spec),
        device=prepared.device.type,
        threads=threads,
        precision=best.precision,
        attention=best.attention,
        batch_size=training.batch_size,
        steps_per_epoch=per_epoch,
        step_seconds=timing.accumulate
        * (
            seconds
            if place
            else step_seconds(
                seconds,
                training.making_seconds() / prepared.ranks.count,
                workers=training.workers,
                threads=threads,
                shared=prepared.device.type == "cpu",
            )
        ),
        measured=[[timed.precision, timed.attention, timed.seconds] for timed in measured],
        activation_bytes=per_image,
        features=place,
        feature_seconds=best.seconds if place else 0.0,
        forward_seconds=_forward_seconds(prepared, best, first),
        data=data_digest(prepared.source),
        images=image_counts(prepared.source),
    )
    if config.minutes is None:
        return choices.with_budget(((0, per_epoch * (config.epochs or DEFAULT_EPOCHS)),))
    total = steps_in(
        timing.left(choices, choices.step_seconds, features_due=True),
        step_seconds=choices.step_seconds,
        epoch_seconds=timing.epoch_seconds(choices),
        steps_per_epoch=per_epoch,
        least=LEAST_STEPS,
    )
    return choices.with_budget(((0, total),))


def _measure(
    prepared: Prepared,
    model: nn.Module,
    objective: Objective,
    pairs: list[tuple[str, str]],
    batch: Batch,
    limit: float,
    *,
    images: float = math.inf,
) -> list[Timed]:
    return time_settings(
        model,
        objective,
        pairs,
        batch,
        build=lambda trial, loss: build_optimizers(trial, prepared.config.optim, objective=loss),
        set_kernel=set_attention_kernel,
        device=prepared.device,
        limit=limit,
        images=images,
    )


def _forward_seconds(prepared: Prepared, best: Timed, batch: Batch) -> float:
    """Seconds of the whole model in evaluation for a batch, the shorter of two."""
    images, device, times = batch.images.to(prepared.device), prepared.device, []
    with evaluation_mode(prepared.model, best.attention), torch.inference_mode():
        for _ in range(2):
            begin = time.perf_counter()
            with autocast(device, best.precision):
                prepared.model(images)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
    return min(times)


def make_facts(prepared: Prepared) -> RunFacts:
    """The plan as far as it is known before anything is measured."""
    spec = prepared.start.spec
    return RunFacts(
        data=prepared.source.name,
        images=image_counts(prepared.source),
        classes=len(prepared.targets.labels),
        model=prepared.start.name,
        parameters=sum(parameter.numel() for parameter in prepared.model.parameters()),
        trainable=prepared.trainable,
        tuning=prepared.config.tuning_text(),
        view=(spec.height, spec.width, spec.channels),
        notes=[*([("head", prepared.start.head)] if prepared.start.head else []), *prepared.notes],
    )


def make_plan(prepared: Prepared, choices: Choices, timing: TimePlan) -> Plan:
    """What was chosen and measured, shown before the first step."""
    config, model, frozen = prepared.config, prepared.model, prepared.frozen
    budget = Budget(tuple((row[0], row[1]) for row in choices.budget))
    epochs = budget.total / choices.steps_per_epoch
    weights = weight_bytes(model, ema=config.ema.decay > 0)
    fixed = sum(parameter.nbytes for parameter in model.parameters() if not parameter.requires_grad)
    tried = f", fastest of {len(choices.measured)}" if len(choices.measured) > 1 else ""
    step = f"{choices.step_seconds * 1000:.3g} ms a step{tried}"
    in_ram, on_disk = (frozen.bytes if choices.features == place else 0 for place in ("ram", "disk"))
    return Plan(
        out=prepared.run.path,
        features=frozen.text(choices, prepared.run),
        batch_size=choices.batch_size * timing.accumulate,
        steps=budget.total,
        epochs=round(epochs, 1),
        seconds=timing.planned_seconds(choices),
        precision=f"{choices.precision}, {choices.attention} attention ({step})",
        device=f"{choices.device}, {choices.threads} thread{'s' if choices.threads != 1 else ''}",
        memory=weights + choices.activation_bytes * choices.batch_size + in_ram,
        memory_free=free_memory(prepared.device),
        disk=4 * (weights - fixed) + fixed + on_disk,
    )
