"""Trainable and frozen parts of a network.

    all   every parameter                  head   the head; the body is frozen
    bias  every bias, and the head (Ben Zaken et al. 2022, arXiv 2106.10199)
    lora  adapters of low rank, and the head (Hu et al. 2021, arXiv 2106.09685)

Gradual unfreezing (Howard and Ruder 2018, arXiv 1801.06146) begins with the last of the model's layer groups
and adds the one before it every so many epochs. Frozen parameters have ``requires_grad`` off, so autograd
keeps nothing and computes nothing up to the first layer that is trained; nor is there an optimizer state, a
moving average or a copy in the checkpoint for what stays frozen.

Odd: with a frozen body, and with groups that are still frozen, what comes before the first trained layer runs
in evaluation mode (no dropout there). So does every norm with running statistics whose own weights are
frozen: its statistics are frozen with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tesela.core.errors import ConfigError, WeightsError
from tesela.hardware.distributed import placed_like
from tesela.layers.lora import add_adapters
from tesela.layers.lora_config import LoraConfig
from tesela.models.model import file_names, load_names

#: Norms with running statistics.
RUNNING = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
MODES = ("all", "head", "lora", "bias")


class Tuning:
    """The trained part of a model.

    Args:
        model: with adapters where they are what is trained.
        mode: one of ``MODES``.
        unfreeze: epochs between two groups of layers; 0 trains all that the mode names from the start.

    Attributes:
        mode: as given.
        trainable: names of the parameters that are trained, at the latest at the end.
        changing: names of all tensors of the model's state that training changes.
    """

    def __init__(self, model: nn.Module, mode: str, *, unfreeze: float = 0.0) -> None:
        self.mode, self._unfreeze = mode, unfreeze
        names = [name for name, _ in model.named_parameters()]
        head = model.head_names() if mode != "all" else set()  # type: ignore[operator]
        self.trainable = frozenset(name for name in names if name in head or _is_trained(name, mode))
        statistics = (
            frozenset[str]() if mode == "head" else frozenset(name for name, _ in model.named_buffers())
        )
        self.changing = (self.trainable | statistics) & frozenset(model.state_dict())
        groups: list[list[str]] = model.layer_groups() if unfreeze else [names]  # type: ignore[operator]
        self._groups = [[name for name in group if name in self.trainable] for group in groups]
        self._thaw(model, self.trainable)

    @property
    def is_whole(self) -> bool:
        """Whether every group is trained from the start."""
        return self._unfreeze == 0

    def active(self, epoch: int) -> frozenset[str]:
        """Names of the parameters that are trained in an epoch, counted from 0."""
        if self.is_whole:
            return self.trainable
        known = [group for group in self._groups if group]
        return frozenset(name for group in known[-(1 + int(epoch / self._unfreeze)) :] for name in group)

    def enter(self, model: nn.Module, epoch: int) -> None:
        """Make ``model`` ready for the steps of an epoch.

        Gradients where they are wanted, and each layer's mode.
        """
        self._thaw(model, self.active(epoch))
        self.train(model)

    def train(self, model: nn.Module) -> None:
        """Training mode, but evaluation mode before the first trained layer and for frozen statistics."""
        model.train()
        seen = self.mode != "head" and self.is_whole
        whole = (model, getattr(model, "backbone", None))
        for module in model.modules():
            if module in whole:
                continue
            live = [parameter.requires_grad for parameter in module.parameters()]
            seen = seen or any(live)
            if not seen or (isinstance(module, RUNNING) and not all(live)):
                module.training = False

    def digest(self, model: nn.Module) -> str | None:
        """SHA-256 over names and values of all that training leaves alone.

        None where it changes everything.
        """
        frozen = {name: tensor for name, tensor in model.state_dict().items() if name not in self.changing}
        return digest_of(file_names(model, frozen)) if frozen else None

    def count(self, model: nn.Module) -> int:
        """Number of values that are trained."""
        return sum(
            parameter.numel() for name, parameter in model.named_parameters() if name in self.trainable
        )

    def _thaw(self, model: nn.Module, wanted: Collection[str]) -> None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in wanted)
            if not parameter.requires_grad:
                parameter.grad = None


def _is_trained(name: str, mode: str) -> bool:
    if mode == "all":
        return True
    last = name.rpartition(".")[2]
    return (mode == "bias" and last == "bias") or (mode == "lora" and last in ("lora_a", "lora_b"))


def adapt(model: nn.Module, config: LoraConfig, *, seed: int) -> None:
    """Add adapters to ``model``, drawn from ``seed``.

    Raises:
        ConfigError: the model has no such layers.
    """
    if not add_adapters(model, config, generator=torch.Generator().manual_seed(seed)):
        raise ConfigError(
            f"the model has no layers that lora.targets={','.join(config.targets)} names",
            hint="use --tune all, head or bias with it",
        )


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bytes of tensors, in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def changing_tensors(model: nn.Module, names: Collection[str] | None) -> dict[str, Tensor]:
    """Tensors of a model's state that are among ``names`` (None: all), by their names in files."""
    tensors = {name: tensor for name, tensor in model.state_dict().items() if names is None or name in names}
    return file_names(model, tensors)


def load_changing(model: nn.Module, tensors: Mapping[str, Any], names: Iterable[str] | None) -> None:
    """Take over the tensors that ``changing_tensors`` gave.

    Raises:
        WeightsError: they are not those of the model.
    """
    tensors = load_names(model, tensors)
    wanted = set(model.state_dict() if names is None else names)
    if wanted != tensors.keys():
        different = sorted(wanted ^ tensors.keys())
        raise WeightsError(
            f"the checkpoint is of another model; tensors that differ: {', '.join(different[:4])}",
            hint="begin a new run with another --out",
        )
    own = model.state_dict()
    placed = {name: placed_like(own[name], tensor) for name, tensor in tensors.items()}
    model.load_state_dict(placed, strict=False)
