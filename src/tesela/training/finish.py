"""Finish phase: merge adapters, write bundle, scores, report, card, ``result.json``.

``result.json`` is last.
"""

from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING, Any

import torch

from tesela.core.errors import UsageError
from tesela.core.files import write_json, write_text
from tesela.core.version import __version__
from tesela.data.masks.classes_file import hexadecimal
from tesela.layers.lora import merge_adapters
from tesela.models.bundle import CARD, BundleInfo, describe, write_bundle, write_info
from tesela.models.card import Card
from tesela.models.model import Model
from tesela.reports.animation import write_animation
from tesela.runs.result import RunResult
from tesela.training.calibrate import Calibration, calibrate
from tesela.training.decide import Decisions
from tesela.training.fit import Outcome
from tesela.training.prepare import Prepared
from tesela.training.tuning.adapter import write_adapter
from tesela.training.tuning.features import HeadModel

if TYPE_CHECKING:
    from rich.console import Console


def finish(
    prepared: Prepared, decisions: Decisions, outcome: Outcome, *, console: Console | None
) -> RunResult:
    """Write everything, and say what was reached.

    Raises:
        StorageError: the file system refused.
    """
    from tesela.evaluation.evaluate import evaluate_run

    run, choices = prepared.run, decisions.choices
    model = _whole_model(prepared, outcome)
    calibration = calibrate(prepared, decisions, model)
    if prepared.config.tune == "lora":
        write_adapter(run.adapter, model, base=prepared.start.origin)
        merge_adapters(model)
    info = write_bundle(run.bundle, model, bundle_info(prepared, outcome, model, calibration))
    split = next((name for name in ("test", "val") if prepared.count(name)), None)
    scores: dict[str, Any] = {}
    if split is not None:
        scores = evaluate_run(
            run.path,
            split=split,
            device=prepared.device.type,
            precision=choices.precision,
            kernel=choices.attention,
            console=console,
        )
        _describe(prepared, decisions, outcome, info, scores)
    write_animation(run)
    if prepared.config.report:
        _report(prepared, console)
    shutil.rmtree(run.features, ignore_errors=True)
    images = outcome.steps / choices.steps_per_epoch * len(decisions.training) * choices.batch_size
    result = RunResult(
        run=str(run.path),
        task=prepared.task.name,
        scores={name: scores.get(name) for name in prepared.task.headline},
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        steps=outcome.steps,
        epochs=round(outcome.steps / choices.steps_per_epoch, 2),
        seconds=round(decisions.timing.elapsed(), 2),
        images_per_second=round(images / max(outcome.seconds, 1e-9), 1),
        model=prepared.start.name,
        precision=choices.precision,
        split=split,
        unreadable=decisions.left_out,
        trainable=prepared.trainable,
    )
    write_json(run.result, result.mapping())
    return result


def _whole_model(prepared: Prepared, outcome: Outcome) -> Model:
    """The whole model, with the weights that are shipped."""
    shipped = outcome.shipped
    if isinstance(shipped, HeadModel):
        prepared.model.head.load_state_dict(shipped.head.state_dict())
        return prepared.model
    assert isinstance(shipped, Model)
    return shipped


def bundle_info(
    prepared: Prepared, outcome: Outcome, model: Any, calibration: Calibration | None
) -> BundleInfo:
    """What the bundle says about itself, before it is scored."""
    config, start = prepared.config, prepared.start
    provenance = {
        "data": prepared.source.name,
        "recipe": config.recipe,
        "from": start.origin,
        "tune": config.tune,
        "seed": config.seed,
        "steps": outcome.steps,
        "best_step": outcome.kept,
        "temperature": calibration.temperature if calibration else None,
        "tesela": __version__,
        "torch": str(torch.__version__),
    }
    return describe(
        model,
        name=start.name,
        task=prepared.task.name,
        labels=list(prepared.targets.labels),
        image=start.spec,
        provenance=provenance,
        license=start.license,
        colors=[hexadecimal(colour) for colour in getattr(prepared.targets, "colours", ())],
    )


def _describe(
    prepared: Prepared, decisions: Decisions, outcome: Outcome, info: BundleInfo, scores: dict[str, Any]
) -> None:
    """Put the scores into the bundle's config.json and its model card."""
    task, spec, source = prepared.task, prepared.start.spec, prepared.source
    readable = {"train": decisions.training.num_images, scores["split"]: scores["images"]}
    if decisions.validation is not None:
        readable["val"] = decisions.validation.num_images
    measured = {name: scores[name] for name in task.card_scores if name in scores}
    write_info(prepared.run.bundle, dataclasses.replace(info, metrics={scores["split"]: measured}))
    card = Card(
        model=prepared.start.name,
        noun=task.noun,
        pipeline_tag=task.pipeline_tag,
        parameters=scores["parameters"],
        data=source.name,
        images={name: readable.get(name, len(items)) for name, items in source.splits.items()},
        labels=prepared.targets.labels,
        size=(spec.height, spec.width, spec.channels),
        scores={label: scores[name] for name, label in task.card_scores.items() if name in scores},
        split=scores["split"],
        steps=outcome.steps,
        recipe=prepared.config.recipe,
        origin=prepared.start.origin,
        license=prepared.start.license,
    )
    write_text(prepared.run.bundle / CARD, card.text())


def _report(prepared: Prepared, console: Console | None) -> None:
    from tesela.reports.report import write_report

    run = prepared.run
    try:
        write_report(run, explain=True)
    except UsageError as error:  # a model that cannot be explained has a report all the same
        if console is not None:
            console.print(f"the report has no explanations: {error.message}", markup=False)
        write_report(run)
