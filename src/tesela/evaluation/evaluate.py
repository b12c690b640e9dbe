"""Evaluation of a trained model on a split of a data set, and the two files that keep it.

``evaluation.json`` holds the scores and how they were taken; ``predictions.npz`` what the task keeps of every
image (a classifier's probabilities and true classes) and thumbnails, so that the whole report can be made
again without the data. A run evaluated on the test split of its own data (val without one) writes both into
the run folder; anything else goes to ``evaluations/DATA-SPLIT/`` below it.

Odd: the labels of another data set are matched to the model's by name, never by number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tesela.checkpoints.cache import bundle_of
from tesela.core.errors import UnknownNameError, UsageError
from tesela.core.files import read_json
from tesela.data.loader import Loader
from tesela.data.source import Source
from tesela.evaluation.data import CHANGED, data_settings, has_changed, main_split, open_data
from tesela.evaluation.kept import (
    check_mistakes,
    evaluation_folder,
    save_evaluation,
    summarise,
    write_mistakes,
)
from tesela.evaluation.model import open_evaluated
from tesela.evaluation.rows import RowSpool
from tesela.evaluation.scoring import Ways, evaluate_model
from tesela.hardware.device import choose_device
from tesela.runs.folder import Run
from tesela.runtime.predictor import described
from tesela.tasks.catalog import find_task

if TYPE_CHECKING:
    from rich.console import Console

    from tesela.models.model import Model
    from tesela.tasks.task import Task


def evaluate_run(
    path: Path | str | Model,
    *,
    data: str | Source | None = None,
    split: str = "test",
    batch_size: int = 256,
    device: str = "auto",
    precision: str = "auto",
    kernel: str | None = None,
    backend: str = "auto",
    console: Console | None = None,
    formats: Sequence[str] | None = None,
    max_pixels: int | None = None,
    mistakes: str | Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Evaluate a run or bundle and keep what was found.

    Args:
        path: a run folder, a bundle, a foreign checkpoint (see ``tesela.checkpoints``), or a loaded model.
        data: another data set, or a source that is open already; by default the run's own.
        split: ``train``, ``val`` or ``test``.
        batch_size: images at a time; changes the speed only.
        device: ``cpu``, ``cuda``, ``mps`` or ``auto``.
        precision: see ``evaluate_model``; ``auto`` is what the run was trained with, fp32 for a bundle.
        kernel: see ``evaluate_model``.
        backend: a name of ``tesela.runtime.backends.base``, or ``auto``: torch where there are weights.
        console: where a progress bar goes.
        formats: the only image formats to open; by default those that the run was trained with.
        max_pixels: most pixels of an image; by default what the run was trained with.
        mistakes: a .csv file for the images whose label the model contradicts, surest first.
        **options: of the task's scorer, such as ``top=3`` for a classifier.

    Returns:
        what evaluation.json holds, and under ``folder`` where it lies (None for a bare bundle, which is left
        as it is).

    Raises:
        UsageError: no such run, no data named for a bundle, no such split, an option that the task does not
            have.
        DataError: the data has labels that the model does not know.
    """
    run: Run | None = None
    if isinstance(path, (str, Path)):
        run, device = Run(path), choose_device(device).type
        model, info = open_evaluated(bundle_of(path), device=device, backend=backend)
    else:
        model, info = path, described(path)
        device = next(model.parameters()).device.type
    task = find_task(info.task)
    ways = {name: options.pop(name) for name in list(options) if name in task.infer_options}
    check_options(task, options)
    if mistakes is not None:
        check_mistakes(Path(mistakes), task)
    precision = recorded_precision(run, device) if precision == "auto" else precision
    limits = {"formats": formats and list(formats), "max_pixels": max_pixels}
    config = data_settings(run, data, {name: value for name, value in limits.items() if value is not None})
    source = (
        data
        if isinstance(data, Source)
        else open_data(config, task.targets, own=data is None, needs_labels=task.needs_labels)
    )
    changed = data is None and run is not None and has_changed(run, source)
    if changed and console is not None:
        console.print(CHANGED, markup=False)
    if split not in source.splits:
        raise UnknownNameError("split", split, source.splits)
    items = source.splits[split]
    loader = Loader(
        items,
        info.image,
        batch_size=batch_size,
        targets=task.targets(source).matched(info.labels),
        workers=config.workers,
        cache=config.cache,
        device=device,
        max_unreadable=1.0,
        full=True,
    )
    with RowSpool() as spool:
        evaluation = evaluate_model(
            model,
            loader,
            task,
            task.scorer(info.labels, **task.scorer_facts(model, info), **options),
            spool=spool,
            precision=precision,
            kernel=kernel,
            ways=Ways(items, info.image, ways) if any(ways.values()) else None,
            console=console,
        )
        loader.close()
        unreadable = [
            {"name": image.name, "code": image.code, "message": image.message} for image in loader.unreadable
        ]
        about = {
            "task": task.name,
            "data": source.name,
            "split": split,
            "unreadable": unreadable,
            **({"data_changed": True} if changed else {}),
            "precision": precision,
            "device": device,
            **ways,
        }
        summary = summarise(evaluation, info, model, about)
        chosen = [name for name, wanted in ways.items() if wanted]
        own = data is None and split == main_split(source) and not chosen
        folder = evaluation_folder(run, own=own, name="-".join([source.name, split, *chosen]))
        if mistakes is not None:
            found = spool.arrays()
            write_mistakes(Path(mistakes), task, found, evaluation.indices, items, info.labels)
        if folder is not None:
            save_evaluation(folder, summary, evaluation, spool.arrays(), task, items, info)
    return {**summary, "folder": folder}


def check_options(task: Task, options: Mapping[str, Any]) -> None:
    """Refuse options that the task's scorer does not have.

    Raises:
        UsageError: it names them.
    """
    unknown = sorted(set(options) - task.score_options)
    if unknown:
        known = ", ".join(sorted(task.score_options)) or "none"
        raise UsageError(
            f"scores of the task {task.name} have no option {unknown[0]!r}", hint=f"its options: {known}"
        )


def recorded_precision(run: Run | None, device: str) -> str:
    """The number format that the run was trained with, if ``device`` has it; fp32 without a record."""
    if run is None:
        return "fp32"
    found = str(read_json(run.choices).get("precision", "fp32")) if run.choices.is_file() else "fp32"
    return "fp32" if found == "fp16" and device == "cpu" else found
