"""One update of weights of which each rank holds a part (FSDP2, ``fully_shard``).

Weights, gradients and moments of the optimizer are split along their first axis; a block's weights are
gathered when it computes. What is saved is put together, tensor by tensor: a checkpoint is the one file that
a single process writes, and loads on any number of ranks, shared out or not.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from tesela.core.errors import ConfigError
from tesela.data.batch import Batch
from tesela.hardware.distributed import local_part, whole_tensor
from tesela.tasks.objective import Draw, Loss, Objective
from tesela.training.config import TrainConfig
from tesela.training.divergence import is_finite
from tesela.training.parallel.step import ParallelStep
from tesela.training.step import TrainingStep


class ShardedStep(ParallelStep):
    """Forward, backward and update of a model that was ``shard``-ed before its optimizers were built."""

    whole_everywhere = False

    def loss(self, batch: Batch, draw: Draw) -> Loss:
        """Forward only, of this rank's images."""
        with self.autocast():
            return self.objective.loss(self.model, batch, draw)

    def backward(self, loss: Loss, *, share: float, last: bool = True) -> None:
        """Add ``share`` of the loss's gradient; after the ``last`` batch of a step all ranks' are summed."""
        assert isinstance(self.model, FSDPModule)
        self.model.set_requires_gradient_sync(last)
        TrainingStep.backward(self, loss, share=share * self.ranks.count)

    def finite(self, tensors: list[Tensor]) -> bool:
        """Whether every value on every rank is a number."""
        wrong = not is_finite([local_part(tensor) for tensor in tensors])
        return not self.ranks.sums([wrong])[0]

    def culprit(self, batch: Batch) -> str:
        """Nothing is looked for: ranks would have to go through the layers together."""
        del batch
        return "not looked for, where weights are shared out"

    def whole(self, state: Any) -> Any:
        """The state with whole tensors, on the CPU; every rank has to ask."""
        if isinstance(state, dict):
            return {name: self.whole(value) for name, value in state.items()}
        if isinstance(state, (list, tuple)):
            return type(state)(self.whole(value) for value in state)
        return whole_tensor(state).cpu() if isinstance(state, Tensor) else state


def shard(model: nn.Module) -> None:
    """Share out the weights of a model: of each block, of backbone and head, and what is left."""
    blocks = [
        item
        for module in reversed(list(model.modules()))  # inner ones first
        if isinstance(module, nn.ModuleList)
        for item in module
    ]
    for module in (*blocks, *model.children(), model):
        listed = isinstance(module, (nn.ModuleList, FSDPModule))
        if not listed and any(True for _ in module.parameters()):
            fully_shard(module)


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


def check_shardable(config: TrainConfig, objective: Objective) -> None:
    """Refuse what does not work on weights that are shared out.

    Raises:
        ConfigError: it says what.
    """
    reasons = {
        "a loss with weights of its own": any(True for _ in objective.parameters()),
        f"the loss {type(objective).__name__}": not objective.shardable,
        f"--tune {config.tune}": config.tune != "all",
        "--tune-unfreeze": config.tune_unfreeze > 0,
        "--precision fp16": config.precision == "fp16",
        "--few-shot": bool(config.few_shot),
        "--optim.name muon": config.optim.name == "muon",
    }
    for reason, there in reasons.items():
        if there:
            raise ConfigError(
                f"weights cannot be shared out with {reason}", hint="leave it out, or use --shard none"
            )
