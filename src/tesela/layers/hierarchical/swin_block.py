"""Block of Swin: attention within windows and an MLP, in pre-norm residual branches."""

from __future__ import annotations

from torch import Tensor, nn

from tesela.layers.block import DropPath
from tesela.layers.grid import Grid
from tesela.layers.hierarchical.shifted_attention import ShiftedAttention
from tesela.layers.mlp import Mlp
from tesela.layers.trace import OFF, Trace


class SwinBlock(nn.Module):
    """(B, N, D) to (B, N, D).

    Args:
        attention: the token mixer.
        mlp: the function of each token.
        width: D.
        norm_eps: epsilon of both LayerNorms.
        drop_path: rate of stochastic depth of both branches.
    """

    def __init__(
        self, attention: ShiftedAttention, mlp: Mlp, *, width: int, norm_eps: float, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, grid: Grid, *, trace: Trace = OFF) -> Tensor:
        """Attention, then the MLP, of tokens (B, N, D) in raster order on ``grid``."""
        normed = trace("norm1", self.norm1(tokens))
        tokens = tokens + self.drop_path(self.attention(normed, grid, trace=trace.inside("attention")))
        normed = trace("norm2", self.norm2(tokens))
        return trace("", tokens + self.drop_path(trace("mlp", self.mlp(normed))))
