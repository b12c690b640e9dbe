"""Attention of TinyViT (arXiv 2207.10666, section 3.2): within windows that are never cut.

A map that windows do not fill is padded with zeros below and to the right. Odd: the norm stands inside,
behind the padding, so padded places are the norm's shift; they are seen by the patches of their window, as in
the published code. A bias is added for the absolute distances in rows and columns (LeViT, arXiv 2104.01136).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from tesela.layers.attention.attention import attend
from tesela.layers.attention.cpu_bf16 import Dense
from tesela.layers.attention.kernels import HasKernel
from tesela.layers.grid import Grid
from tesela.layers.hierarchical.shifted_windows import cut_windows, join_windows, window_places
from tesela.layers.hierarchical.swin_plan import WholeWindows
from tesela.layers.initialise import xavier_uniform_
from tesela.layers.norm import EPS
from tesela.layers.trace import OFF, Trace


class WholeWindowAttention(HasKernel, nn.Module):
    """(B, N, D) to (B, N, D).

    Args:
        width: D.
        heads: H.
        window: side of a window in tokens.
    """

    def __init__(self, width: int, heads: int, *, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = width // heads
        self.scale = self.head_width**-0.5
        self.windows = WholeWindows(window)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.qkv = Dense(width, 3 * width)
        self.out = Dense(width, width)
        self.table = nn.Parameter(torch.empty(heads, window**2))

    def reset(self, generator: Generator | None = None) -> None:
        """Xavier uniform for each of q, k, v and the output, biases and the table zero."""
        width = self.out.out_features
        xavier_uniform_(self.qkv, generator=generator, fan_in=width, fan_out=width)
        xavier_uniform_(self.out, generator=generator)
        nn.init.zeros_(self.table)

    def forward(self, tokens: Tensor, grid: Grid, *, trace: Trace = OFF) -> Tensor:
        """Attention of each token to its window.

        Args:
            tokens: (B, N, D), in raster order.
            grid: rows and columns, N together.
            trace: where the attention is written down, a batch of windows.
        """
        # both copies: an exporter takes convolutions and kernels apart into steps that leave other strides
        image = torch.unflatten(tokens.clone(memory_format=torch.contiguous_format), 1, grid)
        cut = cut_windows(image, self.windows)  # (B, g, m, D)
        count = cut.shape[1]
        joined = torch.unflatten(self.qkv(self.norm(cut)).flatten(0, 1), -1, (3, self.heads, self.head_width))
        q, k, v = (part.transpose(1, 2) for part in joined.unbind(2))  # (B g, H, m, d)
        bias = self._bias(like=q)[None]
        result = attend(q, k, v, bias=bias, dropout=0.0, scale=self.scale, kernel=self.kernel)
        if trace is not OFF:
            stand = window_places(self.windows, grid, device=tokens.device)
            trace.attention(q, k, v, result, scale=self.scale, bias=bias, places=stand)
        result = result.clone(memory_format=torch.contiguous_format)
        mixed = torch.unflatten(self.out(result.transpose(1, 2).flatten(2)), 0, (-1, count))
        return trace("", join_windows(mixed, self.windows, grid).flatten(1, 2))

    def _bias(self, *, like: Tensor) -> Tensor:
        """(H, m, m), the bias of each distance."""
        side = self.windows.window
        row = torch.arange(side, device=like.device).repeat_interleave(side)
        column = torch.arange(side, device=like.device).repeat(side)
        index = (row[:, None] - row[None]).abs() * side + (column[:, None] - column[None]).abs()
        chosen = self.table.index_select(1, index.flatten())
        return torch.unflatten(chosen, 1, (side**2, side**2)).to(like.dtype)
