"""Plain or weight-standardised convolutions (Qiao et al. 2019, arXiv 1903.10520).

Without bias, padded in either of two ways.

Standardised: each output channel's weights lose their mean and are divided by their standard deviation before
they are used. ``root`` takes the square root of variance plus epsilon, as the BiT checkpoints do; ``sum``
adds epsilon to the standard deviation, as the ViT paper's JAX code does for its hybrids.

Odd: ``root`` is a LayerNorm of each output channel's weights, whose fused kernel is several times faster than
mean and variance one after the other. ``same`` pads as XLA does: an odd pixel of padding goes to the end, and
how many there are depends on the size. Without it both sides get half of the kernel. They differ only for
strides above one.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tesela.layers.initialise import lecun_normal_

Standardise = Literal["none", "root", "sum"]

#: What stands around an image that is pooled. Odd: zero itself is a padding that onnxruntime moves into the
#: pooling, where it becomes minus infinity; negative values at the border then come out wrong.
BORDER = 1e-30


class Conv2d(nn.Conv2d):
    """(B, C, H, W) to (B, D, ceil(H / stride), ceil(W / stride)), without bias.

    Args:
        before: C.
        after: D.
        kernel: side of the window, an odd number.
        stride: of the window.
        same: pad as XLA does.
        standardise: ``none``, ``root`` or ``sum``.
        eps: epsilon of the standardisation.
    """

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int,
        stride: int = 1,
        *,
        same: bool = False,
        standardise: Standardise = "none",
        eps: float = 0.0,
    ) -> None:
        super().__init__(before, after, kernel, stride, bias=False)
        self.same = same
        self.standardise = standardise
        self.eps = eps

    def reset(self, generator: Generator | None = None) -> None:
        """He normal by what leaves (He et al. 2015).

        LeCun normal where the weights are standardised anyway.
        """
        if self.standardise == "none":
            nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        else:
            lecun_normal_(self.weight, generator=generator)

    def used_weight(self) -> Tensor:
        """The weights (D, C, k, k) that are multiplied with the image."""
        if self.standardise == "none":
            return self.weight
        flat = self.weight.flatten(1)
        if self.standardise == "root":
            used: Tensor = F.layer_norm(flat, flat.shape[1:], eps=self.eps)
        else:
            centred = flat - flat.mean(dim=1, keepdim=True)
            used = centred / (
                torch.linalg.vector_norm(centred, dim=1, keepdim=True) / flat.shape[1] ** 0.5 + self.eps
            )
        return used.view(self.weight.shape)

    def forward(self, images: Tensor) -> Tensor:
        """The convolution."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if not self.same or stride == 1:
            return F.conv2d(images, self.used_weight(), None, stride, kernel // 2)
        return F.conv2d(F.pad(images, same_padding(images, kernel, stride)), self.used_weight(), None, stride)


class MaxPool2d(nn.Module):
    """(B, C, H, W) to (B, C, ceil(H / stride), ceil(W / stride)).

    The largest value in each window, zero around the image.

    Odd: the padding is zero, as in the BiT checkpoints, and not minus infinity; after a ReLU it is the same.

    Args:
        kernel: side of the window, an odd number.
        stride: of the window.
        same: pad as XLA does.
    """

    def __init__(self, kernel: int, stride: int, *, same: bool = False) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        self.same = same

    def forward(self, images: Tensor) -> Tensor:
        """The pooled images."""
        half = self.kernel // 2
        padding = same_padding(images, self.kernel, self.stride) if self.same else (half, half, half, half)
        return F.max_pool2d(F.pad(images, padding, value=BORDER), self.kernel, self.stride)


def same_padding(images: Tensor, kernel: int, stride: int) -> tuple[int, int, int, int]:
    """Padding (left, right, above, below) as XLA's SAME: ceil(side / stride) results."""
    missing = [max(0, (-(-side // stride) - 1) * stride + kernel - side) for side in images.shape[2:]]
    (above, below), (left, right) = ((total // 2, total - total // 2) for total in missing)
    return left, right, above, below
