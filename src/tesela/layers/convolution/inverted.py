"""Inverted bottlenecks of TinyViT (arXiv 2207.10666), with GELU.

Those of arXiv 1801.04381, section 3.3: a 1x1 convolution, a depthwise 3x3 one and a 1x1 one, each with
BatchNorm. There is a residual block, which widens in the middle, and the step to the next stage, which halves
the map and has no shortcut.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tesela.layers.block import DropPath
from tesela.layers.convolution.separable import Depthwise, Plain
from tesela.layers.norm import BatchNorm


class NormedConv(nn.Module):
    """(B, C, H, W) to (B, D, H / stride, W / stride): a convolution without bias and its BatchNorm.

    Args:
        before: C.
        after: D.
        kernel: side of the window; 1 or 3.
        stride: of the window.
        depthwise: each channel alone, C and D the same.
        zero: whether the norm's scale starts at zero.
    """

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        depthwise: bool = False,
        zero: bool = False,
    ) -> None:
        super().__init__()
        self.conv = (
            Depthwise(after, stride=stride) if depthwise else Plain(before, after, kernel, stride=stride)
        )
        self.norm = BatchNorm(after, zero=zero)

    def forward(self, images: Tensor) -> Tensor:
        """The normalised convolution."""
        result: Tensor = self.norm(self.conv(images))
        return result

    def scaled(self) -> Tensor:
        """(D, C or 1, k, k), the weights with the norm's running scale."""
        assert self.norm.running_var is not None
        scale = self.norm.weight * (self.norm.running_var + self.norm.eps).rsqrt()
        return self.conv.weight * scale[:, None, None, None]


class InvertedBlock(nn.Module):
    """(B, C, H, W) to the same; GELU after the sum too.

    Args:
        width: C.
        ratio: of the width in the middle to C.
        drop_path: rate of stochastic depth.
    """

    def __init__(self, width: int, *, ratio: int, drop_path: float) -> None:
        super().__init__()
        self.expand = NormedConv(width, ratio * width)
        self.depthwise = NormedConv(ratio * width, ratio * width, 3, depthwise=True)
        self.contract = NormedConv(ratio * width, width, zero=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, images: Tensor) -> Tensor:
        """The sum of what came in and the branch, through GELU."""
        branch = F.gelu(self.depthwise(F.gelu(self.expand(images))))
        return F.gelu(images + self.drop_path(self.contract(branch)))


class ConvMerging(nn.Module):
    """(B, C, H, W) to (B, D, H / 2, W / 2), rounded up.

    Args:
        before: C.
        after: D.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.expand = NormedConv(before, after)
        self.depthwise = NormedConv(after, after, 3, stride=2, depthwise=True)
        self.contract = NormedConv(after, after)

    def forward(self, images: Tensor) -> Tensor:
        """The next stage's map."""
        result: Tensor = self.contract(F.gelu(self.depthwise(F.gelu(self.expand(images)))))
        return result

    def as_convolution(self) -> Tensor:
        """(D, C, 3, 3), the weights of the convolution that the step would be without GELU."""
        first, middle, last = self.expand.scaled(), self.depthwise.scaled(), self.contract.scaled()
        return torch.einsum("de,exy,ec->dcxy", last[:, :, 0, 0], middle[:, 0], first[:, :, 0, 0])
