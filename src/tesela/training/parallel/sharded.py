"""One update of weights of which each rank holds a part (FSDP2, ``fully_shard``).

Weights, gradients and moments of the optimizer are split along their first axis, those of the objective too
(a decoder, a momentum teacher); a block's weights are gathered when it computes. What is saved is put
together, tensor by tensor: a checkpoint is the one file that a single process writes, and loads on any number
of ranks, shared out or not.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from tesela.core.errors import ConfigError
from tesela.data.batch import Batch
from tesela.hardware.distributed import local_part, placed_like, whole_tensor
from tesela.hardware.ranks import Ranks
from tesela.tasks.objective import Draw, Loss, Objective
from tesela.training.config import TrainConfig
from tesela.training.divergence import is_finite
from tesela.training.optim.optimizer import Optimizers
from tesela.training.parallel.step import ParallelStep
from tesela.training.step import TrainingStep
from tesela.training.stop import Stop

_T = TypeVar("_T")


class Gathering(nn.Module):
    """The root of what is shared out: during a call of it, all weights outside of blocks are whole.

    Blocks gather their weights by themselves, each time they are called; so a task may call a model in parts,
    and read a weight of its objective wherever it likes.

    Args:
        parts: a model, and the objective that is trained with it.
    """

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        for place, part in enumerate(parts):
            self.add_module(str(place), part)

    def forward(self, call: Callable[[], _T]) -> _T:
        """What the call gives."""
        return call()


class ShardedStep(ParallelStep):
    """Forward, backward and update of weights that were ``shard``-ed before their optimizers were built.

    Args:
        model: as of ``ParallelStep``.
        objective: as of ``ParallelStep``.
        optimizers: as of ``ParallelStep``.
        device: as of ``ParallelStep``.
        precision: fp32 or bf16.
        clip_norm: as of ``ParallelStep``.
        ranks: as of ``ParallelStep``.
        roots: of model and objective; then that of the moving average, if there is one.
    """

    whole_everywhere = False

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
        roots: Sequence[FSDPModule],
    ) -> None:
        super().__init__(
            model,
            objective,
            optimizers,
            device=device,
            precision=precision,
            clip_norm=clip_norm,
            ranks=ranks,
        )
        self._roots = roots

    def loss(self, batch: Batch, draw: Draw) -> Loss:
        """Forward only, of this rank's images."""
        root: Any = self._roots[0]
        with self.autocast():
            found: Loss = root(lambda: self.objective.loss(self.model, batch, draw))
        return found

    def backward(self, loss: Loss, *, share: float, last: bool = True) -> None:
        """Add ``share`` of the loss's gradient; after the ``last`` batch of a step all ranks' are summed."""
        self._roots[0].set_requires_gradient_sync(last)
        TrainingStep.backward(self, loss, share=share * self.ranks.count)

    @contextlib.contextmanager
    def scoring(self, stop: Stop) -> Iterator[None]:
        """A context in which the model, its average and the objective can be called, by all ranks alike.

        A signal does not end it, for ranks would be at different calls then.
        """
        del stop
        for root in self._roots:
            root.unshard()
        try:
            yield
        finally:
            for root in self._roots:
                root.reshard()

    def load(self, state: dict[str, Any]) -> None:
        """Take over what ``state`` gave, this rank's part of it."""
        own = self.objective.state_dict()
        whole = state.get("objective", {})
        placed = {name: placed_like(own.get(name), value) for name, value in whole.items()}
        super().load({**state, "objective": placed})

    def finite(self, tensors: list[Tensor]) -> bool:
        """Whether every value on every rank is a number."""
        wrong = not is_finite([local_part(tensor) for tensor in tensors])
        return not self.ranks.sums([wrong])[0]

    def culprit(self, batch: Batch) -> str:
        """Nothing is looked for: ranks would have to go through the layers together."""
        del batch
        return "not looked for, where weights are shared out"

    def whole(self, state: Any) -> Any:
        """The state with whole tensors, on the CPU of rank 0, which writes it; every rank has to ask."""
        if isinstance(state, dict):
            return {name: self.whole(value) for name, value in state.items()}
        if isinstance(state, (list, tuple)):
            return type(state)(self.whole(value) for value in state)
        if not isinstance(state, Tensor):
            return state
        found = whole_tensor(state)
        return found.cpu() if self.ranks.writes else torch.empty(0)


def shard(*parts: nn.Module) -> FSDPModule:
    """Share out the weights of modules that are trained together: of each block by itself, and of the rest.

    Returns:
        The root, through which they are called.
    """
    root = Gathering(*parts)
    kind = next(root.parameters()).device.type  # of itself FSDP would take a GPU that is there
    mesh = init_device_mesh(kind, (dist.get_world_size(),))
    for module in list(root.modules()):
        for block in module if isinstance(module, nn.ModuleList) else ():
            stage = any(isinstance(inner, nn.ModuleList) for inner in block.modules())
            layers = any(True for _ in block.children())
            if layers and not stage and any(True for _ in block.parameters()):
                fully_shard(block, mesh=mesh)
    shared = fully_shard(root, mesh=mesh)
    # the first to be called becomes the root, and what is first gathered in inference mode cannot be trained
    root(lambda: None)
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.unshard()
            module.reshard()
    return shared


def hollow(model: nn.Module) -> nn.Module:
    """A copy of a model whose parameters have shapes and no values, so that it takes no memory."""
    empty = {
        id(one): nn.Parameter(torch.empty_like(one, device="meta"), requires_grad=one.requires_grad)
        for one in model.parameters()
    }
    return copy.deepcopy(model, memo=dict(empty))


def filled(model: nn.Module, sharded: nn.Module) -> nn.Module:
    """The hollow copy with the weights of a model that is shared out; every rank has to ask."""
    state = {name: whole_tensor(tensor).clone() for name, tensor in sharded.state_dict().items()}
    model.load_state_dict(state, assign=True)
    return model


def check_shardable(config: TrainConfig, precision: str) -> None:
    """Refuse what does not work on weights that are shared out.

    Args:
        config: of the run.
        precision: as configured, or as chosen on this machine.

    Raises:
        ConfigError: it says what, and why.
    """
    refused = {
        "--tune lora": (
            config.tune == "lora",
            "an adapted layer's weight is a sum",
            "--tune all, head or bias",
        ),
        "--precision fp16": (precision == "fp16", "each process scales its own loss", "--precision fp32"),
        "--optim.name muon": (config.optim.name == "muon", "it needs whole matrices", "--optim.name adamw"),
    }
    for option, (there, why, instead) in refused.items():
        if there:
            raise ConfigError(
                f"weights cannot be shared out with {option}: {why}",
                hint=f"use {instead}, or --shard none",
            )
