"""Block of SegFormer's encoder: reduced attention and Mix-FFN in pre-norm residual branches.

Mix-FFN (arXiv 2105.15203, equation 3) is an MLP with a depthwise 3 x 3 convolution over the grid before its
activation; zero padding tells positions, so there is no position embedding.
"""

from __future__ import annotations

from torch import Generator, Tensor, nn

from tesela.layers.attention.cpu_bf16 import Dense
from tesela.layers.block import DropPath
from tesela.layers.grid import Grid
from tesela.layers.hierarchical.overlap_patch import on_grid
from tesela.layers.hierarchical.reduced_attention import ReducedAttention
from tesela.layers.initialise import lecun_normal_, xavier_uniform_
from tesela.layers.trace import OFF, Trace

MIX_KERNEL = 3


class MixMlp(nn.Module):
    """(B, N, D) to (B, N, D).

    Args:
        width: D.
        hidden: width between its dense layers.
        dropout: after the activation and after the second dense layer.
    """

    def __init__(self, width: int, hidden: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dense1 = Dense(width, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, MIX_KERNEL, padding=MIX_KERNEL // 2, groups=hidden)
        self.activation = nn.GELU()
        self.dense2 = Dense(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def reset(self, generator: Generator | None = None) -> None:
        """Xavier uniform dense layers, LeCun normal convolution; biases zero."""
        xavier_uniform_(self.dense1, generator=generator)
        lecun_normal_(self.depthwise.weight, generator=generator)
        assert self.depthwise.bias is not None
        nn.init.zeros_(self.depthwise.bias)
        xavier_uniform_(self.dense2, generator=generator)

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """The function of each token and its eight neighbours."""
        cells = self.depthwise(on_grid(self.dense1(tokens), grid))
        hidden = self.dropout(self.activation(cells.flatten(2).transpose(1, 2)))
        result: Tensor = self.dropout(self.dense2(hidden))
        return result


class ReducedBlock(nn.Module):
    """(B, N, D) to (B, N, D).

    Args:
        attention: the token mixer.
        mlp: the function of each token and its neighbours.
        width: D.
        norm_eps: epsilon of both LayerNorms.
        drop_path: rate of stochastic depth of both branches.
    """

    def __init__(
        self,
        attention: ReducedAttention,
        mlp: MixMlp,
        *,
        width: int,
        norm_eps: float,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, grid: Grid, *, trace: Trace = OFF) -> Tensor:
        """Attention, then Mix-FFN, of tokens (B, N, D) in raster order on ``grid``."""
        normed = trace("norm1", self.norm1(tokens))
        tokens = tokens + self.drop_path(self.attention(normed, grid, trace=trace.inside("attention")))
        normed = trace("norm2", self.norm2(tokens))
        return trace("", tokens + self.drop_path(trace("mlp", self.mlp(normed, grid))))
