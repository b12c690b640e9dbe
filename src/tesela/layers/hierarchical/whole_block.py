"""Block of TinyViT (arXiv 2207.10666): attention in windows, a convolution, an MLP."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tesela.layers.block import DropPath
from tesela.layers.convolution.inverted import NormedConv
from tesela.layers.grid import Grid
from tesela.layers.hierarchical.whole_windows import WholeWindowAttention
from tesela.layers.mlp import Mlp
from tesela.layers.norm import EPS
from tesela.layers.trace import OFF, Trace


class WholeBlock(nn.Module):
    """(B, N, D) to (B, N, D); the convolution has no shortcut.

    Args:
        attention: the token mixer, with its norm inside.
        mlp: the function of each token.
        width: D.
        drop_path: rate of stochastic depth of both branches.
    """

    def __init__(
        self, attention: WholeWindowAttention, mlp: Mlp, *, width: int, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.attention = attention
        self.local = NormedConv(width, width, 3, depthwise=True)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, grid: Grid, *, trace: Trace = OFF) -> Tensor:
        """Attention, convolution and MLP of tokens (B, N, D) in raster order on ``grid``."""
        tokens = trace("norm1", tokens)  # what enters the attention, whose norm is behind the padding
        mixed = self.attention(tokens, grid, trace=trace.inside("attention"))
        maps = torch.unflatten(tokens + self.drop_path(mixed), 1, grid).permute(0, 3, 1, 2)
        tokens = self.local(maps).flatten(2).transpose(1, 2)
        normed = trace("norm2", self.norm2(tokens))
        return trace("", tokens + self.drop_path(trace("mlp", self.mlp(normed))))
