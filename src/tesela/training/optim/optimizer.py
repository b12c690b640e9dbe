"""Optimizers by name, without weight decay on biases, norms and named tables.

Fused kernels are used on CPU and GPU: they are elementwise, so their result does not depend on the number of
threads. Odd: Muon (orthogonalised momentum, arXiv 2502.16982) serves only the matrices inside the body; AdamW
takes the rest, so there may be two optimizers behind one face.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tesela.core.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """How weights are updated."""

    name: Literal["adamw", "adam", "sgd", "muon"] = "adamw"
    """adamw, adam, sgd with momentum, or muon for matrices with adamw for the rest."""
    lr: float = 1e-3
    """Highest learning rate; the schedule multiplies it."""
    weight_decay: float = 0.05
    """Decoupled for adamw and muon, added to the gradient for adam and sgd; biases, norms and positions are
    left out."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.999
    """Decay of the second moment."""
    eps: float = 1e-8
    """Added to the denominator."""
    momentum: float = 0.9
    """With sgd and muon: share of the last update that is kept."""
    nesterov: bool = False
    """With sgd: look ahead."""
    layer_decay: float = 1.0
    """Each group of layers takes this factor of the learning rate of the group above it, the head the whole
    (arXiv 2106.08254)."""

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ConfigError(f"optim.lr must be above 0, not {self.lr}", hint="1e-3 suits adamw, 0.1 sgd")
        if self.weight_decay < 0:
            raise ConfigError(f"optim.weight_decay cannot be {self.weight_decay}", hint="give 0 or more")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and 0 <= self.momentum < 1):
            raise ConfigError(
                "optim.beta1, beta2 and momentum must lie in 0..1", hint="0.9, 0.999 and 0.9 are usual"
            )
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(
                f"optim.layer_decay must lie in 0..1, not {self.layer_decay}",
                hint="0.75 is usual, 1 turns it off",
            )
        if self.nesterov and (self.name != "sgd" or self.momentum == 0):
            raise ConfigError(
                "optim.nesterov needs sgd with momentum",
                hint="drop it, or give --optim.name sgd --optim.momentum 0.9",
            )


class Optimizers:
    """One or two optimizers behind one face."""

    def __init__(self, parts: list[torch.optim.Optimizer], *, lr: float) -> None:
        self.parts = parts
        self._highest = self.lr = lr

    def set_lr(self, factor: float) -> float:
        """Set the learning rate to ``factor`` of the highest one, less where it decays by layer."""
        self.lr = self._highest * factor
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = self.lr * group.get("layer_factor", 1.0)
        return self.lr

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state(self) -> list[dict[str, Any]]:
        """What each optimizer remembers, for a checkpoint."""
        return [part.state_dict() for part in self.parts]

    def load(self, state: list[dict[str, Any]]) -> None:
        """Take over what ``state`` gave."""
        for part, saved in zip(self.parts, state, strict=True):
            owners = [own for group in part.param_groups for own in group["params"]]
            moments = {index: placed(values, owners[index]) for index, values in saved["state"].items()}
            part.load_state_dict({**saved, "state": moments})


def placed(moments: dict[str, Any], owner: torch.Tensor) -> dict[str, Any]:
    """What an optimizer remembers of a weight, shared out as the weight is."""
    from tesela.hardware.distributed import placed_like

    return {
        name: placed_like(owner, value) if getattr(value, "shape", None) == owner.shape else value
        for name, value in moments.items()
    }


def build_optimizers(
    model: nn.Module, config: OptimConfig, *, objective: nn.Module | None = None
) -> Optimizers:
    """Optimizers over the trained parameters of ``model`` and of an objective that has its own."""
    own = (
        []
        if objective is None
        else [(f"objective.{name}", part) for name, part in objective.named_parameters()]
    )
    named = [
        (name, parameter) for name, parameter in [*model.named_parameters(), *own] if parameter.requires_grad
    ]
    no_decay, factors = no_decay_names(model), layer_factors(model, config.layer_decay)
    no_decay |= {name for name, parameter in own if parameter.ndim <= 1}
    if config.name != "muon":
        return Optimizers(
            [_elementwise(config.name, _groups(named, no_decay, factors, config), config)], lr=config.lr
        )
    head: set[str] = getattr(model, "head_names", set)()
    matrices = [
        (name, parameter)
        for name, parameter in named
        if parameter.ndim == 2 and name not in no_decay | head and not name.startswith("objective.")
    ]
    inner = {name for name, _ in matrices}
    rest = [(name, parameter) for name, parameter in named if name not in inner]
    parts = [_muon(_groups(matrices, no_decay, factors, config), config)] if matrices else []
    if rest:
        parts.append(_elementwise("adamw", _groups(rest, no_decay, factors, config), config))
    return Optimizers(parts, lr=config.lr)


def layer_factors(model: nn.Module, decay: float) -> dict[str, float]:
    """Share of the learning rate for each parameter.

    ``decay`` once for every group of layers above its own; empty where it is 1.
    """
    groups = getattr(model, "layer_groups", None)
    if decay == 1.0 or not callable(groups):
        return {}
    found: list[list[str]] = groups()
    return {name: decay ** (len(found) - 1 - place) for place, group in enumerate(found) for name in group}


def no_decay_names(model: nn.Module) -> set[str]:
    """Parameters without weight decay: vectors and scalars, and what the model's ``no_decay`` names."""
    own = getattr(model, "no_decay", None)
    named: set[str] = set(own()) if callable(own) else set()
    return named | {name for name, parameter in model.named_parameters() if parameter.ndim <= 1}


def _groups(
    named: Iterable[tuple[str, torch.Tensor]],
    no_decay: set[str],
    factors: dict[str, float],
    config: OptimConfig,
) -> list[dict[str, Any]]:
    """Parameter groups by learning-rate factor, lowest layers first; decayed before others."""
    found: dict[tuple[float, bool], list[torch.Tensor]] = {}
    for name, parameter in named:
        found.setdefault((factors.get(name, 1.0), name in no_decay), []).append(parameter)
    groups: list[dict[str, Any]] = []
    for (factor, free), parameters in sorted(found.items(), key=lambda item: item[0]):
        group: dict[str, Any] = {"params": parameters, "weight_decay": 0.0 if free else config.weight_decay}
        groups.append({**group, "layer_factor": factor} if factors else group)
    return groups


def _elementwise(name: str, groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    import torch

    tensors = [tensor for group in groups for tensor in group["params"]]
    fused = all(tensor.device.type in ("cpu", "cuda") and tensor.is_floating_point() for tensor in tensors)
    if name == "sgd":
        return torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=fused
        )
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=fused)


def _muon(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    import torch

    return torch.optim.Muon(
        groups,
        lr=config.lr,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        adjust_lr_fn="match_rms_adamw",
    )
