"""Gradients that a graph can hold: of convolutions, and of bilinear resizing.

Odd: PyTorch's own gradient of a resizing scatters sums, and engines add several values of one place in
parallel without a lock: the result differs from run to run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tesela.core.errors import WeightsError
from tesela.layers.position.resize import resize_matrices


class ProductResize(TorchFunctionMode):
    """Bilinear resizing to a size, without aligned corners, as a matrix product for each axis."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The product in the place of ``F.interpolate``; every other function as it is."""
        given = dict(kwargs or {})
        if func is F.interpolate and given.get("mode") == "bilinear" and given.get("size") is not None:
            (images,), size = args, given["size"]
            old = (images.shape[2], images.shape[3])
            down, right = resize_matrices(old, (size[0], size[1]), mode="bilinear", like=images)
            return down @ images @ right.mT
        return func(*args, **given)


def convolution_backward(
    gradient: Tensor,
    images: Tensor,
    weight: Tensor,
    bias_sizes: list[int] | None,  # noqa: ARG001
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],  # noqa: ARG001
    groups: int,
    wanted: list[bool],
) -> tuple[Tensor | None, None, None]:
    """Gradient of a convolution's input as a transposed convolution, which graphs have.

    The arguments are those of PyTorch's operator of that name, for two axes.

    Raises:
        WeightsError: gradients of weights are wanted, or of a transposed convolution.
    """
    if transposed or any(wanted[1:]):
        raise WeightsError(
            "only the input's gradient of an ordinary convolution can be in a graph",
            hint="leave --with-map out",
        )
    left = [
        images.shape[axis + 2]
        - (gradient.shape[axis + 2] - 1) * stride[axis]
        + 2 * padding[axis]
        - dilation[axis] * (weight.shape[axis + 2] - 1)
        - 1
        if stride[axis] > 1
        else 0
        for axis in range(2)
    ]
    found = torch.ops.aten.convolution.default(
        gradient, weight, None, stride, padding, dilation, True, left, groups
    )
    return found, None, None
