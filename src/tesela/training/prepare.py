"""Prepare: from a configuration to everything a run trains, before anything is measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tesela.core.config import build
from tesela.data.source import Source
from tesela.data.targets import Targets
from tesela.hardware.ranks import ALONE, Ranks
from tesela.imaging.spec import ImageSpec
from tesela.models.model import Model
from tesela.tasks.catalog import objective_config, task_for
from tesela.tasks.objective import Objective
from tesela.tasks.task import Scorer, Task
from tesela.training.choices import Choices
from tesela.training.config import TrainConfig
from tesela.training.start import Start, start
from tesela.training.tuning.frozen import FrozenBody
from tesela.training.tuning.tuning import Tuning, adapt

if TYPE_CHECKING:
    from tesela.runs.folder import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A run before its first decision.

    Attributes:
        config: the run's configuration.
        run: its folder, locked.
        device: where it computes.
        source: the data.
        task: what is learned.
        targets: how targets are read.
        start: the model at step 0, on the device, and what it expects of an image.
        tuning: which parts of the model are trained.
        trainable: number of weights that are trained.
        frozen: the frozen part of a model whose head alone is trained.
        objective: the loss, on the device.
        notes: remarks for the plan, each with its label.
        ranks: this process and others that train the same model.
    """

    config: TrainConfig
    run: Run
    device: torch.device
    source: Source
    task: Task
    targets: Targets
    start: Start
    tuning: Tuning
    trainable: int
    frozen: FrozenBody
    objective: Objective
    notes: Sequence[tuple[str, str]] = ()
    ranks: Ranks = ALONE

    @property
    def model(self) -> Model:
        """The whole model."""
        return self.start.model

    @property
    def scorer(self) -> Callable[[], Scorer]:
        """Makes a scorer of the validation split."""
        return lambda: self.task.validation_scorer(self.targets, range(self.count("val")))

    def count(self, split: str) -> int:
        """Images of a split, 0 without one."""
        return len(self.source.splits[split]) if split in self.source.splits else 0


def prepare(
    config: TrainConfig,
    run: Run,
    device: torch.device,
    source: Source,
    *,
    notes: Sequence[tuple[str, str]] = (),
    ranks: Ranks = ALONE,
) -> Prepared:
    """Choose the task, build the model and its objective.

    Args:
        config: of the run.
        run: its folder.
        device: where it computes.
        source: from ``tesela.tasks.opening.open_for_task``.
        notes: remarks for the plan.
        ranks: this process and others that train the same model; then no features of a frozen body are kept.

    Raises:
        ConfigError: model, overrides, objective and images do not fit together.
        DataError: the data cannot be trained on.
        WeightsError: the weights to start from are broken.
    """
    task = task_for(config.task, source)
    targets = task.targets(source)
    targets.check(source)
    settings = build(objective_config(task.name), config.objective)
    objective = task.objective(settings, targets)
    beginning = start(config, source, task, targets.labels)
    known = Choices.read(run.choices)
    if known is not None:
        beginning = dataclasses.replace(beginning, spec=begun_spec(known.image, beginning.spec))
    if config.tune == "lora":
        adapt(beginning.model, config.lora, seed=config.seed)
    tuning = Tuning(beginning.model, config.tune, unfreeze=config.tune_unfreeze)
    objective.attach(beginning.model, beginning.spec, seed=config.seed)
    model, objective = beginning.model.to(device), objective.to(device)
    tuning.train(model)
    count = {split: len(items) for split, items in source.splits.items()}
    return Prepared(
        config=config,
        run=run,
        device=device,
        source=source,
        task=task,
        targets=targets,
        start=beginning,
        tuning=tuning,
        trainable=tuning.count(model),
        frozen=FrozenBody(
            model,
            beginning.spec,
            config if ranks.alone else dataclasses.replace(config, tune_cache="none"),
            device=device,
            training=count["train"],
            validation=count.get("val", 0),
        ),
        objective=objective,
        notes=[*source_notes(source), *notes, *objective.notes()],
        ranks=ranks,
    )


def begun_spec(begun: Mapping[str, Any], found: ImageSpec) -> ImageSpec:
    """The image spec of a run that is resumed.

    Args:
        begun: the spec as written down when the run began; empty in runs of earlier versions, which read
            foreign preprocessing as the nearest of our own.
        found: as it is read today.
    """
    if begun:
        spec: ImageSpec = build(ImageSpec, begun)
        return spec
    if found.arithmetic == "exact":
        return found
    squash = found.arithmetic == "timm" and found.resize == "squash"
    soft = found.arithmetic == "transformers" and found.interpolation in ("box", "hamming")
    known = found.interpolation in ("nearest", "bilinear", "bicubic")
    return dataclasses.replace(
        found.exact("squash" if squash else "crop"),
        crop_ratio=1.0 if squash else found.crop_ratio,
        interpolation=found.interpolation if known else "bilinear" if soft else "bicubic",
    )


def source_notes(source: Source) -> list[tuple[str, str]]:
    """Remarks on how the data was read."""
    return [("note", note) for note in source.notes]
