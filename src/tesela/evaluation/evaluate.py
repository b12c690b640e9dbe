"""Evaluation of a trained model on a split of a data set, and the two files that keep it.

``evaluation.json`` holds the scores and how they were taken; ``predictions.npz`` what the task keeps of every
image (a classifier's probabilities and true classes) and thumbnails, so that the whole report can be made
again without the data. A run evaluated on the test split of its own data (val without one) writes both into
the run folder; anything else goes to ``evaluations/DATA-SPLIT/`` below it.

Odd: the labels of another data set are matched to the model's by name, never by number.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tesela.checkpoints.cache import bundle_of
from tesela.core.config import build, read_yaml
from tesela.core.errors import DataError, UnknownNameError, UsageError
from tesela.core.files import file_atomic, read_json, write_json
from tesela.core.progress import progress_bar
from tesela.core.version import __version__
from tesela.data.config import DataConfig
from tesela.data.loader import Loader
from tesela.data.open import open_source
from tesela.data.source import Source
from tesela.evaluation.pictures import choose_pictures
from tesela.evaluation.rows import Arrays, RowSpool
from tesela.hardware.autocast import autocast
from tesela.hardware.device import choose_device
from tesela.hardware.machine import processor
from tesela.layers.attention.attention import set_attention_kernel
from tesela.models.bundle import load_bundle
from tesela.runs.folder import Run
from tesela.runtime.predictor import described
from tesela.tasks.catalog import find_task

if TYPE_CHECKING:
    from rich.console import Console

    from tesela.data.batch import Batch
    from tesela.data.source import Items
    from tesela.imaging.spec import ImageSpec
    from tesela.models.bundle import BundleInfo
    from tesela.models.model import Model
    from tesela.tasks.task import Scorer, Task

EVALUATION_FORMAT = "tesela-evaluation/1"
MOST_CLASSES_IN_JSON = 100
"""Above this many classes evaluation.json has no confusion matrix; predictions.npz has all it is made of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Scores of a model on a split.

    Attributes:
        scores: the task's scores, plain values.
        indices: (N,) which image of the split each row is.
        seconds: wall time of the passes through the model, loading included.
    """

    scores: dict[str, Any]
    indices: npt.NDArray[np.int64]
    seconds: float


def evaluate_model(
    model: nn.Module,
    loader: Loader,
    task: Task,
    scorer: Scorer,
    *,
    spool: RowSpool | None = None,
    precision: str = "fp32",
    kernel: str | None = None,
    ways: Ways | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Run ``model`` over everything ``loader`` gives and score it; the model is left in the mode it was in.

    Args:
        model: what is evaluated.
        loader: batches of normalised images, unshuffled, none dropped.
        task: says what is kept of every image.
        scorer: counts batch after batch.
        spool: where the task's rows go, if anywhere.
        precision: ``fp32``, or ``bf16`` and ``fp16`` for autocast.
        kernel: attention kernel during the evaluation; None leaves the model's own.
        ways: another way to look at each image, by the task's ``infer``.
        console: where a progress bar goes.

    Raises:
        DataError: there is no image.
    """
    device = next(model.parameters()).device
    indices = [np.zeros(0, np.int64)]
    start = time.perf_counter()
    with (
        evaluation_mode(model, kernel),
        torch.inference_mode(),
        progress_bar(console, "evaluate", len(loader)) as bar,
    ):
        for batch in loader.epoch(0):
            moved = batch.to(device)
            with autocast(device, precision):
                outputs = model(moved.images) if ways is None else ways.outputs(model, task, moved)
            scorer.update(moved, outputs)
            if spool is not None:
                spool.append(task.rows(moved, outputs))
            indices.append(batch.indices.numpy())
            bar.advance()
    if len(indices) == 1:
        raise DataError(
            "there is no image to evaluate on", hint="choose a split that has images with --split"
        )
    seconds = time.perf_counter() - start
    return Evaluation(scores=scorer.result(), indices=np.concatenate(indices), seconds=seconds)


@dataclass(frozen=True, slots=True)
class Ways:
    """Another way to look at images than once, as a whole.

    Attributes:
        items: the images.
        spec: the model's view.
        options: of the task's ``infer``.
    """

    items: Items
    spec: ImageSpec
    options: Mapping[str, Any]

    def outputs(self, model: nn.Module, task: Task, batch: Batch) -> list[torch.Tensor]:
        """Outputs of each image of a batch, at its own size."""
        device = batch.images.device

        def compute(views: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            found: npt.NDArray[np.float32] = model(torch.from_numpy(views).to(device)).float().cpu().numpy()
            return found

        return [
            torch.from_numpy(
                task.infer(
                    compute,
                    self.items.read(index, channels=self.spec.channels),
                    self.spec,
                    **self.options,
                )
            )
            for index in batch.indices.tolist()
        ]


@contextlib.contextmanager
def evaluation_mode(model: nn.Module, kernel: str | None) -> Iterator[None]:
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
    path: Path | str | Model,
    *,
    data: str | Source | None = None,
    split: str = "test",
    batch_size: int = 256,
    device: str = "auto",
    precision: str = "auto",
    kernel: str | None = None,
    console: Console | None = None,
    formats: Sequence[str] | None = None,
    max_pixels: int | None = None,
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
        console: where a progress bar goes.
        formats: the only image formats to open; by default those that the run was trained with.
        max_pixels: most pixels of an image; by default what the run was trained with.
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
        model, info = load_bundle(bundle_of(path), device=device)
    else:
        model, info = path, described(path)
        device = next(model.parameters()).device.type
    task = find_task(info.task)
    ways = {name: options.pop(name) for name in list(options) if name in task.infer_options}
    check_options(task, options)
    precision = recorded_precision(run, device) if precision == "auto" else precision
    limits = {"formats": formats and list(formats), "max_pixels": max_pixels}
    config = _settings(run, data, {name: value for name, value in limits.items() if value is not None})
    source = data if isinstance(data, Source) else _open(config, task, own=data is None)
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
            "precision": precision,
            "device": device,
            **ways,
        }
        summary = summarise(evaluation, info, model, about)
        chosen = [name for name, wanted in ways.items() if wanted]
        own = data is None and split == main_split(source) and not chosen
        folder = _folder_for(run, own=own, name="-".join([source.name, split, *chosen]))
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


def main_split(source: Source) -> str:
    """The split that a run's scores are about: test, or val without a test split."""
    return "test" if len(source.splits.get("test", ())) else "val"


def _settings(run: Run | None, data: str | Source | None, limits: Mapping[str, Any]) -> DataConfig:
    """The run's own data, or other data split in the same way, so that test images stay such."""
    recorded = read_yaml(run.config).get("data", {}) if run is not None and run.exists() else {}
    recorded = {**recorded, **limits} if recorded or data is not None else {}
    if data is not None:
        other = data if isinstance(data, str) else data.name
        return build(DataConfig, {**recorded, "source": other, "subset": None, "per_class": None})
    if not recorded:
        raise UsageError(
            f"{'the model' if run is None else run.path} does not say what it was trained on",
            hint="name the data: tesela evaluate RUN DATA",
        )
    return build(DataConfig, recorded)


def _open(config: DataConfig, task: Task, *, own: bool) -> Source:
    try:
        return open_source(config.source, config=config, targets=task.targets)
    except UsageError as error:
        if not own:
            raise
        raise UsageError(
            f"the run's own data: {error.message}", hint="name where it is now: tesela evaluate RUN DATA"
        ) from error


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
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
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


def _folder_for(run: Run | None, *, own: bool, name: str) -> Path | None:
    if run is None or not run.exists():
        return None
    return (
        run.path if own else run.path / "evaluations" / (re.sub(r"[^\w.-]+", "_", name).strip("._") or "data")
    )
