"""Attention within shifted windows, with a bias for each offset (arXiv 2103.14030).

Odd: windows stand beside the heads, (B, g * H, m, d), so that the mask is built once and not per image. The
table of biases belongs to whole windows; one that is cut to a smaller map reads its middle. The trace holds
-inf where -100 is computed with: the difference, e^-100, is no attention. The result is copied once: an
exporter takes the fused kernel apart into steps whose result has other strides.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from tesela.layers.attention.attention import attend
from tesela.layers.attention.cpu_bf16 import Dense
from tesela.layers.attention.kernels import HasKernel
from tesela.layers.grid import Grid
from tesela.layers.hierarchical.shifted_windows import (
    APART,
    border_mask,
    cut_windows,
    join_windows,
    window_places,
)
from tesela.layers.hierarchical.swin_plan import SwinWindows
from tesela.layers.initialise import xavier_uniform_
from tesela.layers.position.relative import DEVIATION
from tesela.layers.trace import OFF, Trace


class ShiftedAttention(HasKernel, nn.Module):
    """(B, N, D) to (B, N, D).

    Args:
        width: D.
        heads: H.
        windows: which tokens see one another.
        qkv_bias: whether the qkv projection has a bias.
        dropout: after the output projection.
        attention_dropout: on the attention weights.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        windows: SwinWindows,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = width // heads
        self.scale = self.head_width**-0.5
        self.windows = windows
        self.attention_dropout = attention_dropout
        self.qkv = Dense(width, 3 * width, bias=qkv_bias)
        self.out = Dense(width, width)
        self.table = nn.Parameter(torch.empty((2 * windows.window - 1) ** 2, heads))
        self.dropout = nn.Dropout(dropout)

    def reset(self, generator: Generator | None = None) -> None:
        """Xavier uniform for each of q, k, v and the output, biases zero; the table normal (0.02)."""
        width = self.out.out_features
        xavier_uniform_(self.qkv, generator=generator, fan_in=width, fan_out=width)
        xavier_uniform_(self.out, generator=generator)
        nn.init.normal_(self.table, std=DEVIATION, generator=generator)

    def forward(self, tokens: Tensor, grid: Grid, *, trace: Trace = OFF) -> Tensor:
        """Attention of each token to its window.

        Args:
            tokens: (B, N, D), in raster order.
            grid: rows and columns, N together.
            trace: where the attention is written down, a batch of windows.
        """
        cut = cut_windows(torch.unflatten(tokens, 1, grid), self.windows)  # (B, g, m, D)
        count, places = cut.shape[1], cut.shape[2]
        joined = torch.unflatten(self.qkv(cut), -1, (3, self.heads, self.head_width))
        q, k, v = (part.transpose(2, 3).flatten(1, 2) for part in joined.unbind(3))  # (B, g H, m, d)
        bias = self._bias(grid, like=q)
        dropout = self.attention_dropout if self.training else 0.0
        result = attend(q, k, v, bias=bias[None], dropout=dropout, scale=self.scale, kernel=self.kernel)
        result = result.clone(memory_format=torch.contiguous_format)
        result = torch.unflatten(result, 1, (count, self.heads)).flatten(0, 1)  # (B g, H, m, d)
        if trace is not OFF:
            q, k, v = (torch.unflatten(part, 1, (count, self.heads)).flatten(0, 1) for part in (q, k, v))
            apart = self._bias(grid, like=q, apart=-torch.inf)
            pairs = torch.unflatten(apart, 0, (count, self.heads)).repeat(len(tokens), 1, 1, 1)
            stand = window_places(self.windows, grid, device=tokens.device)
            trace.attention(q, k, v, result, scale=self.scale, bias=pairs, places=stand)
        mixed: Tensor = self.out(result.transpose(1, 2).reshape(-1, count, places, tokens.shape[2]))
        return trace("", self.dropout(join_windows(mixed, self.windows, grid).flatten(1, 2)))

    def _bias(self, grid: Grid, *, like: Tensor, apart: float = APART) -> Tensor:
        """(g H, m, m), what is added to the logits: the bias of each offset, and ``apart`` across borders."""
        rows, columns = self.windows.size(grid)
        count, side = self.windows.count(grid), 2 * self.windows.window - 1
        row = torch.arange(rows, device=like.device).repeat_interleave(columns)
        column = torch.arange(columns, device=like.device).repeat(rows)
        reach = self.windows.window - 1
        index = (row[:, None] - row[None] + reach) * side + column[:, None] - column[None] + reach
        offsets = self.table.index_select(0, index.flatten()).view(*index.shape, self.heads)
        bias = offsets.permute(2, 0, 1).to(like.dtype)[None]
        mask = border_mask(self.windows, grid, like=like, apart=apart)
        bias = bias.expand(count, -1, -1, -1) if mask is None else bias + mask[:, None]
        return bias.flatten(0, 1)
