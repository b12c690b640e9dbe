"""Convolutional tokenizer (Hassani et al. 2021, arXiv 2104.05704).

Convolution, optional norm, ReLU, max-pooling, repeated.

Each layer's channels but the last are ``hidden``; the last gives the tokens' width. Convolutions have no
bias, as there. The patches overlap, so a small network needs less data to learn what neighbouring pixels
mean.

Odd: the grid is not the image divided by a patch: every layer rounds (``tesela.layers.grid.conv_grid``).
"""

from __future__ import annotations

import itertools

from torch import Generator, Tensor, nn

from tesela.layers.grid import Grid, conv_grid
from tesela.layers.norm import BatchNorm
from tesela.layers.trace import OFF, Trace


class ConvTokenizer(nn.Module):
    """(B, C, H, W) to (B, n, D), tokens in raster order.

    Args:
        channels: C.
        width: D.
        layers: how many times convolution, ReLU and pooling are repeated.
        kernel: side of the convolutions.
        stride: of the convolutions.
        pool_kernel: side of the max-pooling window.
        pool_stride: of the max-pooling.
        hidden: channels between the layers.
        norm: ``none`` or ``batch`` (BatchNorm after each convolution).
    """

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        layers: int = 1,
        kernel: int = 3,
        stride: int = 1,
        pool_kernel: int = 3,
        pool_stride: int = 2,
        hidden: int = 64,
        norm: str = "none",
    ) -> None:
        super().__init__()
        sizes = [channels, *[hidden] * (layers - 1), width]
        self.steps = [(kernel, stride), (pool_kernel, pool_stride)] * layers
        self.layers = nn.Sequential()
        for index, (before, after) in enumerate(itertools.pairwise(sizes)):
            self.layers.add_module(
                f"conv{index}", nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
            )
            if norm == "batch":
                self.layers.add_module(f"norm{index}", BatchNorm(after))
            self.layers.add_module(f"relu{index}", nn.ReLU())
            self.layers.add_module(f"pool{index}", nn.MaxPool2d(pool_kernel, pool_stride, pool_kernel // 2))

    def reset(self, generator: Generator | None = None) -> None:
        """He normal weights."""
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, generator=generator)

    def grid(self, size: tuple[int, int]) -> Grid:
        """Rows and columns of tokens of an image of (height, width)."""
        return conv_grid(size, self.steps)

    def forward(self, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        """The tokens, in raster order."""
        for name, layer in self.layers.named_children():
            images = trace(f"layers.{name}", layer(images))
        return images.flatten(2).transpose(1, 2)
