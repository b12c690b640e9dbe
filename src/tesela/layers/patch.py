"""Images to patch tokens (paper, equation 1): one linear map of each non-overlapping patch.

The weight is kept as a convolution's, (D, C, ph, pw). ``conv`` runs it as a convolution with stride (ph,
pw), ``linear`` cuts the image into flat patches and multiplies by the same weight, flattened; the results
are the same up to rounding. Tokens run in raster order: left to right, then down.

Odd: ``linear`` is the default because its result is contiguous, which saves a copy at the first LayerNorm.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tesela.layers.grid import Grid, patch_grid
from tesela.layers.initialise import lecun_normal_
from tesela.layers.trace import OFF, Trace


class PatchEmbedding(nn.Module):
    """(B, C, H, W) to (B, H/ph * W/pw, D).

    Args:
        channels: C.
        width: D.
        patch: (ph, pw).
        mode: ``linear`` or ``conv``.
        bias: whether there is one.
        cut: whether pixels beyond the last whole patch are left out, in place of an error.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        patch: tuple[int, int],
        mode: str = "linear",
        bias: bool = True,
        cut: bool = False,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.mode = mode
        self.cut = cut
        self.weight = nn.Parameter(torch.empty(width, channels, *patch))
        self.bias = nn.Parameter(torch.empty(width)) if bias else None

    def reset(self, generator: Generator | None = None) -> None:
        """LeCun normal weight, bias zero."""
        lecun_normal_(self.weight, generator=generator)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def grid(self, size: tuple[int, int]) -> Grid:
        """Rows and columns of patches in an image of (height, width).

        Raises:
            ConfigError: the patches do not fill the image.
        """
        return patch_grid(size, self.patch, cut=self.cut)

    def forward(self, images: Tensor, *, trace: Trace = OFF) -> Tensor:  # noqa: ARG002 - a stem of one step has none to write down
        """The tokens, in raster order."""
        rows, columns = self.grid((images.shape[2], images.shape[3]))
        if self.cut:
            images = images[:, :, : rows * self.patch[0], : columns * self.patch[1]]
        if self.mode == "conv":
            return F.conv2d(images, self.weight, self.bias, stride=self.patch).flatten(2).transpose(1, 2)
        return F.linear(unfold(images, self.patch, (rows, columns)), self.weight.flatten(1), self.bias)


def unfold(images: Tensor, patch: tuple[int, int], grid: Grid) -> Tensor:
    """(B, C, H, W) as flat patches (B, n, C * ph * pw), channel first as in a convolution's weight."""
    batch, channels = images.shape[:2]
    cut = images.reshape(batch, channels, grid[0], patch[0], grid[1], patch[1])
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, grid[0] * grid[1], channels * patch[0] * patch[1])
