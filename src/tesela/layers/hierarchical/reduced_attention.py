"""Attention whose keys and values come from a coarser grid (arXiv 2102.12122, section 3.3).

Keys and values are computed from cells of R x R tokens, each brought to one token by a convolution of that
size and stride, then LayerNorm; queries from all tokens. With R = 1 it is ordinary attention.

Odd: rows and columns that fill no whole cell are seen by no key, as in the published code.
"""

from __future__ import annotations

from torch import Generator, Tensor, nn

from tesela.layers.attention.attention import attend
from tesela.layers.attention.cpu_bf16 import Dense
from tesela.layers.attention.kernels import HasKernel
from tesela.layers.grid import Grid
from tesela.layers.hierarchical.overlap_patch import on_grid
from tesela.layers.initialise import lecun_normal_, xavier_uniform_
from tesela.layers.trace import OFF, Trace


class ReducedAttention(HasKernel, nn.Module):
    """(B, N, D) to (B, N, D).

    Args:
        width: D.
        heads: H.
        reduction: R, side of a cell in tokens.
        norm_eps: epsilon of the LayerNorm after the reduction.
        dropout: after the output projection.
        attention_dropout: on the attention weights.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        reduction: int,
        norm_eps: float,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = width // heads
        self.scale = self.head_width**-0.5
        self.attention_dropout = attention_dropout
        self.query = Dense(width, width)
        self.key_value = Dense(width, 2 * width)
        self.out = Dense(width, width)
        self.reduce = nn.Conv2d(width, width, reduction, reduction) if reduction > 1 else None
        self.reduced_norm = nn.LayerNorm(width, eps=norm_eps) if reduction > 1 else None
        self.dropout = nn.Dropout(dropout)

    def reset(self, generator: Generator | None = None) -> None:
        """Xavier uniform for each of q, k, v and the output, LeCun normal reduction; biases zero."""
        width = self.out.out_features
        xavier_uniform_(self.query, generator=generator)
        xavier_uniform_(self.key_value, generator=generator, fan_in=width, fan_out=width)
        xavier_uniform_(self.out, generator=generator)
        if self.reduce is not None:
            lecun_normal_(self.reduce.weight, generator=generator)
            assert self.reduce.bias is not None
            nn.init.zeros_(self.reduce.bias)

    def forward(self, tokens: Tensor, grid: Grid, *, trace: Trace = OFF) -> Tensor:
        """Attention of all tokens to all cells.

        Args:
            tokens: (B, N, D), in raster order.
            grid: rows and columns, N together.
            trace: where the steps are written down.
        """
        batch, count, width = tokens.shape
        q = self.query(tokens).view(batch, count, self.heads, self.head_width).transpose(1, 2)
        cells = trace("reduced", self._reduced(tokens, grid))
        joined = self.key_value(cells).view(batch, cells.shape[1], 2, self.heads, self.head_width)
        k, v = (part.transpose(1, 2) for part in joined.unbind(2))
        dropout = self.attention_dropout if self.training else 0.0
        result = attend(q, k, v, dropout=dropout, scale=self.scale, kernel=self.kernel)
        trace.attention(q, k, v, result, scale=self.scale)
        mixed: Tensor = self.out(result.transpose(1, 2).reshape(batch, count, width))
        return trace("", self.dropout(mixed))

    def _reduced(self, tokens: Tensor, grid: Grid) -> Tensor:
        """One token (B, M, D) for each cell."""
        if self.reduce is None or self.reduced_norm is None:
            return tokens
        cells = self.reduce(on_grid(tokens, grid))
        reduced: Tensor = self.reduced_norm(cells.flatten(2).transpose(1, 2))
        return reduced
