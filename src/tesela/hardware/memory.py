"""Memory estimate of a training, and the batch size that fits.

The activations of one image are counted, not guessed: autograd tells each tensor it keeps for the backward
pass. The batch is the largest power of two that gives about forty steps per epoch, between 32 and 256, and
takes at most half of the free memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

SMALLEST, LARGEST, STEPS_PER_EPOCH = 32, 256, 40


def activation_bytes(model: nn.Module, loss: Callable[[nn.Module], object], *, images: int) -> int:
    """Bytes that autograd keeps per image for the backward pass in fp32.

    The model's running statistics stay as they were.

    Args:
        model: what is trained.
        loss: computes the loss of the model that it gets on ``images`` images.
        images: how many.
    """
    trial = copy.deepcopy(model)
    return kept_bytes(lambda: loss(trial), trial) // max(images, 1)


def kept_bytes(run: Callable[[], object], model: nn.Module) -> int:
    """Bytes that autograd keeps of what ``run`` computes, the weights of ``model`` left out."""
    seen: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    del result
    return sum(seen.values())


def weight_bytes(model: nn.Module, *, ema: bool) -> int:
    """Bytes of all weights, and of the gradients, two moments and the average of those that are trained."""
    return sum(
        parameter.numel() * parameter.element_size() for parameter in model.parameters()
    ) + state_bytes(model, ema=ema)


def state_bytes(model: nn.Module, *, ema: bool) -> int:
    """Bytes of gradients, two moments and the average of the weights that are trained."""
    size = sum(
        parameter.numel() * parameter.element_size()
        for parameter in model.parameters()
        if parameter.requires_grad
    )
    return size * (4 if ema else 3)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be used on the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)


def automatic_batch(images: int, *, per_image: int, free: int) -> int:
    """A batch size for a training set of ``images``."""
    wanted = max(SMALLEST, min(LARGEST, _power_of_two(images // STEPS_PER_EPOCH)))
    fitting = _power_of_two(int(0.5 * free / max(per_image, 1)))
    return max(1, min(wanted, fitting, images))


def _power_of_two(value: int) -> int:
    return 1 << max(0, value.bit_length() - 1)
