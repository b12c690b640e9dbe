"""Dense layers in bf16 with weights in oneDNN's own order, for inference on a CPU.

oneDNN multiplies by a weight in blocks; from a plain one it makes them at every call, which costs a third of
small batches. The activation stays an operation of its own: fused into the product it is slower in bf16.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tesela.hardware.torch_private import linear_bf16, packed_weight
from tesela.layers.attention.cpu_bf16 import Dense


class PackedDense(nn.Module):
    """A dense layer in bf16 whose weight is packed: (..., I) to (..., O).

    Args:
        weight: as ``packed_weight`` gives it.
        bias: (O,), bf16, or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        # no parameters: a packed weight has no place in a state dictionary
        self._weight, self._bias = weight, bias

    def forward(self, values: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        return linear_bf16(values, self._weight, self._bias)


def pack_dense(model: nn.Module, *, rows: int) -> None:
    """Replace the dense layers of a model in bf16 on the CPU, in place; it can no longer be trained.

    Nothing changes where the machine or PyTorch cannot pack.

    Args:
        model: in bf16.
        rows: tokens of an image times images, as is usual.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            # subclasses may do more than their weight says
            exact = type(child) in (Dense, nn.Linear)
            if not exact or not isinstance(child, nn.Linear) or child.weight.dtype != torch.bfloat16:
                continue
            packed = packed_weight(child.weight, rows)
            if packed is not None:
                setattr(
                    parent, name, PackedDense(packed, None if child.bias is None else child.bias.detach())
                )
