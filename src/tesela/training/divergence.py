"""Diagnosis of a loss that is not finite: the first tensor that is not, in order."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tesela.core.errors import DivergedError
from tesela.data.batch import Batch


def is_finite(tensors: list[Tensor]) -> bool:
    """Whether every value of every tensor is a number."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors if tensor.is_floating_point())


def first_culprit(model: nn.Module, batch: Batch) -> str:
    """The first tensor with NaN or infinity among input, targets, parameters and layer outputs."""
    if not is_finite([batch.images]):
        return "the input images"
    if not is_finite([batch.targets]):
        return "the targets"
    for name, parameter in model.named_parameters():
        if not is_finite([parameter]):
            return f"the parameter {name}"
    return _first_output(model, batch.images) or "the loss itself"


def diverged(
    value: float, *, step: int, epoch: int, lr: float, culprit: str, saved: int | None
) -> DivergedError:
    """The error that stops the run."""
    kept = f"the checkpoint of step {saved} is kept" if saved is not None else "no checkpoint was saved yet"
    return DivergedError(
        f"the loss became {value} at step {step} (epoch {epoch}, learning rate {lr:.3g}): "
        f"the first tensor that is not finite is {culprit}; {kept}",
        hint="begin again with a lower --optim.lr, a longer --schedule.warmup, or --precision fp32",
    )


def _first_output(model: nn.Module, images: Tensor) -> str | None:
    found: list[str] = []

    def watch(name: str) -> object:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            del module, inputs
            if isinstance(output, Tensor) and not found and not is_finite([output]):
                found.append(name)

        return hook

    handles = [
        module.register_forward_hook(watch(name))
        for name, module in model.named_modules()
        if name and not list(module.children())
    ]
    try:
        with torch.no_grad():
            logits = model(images)
    finally:
        for handle in handles:
            handle.remove()
    if found:
        return f"the output of layer {found[0]}"
    return None if is_finite([logits]) else "the logits"
