"""Few-shot accuracy of a frozen model on a data set, and the file that keeps it.

Features of scored images are never kept, so that memory does not grow with their number.

Odd: classes are those of the data; the model's own head and labels take no part, so that any model has a
few-shot accuracy, also one without a head.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tesela.core.errors import DataError, UnknownNameError, UsageError
from tesela.core.files import write_json
from tesela.core.progress import progress_bar
from tesela.data.loader import Loader
from tesela.evaluation.data import CHANGED, data_settings, has_changed, main_split, open_data
from tesela.evaluation.evaluate import recorded_precision
from tesela.evaluation.kept import environment, evaluation_folder
from tesela.evaluation.model import device_of, open_representing, parameter_count
from tesela.evaluation.readers import Passes, Reading, features_of, read_shots
from tesela.evaluation.rows import RowSpool
from tesela.evaluation.scoring import evaluation_mode
from tesela.evaluation.shots import check_shots
from tesela.hardware.device import choose_device
from tesela.runs.folder import Run
from tesela.runtime.predictor import described
from tesela.tasks.catalog import find_task

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from tesela.data.source import Source
    from tesela.models.bundle import BundleInfo
    from tesela.models.model import Model

FEW_SHOT_FORMAT = "tesela-few-shot/1"
SHOTS = (1, 5, 10, 25, 100)
DRAWS = 5


def few_shot(
    source: Path | str | Model,
    data: str | Path | None = None,
    *,
    shots: Sequence[int] = SHOTS,
    draws: int = DRAWS,
    seed: int = 0,
    split: str = "test",
    reading: Reading | None = None,
    batch_size: int = 256,
    device: str = "auto",
    precision: str = "auto",
    console: Console | None = None,
    formats: Sequence[str] | None = None,
    max_pixels: int | None = None,
) -> dict[str, Any]:
    """Accuracy of classifiers of frozen features from a few training images of each class.

    That of a run is kept in its folder.

    Args:
        source: a run, a bundle, a checkpoint (its head may be missing), or a loaded model.
        data: DATA of the command line, of any classes; by default the run's own.
        shots: training images of each class.
        draws: how many times they are drawn.
        seed: of the draws.
        split: whose images are scored.
        reading: how features are read.
        batch_size: images at a time; changes the speed only.
        device: cpu, cuda, mps or auto.
        precision: fp32, bf16 or fp16; auto is what the run was trained with, fp32 for a bundle.
        console: where a progress bar goes.
        formats: the only image formats to open; those of training if None.
        max_pixels: most pixels of an image; that of training if None.

    Returns:
        what few_shot.json holds: ``few_shot`` has a row for each number of shots, with mean, deviation and
        values of the accuracy of each classifier; ``folder`` says where it lies (None for a bare bundle).

    Raises:
        ConfigError: a number of shots or draws is below 1.
        UsageError: no such model, no data named for a bundle, no such split, weights that are not torch's.
        DataError: images have no labels, or a class has fewer than the shots; it is named.
    """
    check_shots(shots, draws)
    if batch_size < 1:
        raise UsageError(f"batch_size must be 1 or more, not {batch_size}", hint="256 is usual")
    run = Run(source) if isinstance(source, (str, Path)) else None
    model, info = _opened(source, device)
    device = device_of(model).type
    limits = {"formats": formats and list(formats), "max_pixels": max_pixels}
    config = data_settings(
        run,
        None if data is None else str(data),
        {name: value for name, value in limits.items() if value is not None},
    )
    if data is not None:
        config = dataclasses.replace(config, classes=())  # which the run chose of its own
    opened = open_data(config, find_task(info.task).targets if data is None else None, own=data is None)
    changed = data is None and run is not None and has_changed(run, opened)
    if changed and console is not None:
        console.print(CHANGED, markup=False)
    check_labelled(opened)
    if split not in opened.splits:
        raise UnknownNameError("split", split, opened.splits)
    if split == "train" or not len(opened.splits[split]):
        raise UsageError(
            f"few-shot accuracy cannot be scored on the {split} split"
            + (", which the shots are drawn from" if split == "train" else ", which has no images"),
            hint="choose another split with --split",
        )
    passes = Passes(
        batch_size=batch_size,
        precision=recorded_precision(run, device) if precision == "auto" else precision,
        workers=config.workers,
    )
    begin, items = time.perf_counter(), opened.splits[split]
    with RowSpool() as spool, evaluation_mode(model, None):
        readers, unreadable = read_shots(
            model,
            opened,
            info.image,
            shots,
            draws=draws,
            seed=seed,
            reading=reading or Reading(),
            passes=passes,
            spool=spool,
        )
        loader = Loader(
            items,
            info.image,
            batch_size=batch_size,
            workers=config.workers,
            cache=config.cache,
            max_unreadable=1.0,
        )
        with progress_bar(console, "few-shot", len(loader)) as bar:
            for features, places in features_of(model, loader, passes.precision):
                readers.update(features, items.targets[places])
                bar.advance()
        loader.close()
        unreadable += [
            {"name": bad.name, "code": bad.code, "message": bad.message} for bad in loader.unreadable
        ]
        rows = readers.result()
    seconds = time.perf_counter() - begin
    summary = {
        "format": FEW_SHOT_FORMAT,
        "model": info.name,
        "parameters": parameter_count(model),
        "task": info.task,
        "data": opened.name,
        "split": split,
        "classes": len(opened.labels),
        "images": readers.images,
        "features": readers.width,
        "draws": draws,
        "seed": seed,
        **readers.settings(),
        "few_shot": rows,
        "unreadable": unreadable,
        **({"data_changed": True} if changed else {}),
        "precision": passes.precision,
        "device": device,
        "seconds": round(seconds, 3),
        "images_per_second": round((readers.images + readers.drawn) / seconds, 1),
        "environment": environment(),
    }
    own = data is None and split == main_split(opened)
    folder = evaluation_folder(run, own=own, name=f"{opened.name}-{split}")
    if folder is not None:
        write_json(Run(folder).few_shot, summary)
    return {**summary, "folder": folder}


def check_labelled(source: Source) -> None:
    """Refuse images without one label each.

    Raises:
        DataError: it says what they have.
    """
    if source.masks is not None:
        raise DataError(
            f"{source.name} has masks, and few-shot accuracy needs one label for each image",
            hint="name a folder of class folders: tesela evaluate RUN DATA",
        )
    if len(source.labels) < 2:
        raise DataError(
            f"{source.name} has no labels of two classes or more, which few-shot accuracy needs",
            hint="name a folder of class folders: tesela evaluate RUN DATA",
        )


def _opened(path: Path | str | Model, device: str) -> tuple[nn.Module, BundleInfo]:
    """The model, and what is known of it.

    Raises:
        UsageError: there is no such model, or a program without features.
    """
    if not isinstance(path, (str, Path)):
        return path, described(path)
    return open_representing(path, device=choose_device(device).type)
