"""Attention that uses the grid: relative and rotary positions, windows.

Axial attention and local windows restrict what patches see of each other
(``tesela.layers.attention.window_plan``). Prefix tokens are part of every window: a patch sees the prefix
and its window in one softmax, a prefix token sees all tokens. The cost of the map falls from n^2 to n m
for windows of m patches, and the result is that of full attention with a mask.

Odd: windows stand beside the heads, (B, H * g, m, d), so that a mask is built once and not per image. The
trace holds q, k, v and the output in the order of the tokens and one bias for all pairs, -inf where a
patch does not see another: whatever is computed from a record needs no knowledge of windows. Under a bias
from relative positions the result is copied once: an exporter takes the fused kernel apart into steps
whose result has other strides, and a view of them would fail.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tesela.layers.attention.attention import Attention, attend
from tesela.layers.attention.window_plan import WindowPlan
from tesela.layers.attention.windows import gather, mask, scatter, spread_windows
from tesela.layers.grid import Grid
from tesela.layers.position.offset_bias import OffsetBias
from tesela.layers.position.relative import RelativePositions
from tesela.layers.position.rotary import Rotation, turn
from tesela.layers.token_layout import TokenLayout
from tesela.layers.trace import OFF, Trace


class GridAttention(Attention):
    """Self-attention of (B, N, D) to (B, N, D), given the tokens' layout.

    Args:
        width: D.
        heads: H.
        windows: which patches see one another.
        grid: the grid that tables of relative positions belong to.
        relative: whether offsets between patches give a second set of logits.
        rotary: how queries and keys are turned by their places; None where they are not.
        biased: whether each offset adds a bias of each head.
        **options: those of an ``Attention``.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        windows: WindowPlan,
        grid: Grid,
        relative: bool = False,
        rotary: Rotation | None = None,
        biased: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(width, heads, **options)
        self.windows = windows
        self.rotary = rotary
        self.relative = (
            RelativePositions(heads, self.head_width, windows=windows, grid=grid) if relative else None
        )
        self.offset_bias = OffsetBias(heads, grid=grid) if biased else None

    def forward(
        self,
        tokens: Tensor,
        *,
        first: int | None = None,
        layout: TokenLayout | None = None,
        trace: Trace = OFF,
    ) -> Tensor:
        """Attention of the tokens to what they see.

        Of the ``first`` ones only, which must belong to the prefix.

        Args:
            tokens: (B, prefix + n, D).
            first: how many of the first tokens somebody reads; None is all.
            layout: where the tokens stand.
            trace: where the attention is written down.
        """
        assert layout is not None, "the network tells the layout"
        assert first is None or first <= layout.prefix, "only prefix tokens can be wanted alone"
        q, k, v = self.project(tokens) if first is None else self.project_first(tokens, first)
        if self.rotary is not None:
            k = turn(k, layout, self.rotary)
            q = turn(q, layout, self.rotary) if first is None else q
        if self.offset_bias is not None:
            bias: Tensor | None = self.offset_bias(layout, first=first).to(q.dtype)
            result = self._attend(q, k, v, bias)
        elif first is not None:
            result, bias = self._attend(q, k, v), None
        elif self.windows.shape == "all":
            bias = self._bias(q, layout)
            result = self._attend(q, k, v, bias)
            result = result if bias is None else result.clone(memory_format=torch.contiguous_format)
        else:
            result, bias = self._within_cells(q, k, v, layout, traced=trace is not OFF)
        trace.attention(q, k, v, result, scale=self.scale, bias=bias)
        return trace("", self.joined(result))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        dropout = self.attention_dropout if self.training else 0.0
        return attend(q, k, v, bias=bias, dropout=dropout, scale=self.scale, kernel=self.kernel)

    def _bias(self, q: Tensor, layout: TokenLayout) -> Tensor | None:
        """Relative logits (B, H, N, N) where all see all; zero for pairs with a prefix token."""
        if self.relative is None:
            return None
        queries = q[:, :, layout.prefix :] * self.scale
        if layout.kept is not None:
            bias = self.relative.among(queries, layout)
        else:  # all patches
            bias = self.relative.within(queries.unsqueeze(2), layout.grid).squeeze(2)
        return F.pad(bias, (layout.prefix, 0, layout.prefix, 0))

    def _within_cells(
        self, q: Tensor, k: Tensor, v: Tensor, layout: TokenLayout, *, traced: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The result (B, H, N, d) of all tokens, and for a trace the bias between all of them."""
        prefix, grid = layout.prefix, layout.grid
        inside = gather(q[:, :, prefix:], self.windows, grid)
        keys, values = (
            _seen(part[:, :, :prefix], gather(part[:, :, prefix:], self.windows, grid)) for part in (k, v)
        )
        bias = self._cell_bias(inside, grid)
        shape = inside.shape
        joined = (
            None if bias is None else F.pad(bias, (prefix, 0)).expand(-1, shape[1], -1, -1, -1).flatten(1, 2)
        )
        patches = self._attend(inside.flatten(1, 2), keys.flatten(1, 2), values.flatten(1, 2), joined)
        result = scatter(patches.view(shape), self.windows, grid)
        if prefix:
            result = torch.cat([self._attend(q[:, :, :prefix], k, v), result], dim=2)
        if not traced:
            return result, None
        known = inside.new_zeros(1, 1, *shape[2:4], shape[3]) if bias is None else bias
        return result, F.pad(spread_windows(known, self.windows, grid), (prefix, 0, prefix, 0))

    def _cell_bias(self, queries: Tensor, grid: Grid) -> Tensor | None:
        """Relative logits and mask of patches within windows, (B or 1, H or 1, g, m, m)."""
        allowed = mask(self.windows, grid, device=queries.device)
        bias = None if self.relative is None else self.relative.within(queries * self.scale, grid)
        if allowed is None:
            return bias
        known = queries.new_zeros(()) if bias is None else bias
        return torch.where(allowed[None, None], known, -torch.inf)


def _seen(prefix: Tensor, patches: Tensor) -> Tensor:
    """Keys or values of a window: the prefix (B, H, P, d), then its patches (B, H, g, m, d)."""
    if prefix.shape[2] == 0:
        return patches
    return torch.cat([prefix.unsqueeze(2).expand(-1, -1, patches.shape[2], -1, -1), patches], dim=3)
