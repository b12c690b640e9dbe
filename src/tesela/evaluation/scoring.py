"""Scoring: one pass of a trained model over a split."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tesela.core.errors import DataError
from tesela.core.progress import progress_bar
from tesela.data.loader import Loader
from tesela.evaluation.model import device_of
from tesela.evaluation.rows import RowSpool
from tesela.hardware.autocast import autocast
from tesela.layers.attention.attention import set_attention_kernel

if TYPE_CHECKING:
    from rich.console import Console

    from tesela.data.batch import Batch
    from tesela.data.source import Items
    from tesela.imaging.spec import ImageSpec
    from tesela.tasks.task import Scorer, Task


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
    device = device_of(model)
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
