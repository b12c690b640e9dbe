"""Convolution, batch norm and ReLU; the convolution whole or depthwise-separable.

Depthwise-separable (Chollet 2017, arXiv 1610.02357): a convolution of each channel alone, then a mix of the
channels at each pixel, with a fraction of the weights and operations.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tesela.layers.convolution.unit_plan import KERNEL
from tesela.layers.initialise import lecun_normal_
from tesela.layers.norm import BatchNorm


class Depthwise(nn.Conv2d):
    """A 3 x 3 convolution of each channel alone, (B, C, H, W) to (B, C, H / stride, W / stride).

    Args:
        width: C.
        stride: of the window.
        dilation: distance between the pixels that the window reads.
    """

    def __init__(self, width: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(
            width, width, KERNEL, stride, padding=dilation, dilation=dilation, groups=width, bias=False
        )

    def reset(self, generator: Generator | None = None) -> None:
        """LeCun normal."""
        lecun_normal_(self.weight, generator=generator)


class Plain(nn.Conv2d):
    """A convolution without bias, padded so that a stride of one keeps the size.

    Args:
        before: channels that enter.
        after: channels that leave.
        kernel: side of the window, an odd number.
        stride: of the window.
    """

    def __init__(self, before: int, after: int, kernel: int = KERNEL, *, stride: int = 1) -> None:
        super().__init__(before, after, kernel, stride, padding=kernel // 2, bias=False)

    def reset(self, generator: Generator | None = None) -> None:
        """He normal by what leaves (He et al. 2015)."""
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu", generator=generator)


class ConvUnit(nn.Module):
    """(B, C, H, W) to (B, D, H / stride, W / stride): convolution, norm, ReLU.

    Args:
        before: C.
        after: D.
        separable: depthwise, then pointwise, in place of one convolution.
        kernel: side of the window of a whole convolution.
        stride: of the window.
        dilation: of a depthwise convolution.
    """

    def __init__(
        self,
        before: int,
        after: int,
        *,
        separable: bool = False,
        kernel: int = KERNEL,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.depthwise = Depthwise(before, stride=stride, dilation=dilation) if separable else None
        self.conv = Plain(before, after, 1) if separable else Plain(before, after, kernel, stride=stride)
        self.norm = BatchNorm(after)

    def forward(self, images: Tensor) -> Tensor:
        """The unit's map."""
        if self.depthwise is not None:
            images = self.depthwise(images)
        return F.relu(self.norm(self.conv(images)))
