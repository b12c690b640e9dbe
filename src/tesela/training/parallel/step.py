"""One update of the weights by several ranks, each of which computes its part of the batch.

The loss of a batch is the mean of the ranks' losses, weighted with their images. DistributedDataParallel
averages gradients, so that a rank's loss is multiplied with the number of ranks. It wraps model and loss
together, for an objective may call a model several times, or parts of it, before it is differentiated.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tesela.core.errors import ConfigError
from tesela.data.batch import Batch
from tesela.hardware.ranks import Ranks
from tesela.layers.norm import BatchNorm
from tesela.tasks.objective import Draw, Loss, Objective
from tesela.training.optim.optimizer import Optimizers
from tesela.training.step import TrainingStep

#: The option not to copy buffers at each pass, by its name in this version of PyTorch.
_OPTIONS: dict[str, Any] = {
    name: False
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel).parameters
}
if len(_OPTIONS) > 1:
    del _OPTIONS["broadcast_buffers"]  # the older name


class LossModule(nn.Module):
    """A model and its loss, as one module that gives the loss of a batch."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch, draw: Draw) -> Loss:
        """The loss of the batch."""
        return self.objective.loss(self.model, batch, draw)


class ParallelStep(TrainingStep):
    """Forward, backward and update of a batch that lies on several ranks.

    Args:
        model: as of ``TrainingStep``, with the same weights on every rank.
        objective: as of ``TrainingStep``.
        optimizers: as of ``TrainingStep``.
        device: where the model is.
        precision: fp32, bf16 or fp16.
        clip_norm: longest gradient; 0 turns clipping off.
        ranks: this one and the others.

    Raises:
        ConfigError: a layer keeps statistics of a batch that cannot be summed over ranks.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizers: Optimizers,
        *,
        device: torch.device,
        precision: str,
        clip_norm: float,
        ranks: Ranks,
    ) -> None:
        super().__init__(
            model, objective, optimizers, device=device, precision=precision, clip_norm=clip_norm
        )
        refuse_own_statistics(model)
        self.ranks = ranks
        self._trained: tuple[int, ...] = ()
        self._wrapped: DistributedDataParallel | None = None
        self._whole: list[int] = []

    def sizes(self, group: Sequence[Batch]) -> list[int]:
        """Images of each batch, over all ranks."""
        return [round(size) for size in self.ranks.sums([float(len(batch)) for batch in group])]

    def loss(self, batch: Batch, draw: Draw) -> Loss:
        """Forward only, of this rank's images."""
        with self.autocast():
            found: Loss = self._module()(batch, draw)
        return found

    def backward(self, loss: Loss, *, share: float, last: bool = True) -> None:
        """Add ``share`` of the loss's gradient; after the ``last`` batch of a step all ranks' are summed."""
        with contextlib.nullcontext() if last else self._module().no_sync():
            super().backward(loss, share=share * self.ranks.count)

    def pooled(self, losses: Sequence[tuple[Loss, int]], sizes: Sequence[int]) -> list[Loss]:
        """The losses of whole batches, of those of this rank's images."""
        names = [list(loss.logs) for loss, _ in losses]
        flat = [
            float(value.detach()) * images
            for loss, images in losses
            for value in (loss.value, *loss.logs.values())
        ]
        summed = iter(self.ranks.sums(flat))
        return [
            Loss(
                torch.tensor(next(summed) / size, dtype=torch.float64),
                {name: torch.tensor(next(summed) / size, dtype=torch.float64) for name in logs},
            )
            for logs, size in zip(names, sizes, strict=True)
        ]

    def _module(self) -> DistributedDataParallel:
        """Model and loss, wrapped again where other weights are trained than before."""
        trained = tuple(id(one) for one in self.model.parameters() if one.requires_grad)
        if self._wrapped is None or trained != self._trained:
            self._trained = trained
            self._wrapped = DistributedDataParallel(
                LossModule(self.model, self.objective),
                **_OPTIONS,
                gradient_as_bucket_view=True,
                find_unused_parameters=True,
            )
        return self._wrapped


def refuse_own_statistics(model: nn.Module) -> None:
    """Refuse batch statistics of another library's layers, which would be those of a rank alone.

    Raises:
        ConfigError: it names the layer.
    """
    kinds: tuple[Any, ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    for name, module in model.named_modules():
        if isinstance(module, kinds) and not isinstance(module, BatchNorm):
            raise ConfigError(
                f"{name} keeps statistics of a batch, and several processes would each have their own",
                hint="train this model with one process",
            )
