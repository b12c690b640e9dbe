"""Overlapping patch embedding (SegFormer, arXiv 2105.15203, section 3.1).

A convolution whose kernel is wider than its stride, padded by half a kernel, then LayerNorm.
"""

from __future__ import annotations

from torch import Generator, Tensor, nn

from tesela.layers.grid import Grid
from tesela.layers.initialise import lecun_normal_


class OverlapPatchEmbedding(nn.Module):
    """(B, C, H, W) to tokens (B, n, D) and their grid.

    Args:
        channels: C.
        width: D.
        kernel: side of the convolution's kernel.
        stride: its step.
        norm_eps: epsilon of the LayerNorm.
    """

    def __init__(self, channels: int, width: int, *, kernel: int, stride: int, norm_eps: float) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(width, eps=norm_eps)

    def reset(self, generator: Generator | None = None) -> None:
        """LeCun normal weight, bias zero."""
        lecun_normal_(self.proj.weight, generator=generator)
        assert self.proj.bias is not None
        nn.init.zeros_(self.proj.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, Grid]:
        """The tokens, in raster order, and their rows and columns."""
        cells: Tensor = self.proj(images)
        tokens: Tensor = self.norm(cells.flatten(2).transpose(1, 2))
        return tokens, (cells.shape[2], cells.shape[3])


def on_grid(tokens: Tensor, grid: Grid) -> Tensor:
    """Tokens (B, n, D) in raster order as a feature map (B, D, rows, columns)."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *grid)
