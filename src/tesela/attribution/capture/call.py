"""Run a third-party model without side effects, and find the logits in its output.

``undisturbed`` puts the model in evaluation mode by its flags alone and gives flags, random state and
gradients back as they were, also when the model raises. Nothing is hooked. Compiled parts run uncompiled
inside. Weights in half precision are replaced by float32 copies for the length of a call: gradients of
attention would vanish in them.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tesela.core.errors import UsageError

_HALF = (torch.float16, torch.bfloat16)
#: Where outputs that are objects or dictionaries keep the scores, the first that is there.
_SCORES = ("logits", "pooler_output", "out")


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, out of ``torch.compile`` and data-parallel wrappers.

    Raises:
        UsageError: it is a TorchScript program, whose attention cannot be seen.
    """
    while True:
        original = getattr(model, "_orig_mod", None)
        if isinstance(original, nn.Module):
            model = original
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        else:
            break
    if isinstance(model, torch.jit.ScriptModule):
        raise UsageError(
            "a TorchScript program cannot be explained", hint="give the model that it was made from"
        )
    return model


def call(model: nn.Module, images: Tensor, **keywords: Any) -> Tensor:
    """The model's logits, (B, K) or (B, K, h, w), in float32 at least, whatever it wraps them in.

    Args:
        model: any classifier or segmenter.
        images: (B, C, H, W); its type becomes that of the weights, half precision apart.
        **keywords: handed on.

    Raises:
        UsageError: no such output can be found.
    """
    half = {name: one.float() for name, one in _tensors(model) if one.dtype in _HALF}
    output = (
        functional_call(model, half, (images,), keywords, tie_weights=True)
        if half
        else model(images, **keywords)
    )
    found = _scores(output)
    if found is None or found.ndim not in (2, 4):
        raise UsageError(
            "only classifiers, whose output is (B, K), and segmenters, (B, K, h, w), can be explained",
            hint="give a model trained with the task classify",
        )
    return found


def computing_type(model: nn.Module) -> torch.dtype | None:
    """The floating type that ``call`` computes in.

    That of the weights, float32 in place of half precision.
    """
    first = next((one.dtype for one in model.parameters() if one.is_floating_point()), None)
    return torch.float32 if first in _HALF else first


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _scores(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    for name in _SCORES:
        value = output.get(name) if isinstance(output, dict) else getattr(output, name, None)
        if isinstance(value, Tensor):
            return value
    if isinstance(output, (tuple, list)):
        return next((value for value in output if isinstance(value, Tensor)), None)
    return None


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, no inference mode.

    Outside, flags, random state and gradients as before, whatever happens.
    """
    flags = [(module, module.training) for module in model.modules()]
    held = [(parameter, parameter.grad, parameter.requires_grad) for parameter in model.parameters()]
    devices = sorted(
        {parameter.device.index or 0 for parameter, *_ in held if parameter.device.type == "cuda"}
    )
    with torch.inference_mode(False), torch.random.fork_rng(devices=devices), _uncompiled():
        try:
            for module, _ in flags:
                module.training = False
            yield
        finally:
            for module, training in flags:
                module.training = training
            for parameter, gradient, required in held:
                parameter.grad = gradient
                if parameter.requires_grad != required:
                    parameter.requires_grad_(required)


def _uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Compiled functions run as they were written.

    Nothing can be compiled where the compiler was never imported.
    """
    if "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    eager: contextlib.AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return eager
