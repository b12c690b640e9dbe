"""Scores of a trained classifier on a split of a data set, and the two files they are kept in.

``evaluation.json`` holds the scores and how they were taken; ``predictions.npz`` the probabilities, true classes and
thumbnails, so that every score and the whole report can be made again without the data. A run evaluated on the test split
of its own data (val where there is none) writes both into the run folder; anything else goes to ``evaluations/DATA-SPLIT/`` below it.

Odd: the labels of another data set are matched to the model's by name, never by number.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tesela.checkpoints.cache import bundle_of
from tesela.core.config import build, read_yaml
from tesela.core.errors import DataError, UnknownNameError, UsageError, suggestion
from tesela.core.files import read_json, write_atomic, write_json
from tesela.core.progress import progress_bar
from tesela.core.version import __version__
from tesela.data.config import DataConfig
from tesela.data.loader import Loader
from tesela.data.open import open_source
from tesela.evaluation.pictures import choose_pictures
from tesela.hardware.autocast import autocast
from tesela.hardware.device import choose_device
from tesela.layers.attention.attention import set_attention_kernel
from tesela.metrics.classification import TOP, classification_scores
from tesela.models.bundle import load_bundle
from tesela.runs.folder import Run

if TYPE_CHECKING:
    from rich.console import Console

    from tesela.data.source import Items, Source
    from tesela.models.bundle import BundleInfo

FORMAT = "tesela-evaluation/1"
MOST_CLASSES_IN_JSON = 100
"""Above this many classes evaluation.json leaves out the confusion matrix; predictions.npz still has all it is made of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What a model said about every image of a split, and its scores.

    Attributes:
        scores: see ``tesela.metrics.classification.classification_scores``.
        probabilities: (N, K) float32.
        targets: (N,) the true classes, by the model's numbers.
        indices: (N,) which image of the split each row is.
        seconds: wall time of the passes through the model, loading included.
    """

    scores: dict[str, Any]
    probabilities: npt.NDArray[np.float32]
    targets: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    seconds: float


def evaluate_model(
    model: nn.Module,
    loader: Loader,
    labels: Sequence[str],
    *,
    precision: str = "fp32",
    kernel: str | None = None,
    classes: npt.NDArray[np.int64] | None = None,
    top: int = TOP,
    console: Console | None = None,
) -> Evaluation:
    """Run ``model`` over everything ``loader`` gives and score it; the model is left in the mode it was in.

    Args:
        model: a classifier over ``labels``.
        loader: batches of normalised images, unshuffled, none dropped.
        labels: the K class names, in the order of the logits.
        precision: ``fp32``, or ``bf16`` and ``fp16`` for autocast; probabilities are float64 from the logits on.
        kernel: attention kernel during the evaluation; None leaves the model's own.
        classes: the model's class for each of the data's, where they differ.
        top: another k of top-k accuracy.
        console: where a progress bar goes.
    """
    device = next(model.parameters()).device
    logits, targets, indices = [], [], []
    start = time.perf_counter()
    with (
        _as_judge(model, kernel),
        torch.inference_mode(),
        progress_bar(console, "evaluate", len(loader)) as bar,
    ):
        for batch in loader.epoch(0):
            with autocast(device, precision):
                logits.append(model(batch.images.to(device)).double().cpu())
            targets.append(batch.targets)
            indices.append(batch.indices)
            bar.advance()
    if not logits:
        raise DataError(
            "there is no image to evaluate on", hint="choose a split that has images with --split"
        )
    probabilities = torch.cat(logits).softmax(1).numpy()
    true = torch.cat(targets).numpy().astype(np.int64)
    true = true if classes is None else classes[true]
    return Evaluation(
        scores=classification_scores(probabilities, true, labels, top=top),
        probabilities=probabilities.astype(np.float32),
        targets=true,
        indices=torch.cat(indices).numpy().astype(np.int64),
        seconds=time.perf_counter() - start,
    )


@contextlib.contextmanager
def _as_judge(model: nn.Module, kernel: str | None) -> Iterator[None]:
    """Evaluation mode and the wanted kernel inside the block; every module is put back as it was."""
    modes = [(module, module.training) for module in model.modules()]
    kernels = [
        (module, module.kernel)
        for module in model.modules()
        if isinstance(getattr(module, "kernel", None), str)
    ]
    try:
        model.eval()
        if kernel is not None:
            set_attention_kernel(model, kernel)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for module, name in kernels:
            module.kernel = name


def evaluate_run(
    path: Path | str,
    *,
    data: str | None = None,
    split: str = "test",
    top: int = TOP,
    batch_size: int = 256,
    device: str = "auto",
    precision: str = "auto",
    kernel: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Evaluate a run or bundle and keep what was found.

    Args:
        path: a run folder, a bundle, or a foreign checkpoint (see ``tesela.checkpoints``).
        data: another data set, or the run's own where None.
        split: ``train``, ``val`` or ``test``.
        top: another k of top-k accuracy.
        batch_size: images at a time; changes the speed only.
        device: ``cpu``, ``cuda``, ``mps`` or ``auto``.
        precision: see ``evaluate_model``; ``auto`` is what the run was trained with, fp32 for a bundle.
        kernel: see ``evaluate_model``.
        console: where a progress bar goes.

    Returns:
        what evaluation.json holds, and under ``folder`` where it lies (None for a bare bundle, which is left as it is).

    Raises:
        UsageError: no such run, no data named for a bundle, no such split.
        DataError: the data has classes that the model does not know.
    """
    run, device = Run(path), choose_device(device).type
    model, info = load_bundle(bundle_of(path), device=device)
    precision = recorded_precision(run, device) if precision == "auto" else precision
    config = _settings(run, data)
    source = _open(config, own=data is None)
    if split not in source.splits:
        raise UnknownNameError("split", split, source.splits)
    items = source.splits[split]
    loader = _loader(items, info, config, batch_size=batch_size, device=device)
    evaluation = evaluate_model(
        model,
        loader,
        info.labels,
        precision=precision,
        kernel=kernel,
        classes=match_labels(source.labels, info.labels),
        top=top,
        console=console,
    )
    loader.close()
    unreadable = [
        {"name": image.name, "code": image.code, "message": image.message} for image in loader.unreadable
    ]
    about = {
        "data": source.name,
        "split": split,
        "unreadable": unreadable,
        "precision": precision,
        "device": device,
    }
    summary = summarise(evaluation, info, model, about)
    folder = _folder_for(run, own=data is None and split == main_split(source), name=f"{source.name}-{split}")
    if folder is not None:
        save_evaluation(folder, summary, evaluation, items, info)
    return {**summary, "folder": folder}


def recorded_precision(run: Run, device: str) -> str:
    """The number format that the run was trained with, where ``device`` has it; fp32 where nothing is recorded."""
    found = str(read_json(run.choices).get("precision", "fp32")) if run.choices.is_file() else "fp32"
    return "fp32" if found == "fp16" and device == "cpu" else found


def main_split(source: Source) -> str:
    """The split that a run's scores are about: test, or val where there is no test split."""
    return "test" if len(source.splits.get("test", ())) else "val"


def _settings(run: Run, data: str | None) -> DataConfig:
    """The run's own data, or the named one split as the run split its data, so that test images stay test images."""
    recorded = read_yaml(run.config).get("data", {}) if run.exists() else {}
    if data is not None:
        return build(DataConfig, {**recorded, "source": data, "subset": None, "per_class": None})
    if not recorded:
        raise UsageError(
            f"{run.path} does not say what it was trained on", hint="name the data: tesela evaluate RUN DATA"
        )
    return build(DataConfig, recorded)


def _open(config: DataConfig, *, own: bool) -> Source:
    try:
        return open_source(config.source, config=config)
    except UsageError as error:
        if not own:
            raise
        raise UsageError(
            f"the run's own data: {error.message}", hint="name where it is now: tesela evaluate RUN DATA"
        ) from error


def _loader(items: Items, info: BundleInfo, config: DataConfig, *, batch_size: int, device: str) -> Loader:
    return Loader(
        items,
        info.image,
        batch_size=batch_size,
        workers=config.workers,
        cache=config.cache,
        device=device,
        max_unreadable=config.max_unreadable,
    )


def match_labels(found: Sequence[str], known: Sequence[str]) -> npt.NDArray[np.int64] | None:
    """The model's class number for each of the data's classes, by name; None where they are the same already.

    Raises:
        DataError: the data has classes that the model does not know.
    """
    if list(found) == list(known):
        return None
    unknown = [label for label in found if label not in known]
    if unknown:
        names = ", ".join(repr(label) for label in unknown[:5]) + (
            f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        )
        raise DataError(
            f"the model does not know {len(unknown)} of the data's {len(found)} classes: {names}",
            hint=suggestion(unknown[0], known),
        )
    return np.array([list(known).index(label) for label in found], dtype=np.int64)


def summarise(
    evaluation: Evaluation, info: BundleInfo, model: nn.Module, about: dict[str, Any]
) -> dict[str, Any]:
    """What evaluation.json holds: how the scores were taken, then the scores."""
    count = len(evaluation.targets)
    scores = dict(evaluation.scores)
    if len(info.labels) > MOST_CLASSES_IN_JSON:
        scores["confusion"] = None
    return {
        "format": FORMAT,
        "model": info.name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "labels": list(info.labels),
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
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def processor() -> str:
    """The processor's name where the system tells it."""
    with contextlib.suppress(OSError):
        found = re.search(
            r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE
        )
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine()


def save_evaluation(
    folder: Path, summary: dict[str, Any], evaluation: Evaluation, items: Items, info: BundleInfo
) -> None:
    """Write evaluation.json and predictions.npz into ``folder``, each atomically."""
    pictures = choose_pictures(
        evaluation.probabilities, evaluation.targets, evaluation.indices, items, info.image
    )
    stream = io.BytesIO()
    rows: dict[str, Any] = {
        "probabilities": evaluation.probabilities,
        "targets": evaluation.targets,
        "indices": evaluation.indices,
    }
    np.savez_compressed(stream, allow_pickle=False, **rows, **pictures)
    write_atomic(Run(folder).predictions, stream.getvalue())
    write_json(Run(folder).evaluation, summary)


def _folder_for(run: Run, *, own: bool, name: str) -> Path | None:
    if not run.exists():
        return None
    return (
        run.path if own else run.path / "evaluations" / (re.sub(r"[^\w.-]+", "_", name).strip("._") or "data")
    )


__all__ = ["Evaluation", "evaluate_model", "evaluate_run", "match_labels", "save_evaluation", "summarise"]
