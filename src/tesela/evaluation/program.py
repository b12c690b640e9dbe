"""Evaluation of an exported program without torch: the same scores, image after image.

Odd: a machine with torch evaluates programs as it does everything else (``tesela.evaluation.evaluate``),
which reads images faster; both count with ``tesela.metrics``.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tesela.core.config import build
from tesela.core.errors import DataError, ImageError, UnknownNameError, UsageError
from tesela.core.progress import progress_bar
from tesela.core.version import __version__
from tesela.data.config import DataConfig
from tesela.data.open import open_source
from tesela.data.source import Source
from tesela.hardware.machine import processor
from tesela.imaging.preprocess import fit_image
from tesela.models import catalog
from tesela.models.segmenter.config import decoder_config
from tesela.runtime.predictor import Predictor

if TYPE_CHECKING:
    from rich.console import Console

    from tesela.data.source import Items
    from tesela.models.bundle import BundleInfo
    from tesela.models.config import ModelConfig
    from tesela.tasks.task import ArrayScorer


def evaluate_program(
    bundle: Path | str,
    data: str | Source | None,
    *,
    split: str = "test",
    batch_size: int = 32,
    backend: str = "auto",
    console: Console | None = None,
    formats: Sequence[str] | None = None,
    max_pixels: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Scores of an exported program on a split of a data set.

    Args:
        bundle: the program's folder.
        data: the data set, or a source that is open already.
        split: train, val or test.
        batch_size: images at a time; changes the speed only.
        backend: what computes.
        console: where a progress bar goes.
        formats: the only image formats to open; all by default.
        max_pixels: most pixels of an image.
        **options: of the task's scorer, such as ``top=3`` for a classifier.

    Returns:
        what ``evaluate_run`` returns for a bundle, but for scores that only torch takes.

    Raises:
        UsageError: no data is named, no such split, or an option that the task does not have.
        DataError: there is no image, or a label that the model does not know.
    """
    predictor = Predictor(bundle, backend=backend)
    info, task = predictor.info, predictor.task
    unknown = sorted(set(options) - task.score_options)
    if unknown:
        raise UsageError(
            f"scores of an exported program have no option {unknown[0]!r} without torch",
            hint="leave it out, or evaluate the run where torch is installed",
        )
    counter = task.array_scorer(info, **options)
    if counter is None:
        raise UsageError(
            f"programs of the task {task.name} are evaluated with torch only",
            hint='pip install "tesela[train]"',
        )
    if data is None:
        raise UsageError(
            f"{bundle} does not say what it was trained on", hint="name the data: tesela evaluate BUNDLE DATA"
        )
    limits = {"formats": formats and list(formats), "max_pixels": max_pixels}
    given = {name: value for name, value in limits.items() if value is not None}
    config: DataConfig = build(DataConfig, {"source": "" if isinstance(data, Source) else data, **given})
    source = (
        data if isinstance(data, Source) else open_source(config.source, config=config, targets=task.targets)
    )
    if split not in source.splits:
        raise UnknownNameError("split", split, source.splits)
    items, targets = source.splits[split], task.targets(source).matched(info.labels)
    begin = time.perf_counter()
    with progress_bar(console, "evaluate", len(items)) as bar:
        unreadable = count_rows(
            predictor, counter, items, targets, range(len(items)), batch_size=batch_size, on_row=bar.advance
        )
    seconds = time.perf_counter() - begin
    scores = counter.result()
    if not scores["images"]:
        raise DataError(
            "there is no image to evaluate on", hint="choose a split that has images with --split"
        )
    return {
        "model": info.name,
        "parameters": parameters_of(info),
        "labels": list(info.labels),
        "task": task.name,
        "data": source.name,
        "split": split,
        "unreadable": unreadable,
        "precision": predictor.backend.precision,
        "backend": predictor.backend.name,
        "device": "cpu",
        **scores,
        "seconds": round(seconds, 3),
        "images_per_second": round(scores["images"] / seconds, 1),
        "environment": {
            "tesela": __version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "processor": processor()["name"],
            "cores": os.cpu_count(),
        },
        "folder": None,
    }


def count_rows(
    predictor: Predictor,
    counter: ArrayScorer,
    items: Items,
    targets: Any,
    rows: Iterable[int],
    *,
    batch_size: int = 32,
    on_row: Callable[[], object] = lambda: None,
) -> list[dict[str, str]]:
    """Score some images of a data set; those that cannot be read are returned.

    Args:
        predictor: what answers.
        counter: counts.
        items: the images.
        targets: of them, numbered as the model's labels.
        rows: numbers of the images.
        batch_size: images at a time.
        on_row: called for each.
    """
    unreadable: list[dict[str, str]] = []
    whole: Any = getattr(targets, "full", None)
    spec, remaining = predictor.info.image, iter(rows)
    while chunk := list(islice(remaining, batch_size)):
        kept, views = [], []
        for row in chunk:
            on_row()
            try:
                image = items.read(row, channels=spec.channels)
            except ImageError as error:
                unreadable.append({"name": items.name(row), "code": error.code, "message": error.message})
                continue
            kept.append(row)
            views.append(fit_image(image, spec))
        if kept:
            truth = list(targets.read(items, np.array(kept), spec)) if whole is None else []
            counter.update(predictor.outputs(views), truth or [whole(items, row) for row in kept])
    return unreadable


def parameters_of(info: BundleInfo) -> int:
    """Weights of the network that a program was made of."""
    config: ModelConfig = build(catalog.family(info.architecture).config or dict, info.model)
    if "decoder" in info.options:
        _, decoder = decoder_config(info.options["decoder"])
        return config.backbone_parameters() + decoder.parameter_count(config, info.num_classes)
    return config.parameter_count(info.num_classes)
