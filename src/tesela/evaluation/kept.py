"""Files that keep an evaluation: evaluation.json, predictions.npz, and a table of mistakes."""

from __future__ import annotations

import csv
import io
import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tesela.core.errors import UsageError
from tesela.core.files import file_atomic, write_json, write_text
from tesela.core.version import __version__
from tesela.evaluation.model import parameter_count
from tesela.evaluation.pictures import choose_pictures
from tesela.evaluation.rows import Arrays
from tesela.evaluation.scoring import Evaluation
from tesela.hardware.machine import processor
from tesela.runs.folder import Run

if TYPE_CHECKING:
    from tesela.data.source import Items
    from tesela.models.bundle import BundleInfo
    from tesela.tasks.task import Task

EVALUATION_FORMAT = "tesela-evaluation/1"
MOST_CLASSES_IN_JSON = 100
"""Above this many classes evaluation.json has no confusion matrix; predictions.npz has all it is made of."""


def summarise(
    evaluation: Evaluation, info: BundleInfo, model: nn.Module, about: dict[str, Any]
) -> dict[str, Any]:
    """What evaluation.json holds: how the scores were taken, then the scores."""
    count, scores = len(evaluation.indices), dict(evaluation.scores)
    if len(info.labels) > MOST_CLASSES_IN_JSON and "confusion" in scores:
        scores["confusion"] = None
    return {
        "format": EVALUATION_FORMAT,
        "model": info.name,
        "parameters": parameter_count(model),
        "labels": list(info.labels),
        **({"colors": list(info.colors)} if info.colors else {}),
        **about,
        **scores,
        "seconds": round(evaluation.seconds, 3),
        "images_per_second": round(count / evaluation.seconds, 1) if evaluation.seconds else None,
        "environment": environment(),
    }


def environment() -> dict[str, Any]:
    """The versions and the machine that the numbers belong to."""
    return {
        "tesela": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor()["name"],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def save_evaluation(
    folder: Path,
    summary: dict[str, Any],
    evaluation: Evaluation,
    rows: Arrays,
    task: Task,
    items: Items,
    info: BundleInfo,
) -> None:
    """Write evaluation.json and predictions.npz into ``folder``, each atomically."""
    pictures = choose_pictures(task, rows, evaluation.indices, items, info.image)
    arrays: dict[str, Any] = {**rows, "indices": evaluation.indices, **pictures}
    needed = sum(values.nbytes for values in arrays.values())
    with file_atomic(Run(folder).predictions, needed=needed) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
    write_json(Run(folder).evaluation, summary)


def evaluation_folder(run: Run | None, *, own: bool, name: str) -> Path | None:
    """Where an evaluation of a run is kept; None for a bare bundle.

    Args:
        run: the run.
        own: whether it is of the run's own test images.
        name: of data and split.
    """
    if run is None or not run.exists():
        return None
    return (
        run.path if own else run.path / "evaluations" / (re.sub(r"[^\w.-]+", "_", name).strip("._") or "data")
    )


def check_mistakes(path: Path, task: Task) -> None:
    """Refuse a table of mistakes that could not be written, before anything is computed.

    Raises:
        UsageError: another ending than .csv, or a task without labels that can be wrong.
    """
    if path.suffix.lower() != ".csv":
        raise UsageError(f"mistakes are written as CSV, not as {path.name}", hint="end the name in .csv")
    if not task.lists_mistakes:
        raise UsageError(
            f"the task {task.name} has no single label of an image that could be wrong",
            hint="leave the list of mistakes out",
        )


def write_mistakes(
    path: Path,
    task: Task,
    rows: Arrays,
    indices: npt.NDArray[np.int64],
    items: Items,
    labels: list[str],
) -> int:
    """Write the images whose label the model contradicts, the surest contradictions first.

    Args:
        path: a .csv file, written whole or not at all.
        task: says what a mistake is.
        rows: what the task kept of each image.
        indices: number of each row's image.
        items: the images.
        labels: of the model.

    Returns:
        how many there are.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    count = 0
    for place, cells in task.mistakes(rows, labels):
        if not count:
            writer.writerow(["image", *cells])
        writer.writerow([items.name(int(indices[place])), *cells.values()])
        count += 1
    write_text(path, text.getvalue())
    return count
