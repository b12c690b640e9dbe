"""Attribution through a pyramid of stages on ever coarser grids (SegFormer, PVT).

Keys may be reduced by strided convolutions.

Within a stage attention is N x M. A reduced key stands for its R x R cell, so what reaches a key is spread
evenly over the cell; the N x N matrix is never formed. Between stages the shares are pulled through the
convolution that merged the patches: each token of the coarse grid hands its share to its receptive field on
the fine grid, in proportion to the kernel's energy (the sum of its squared weights over channels) at each
place inside the image.

Attention within windows is walked through window by window: shares are cut into the windows as the
tokens were, the shift included, and put back where the tokens stand. What reaches padding is lost.

Odd: a convolution that does not fit leaves rows or columns of the fine grid without a reader; they get
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tesela.layers.grid import Grid
from tesela.layers.trace import AttentionRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Reduction:
    """Keys that stand for cells of the grid.

    Attributes:
        grid: rows and columns of tokens.
        cells: rows and columns of keys.
        ratio: rows and columns of tokens in a cell.
    """

    grid: Grid
    cells: Grid
    ratio: Grid

    def spread(self, keys: Tensor) -> Tensor:
        """(..., M) over keys to (..., N) over tokens, evenly within each cell."""
        image = torch.unflatten(keys, -1, self.cells) / (self.ratio[0] * self.ratio[1])
        image = image.repeat_interleave(self.ratio[0], dim=-2).repeat_interleave(self.ratio[1], dim=-1)
        missing = (0, self.grid[1] - image.shape[-1], 0, self.grid[0] - image.shape[-2])
        return F.pad(image, missing).flatten(-2)

    def own(self, device: torch.device) -> Tensor:
        """(N,), each token's cell; -1 where it is in none."""
        rows = torch.arange(self.grid[0], device=device) // self.ratio[0]
        columns = torch.arange(self.grid[1], device=device) // self.ratio[1]
        inside = (rows < self.cells[0])[:, None] & (columns < self.cells[1])
        return (rows[:, None] * self.cells[1] + columns).masked_fill(~inside, -1).flatten()


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowPlaces:
    """Windows whose places stand for tokens.

    Attributes:
        places: (g, m), the number of each place's token; -1 where it is padding.
        tokens: N.
    """

    places: Tensor
    tokens: int

    def cut(self, shares: Tensor) -> Tensor:
        """(B, S, N) over tokens to (B g, S, m) over places; padding has nothing."""
        padded = F.pad(shares, (0, 1))  # the last one is padding
        cut = padded[..., self.places.flatten()]  # -1 reads it
        return torch.unflatten(cut, -1, tuple(self.places.shape)).transpose(1, 2).flatten(0, 1)

    def join(self, shares: Tensor) -> Tensor:
        """(B g, S, m) over places back to (B, S, N) over tokens, without what is on padding."""
        count = len(self.places)
        flat = torch.unflatten(shares, 0, (-1, count)).transpose(1, 2).flatten(2)
        whole = flat.new_zeros(*flat.shape[:2], self.tokens + 1)
        index = self.places.flatten().masked_fill(self.places.flatten() < 0, self.tokens)
        return whole.index_add(-1, index, flat)[..., : self.tokens]


@dataclass(frozen=True, kw_only=True, slots=True)
class Merging:
    """The operator between two grids.

    Attributes:
        energy: (1, 1, k, k), summed squares of the kernel's weights.
        stride: in rows and columns.
        padding: in rows and columns.
        entered: rows and columns of the fine grid.
        beyond: rows below and columns to the right of it that are padding too.
    """

    energy: Tensor
    stride: Grid
    padding: Grid
    entered: Grid
    beyond: Grid = (0, 0)

    def pull(self, coarse: Tensor, grid: Grid) -> Tensor:
        """(B, S, n) on the coarse ``grid`` to (B, S, m) on the fine one; sums stay."""
        energy = self.energy.to(coarse)
        inside = F.pad(coarse.new_ones(1, 1, *self.entered), (0, self.beyond[1], 0, self.beyond[0]))
        field = F.conv2d(inside, energy, stride=self.stride, padding=self.padding)
        shares = (torch.unflatten(coarse, -1, grid) / field[0, 0]).flatten(0, 1).unsqueeze(1)
        used = [
            (grid[axis] - 1) * self.stride[axis] - 2 * self.padding[axis] + energy.shape[2 + axis]
            for axis in (0, 1)
        ]
        rest = [self.entered[axis] + self.beyond[axis] - used[axis] for axis in (0, 1)]
        fine = F.conv_transpose2d(
            shares, energy, stride=self.stride, padding=self.padding, output_padding=rest
        )
        fine = fine.squeeze(1)[:, : self.entered[0], : self.entered[1]]
        return torch.unflatten(fine, 0, tuple(coarse.shape[:2])).flatten(-2)


def merging(weight: Tensor, stride: Grid, padding: Grid, *, entered: Grid, beyond: Grid = (0, 0)) -> Merging:
    """The operator of a convolution with weights (D, C, k, k)."""
    energy = weight.detach().double().square().sum((0, 1))[None, None]
    return Merging(
        energy=energy / energy.sum(), stride=stride, padding=padding, entered=entered, beyond=beyond
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Layers on one grid.

    Attributes:
        grid: its rows and columns.
        layers: each attention, and how its keys were made, or where its windows stand.
        merging: how the grid came from the one before; None where nothing is below.
    """

    grid: Grid
    layers: tuple[tuple[AttentionRecord, Reduction | WindowPlaces | None], ...]
    merging: Merging | None

    @property
    def tokens(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]


Walk = Callable[[Tensor, AttentionRecord, Reduction | None], Tensor]


def descend(stages: Sequence[Stage], starts: Iterable[Tensor | None], walk: Walk) -> Tensor:
    """From the top of the pyramid to its first grid.

    Args:
        stages: from the image up.
        starts: for each stage (B, S, N_s), what is read from its last layer, or None.
        walk: shares (B, S, N) through one layer, or (B g, S, m) through its windows.

    Returns:
        (B, S, N_1).
    """
    shares: Tensor | None = None
    above: Stage | None = None
    for stage, start in reversed(list(zip(stages, starts, strict=True))):
        if shares is not None and above is not None and above.merging is not None:
            shares = above.merging.pull(shares, above.grid)
        if start is not None:
            shares = start if shares is None else shares + start
        if shares is not None:
            for record, keys in reversed(stage.layers):
                if isinstance(keys, WindowPlaces):
                    shares = keys.join(walk(keys.cut(shares), record, None))
                else:
                    shares = walk(shares, record, keys)
        above = stage
    assert shares is not None, "some stage is read"
    return shares


def upsampled_back(pixels: Tensor, grid: Grid) -> Tensor:
    """Weights (B, S, h, w) to (B, S, n) on a coarser grid: transposed bilinear upsampling; sums stay."""
    with torch.enable_grad():
        coarse = pixels.new_zeros(*pixels.shape[:2], *grid, requires_grad=True)
        fine = F.interpolate(coarse, size=pixels.shape[2:], mode="bilinear", align_corners=False)
        (back,) = torch.autograd.grad(fine, coarse, pixels)
    return back.flatten(2)
