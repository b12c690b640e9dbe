"""Attention rollout: how much of each input token reaches the token that the head reads.

A layer is given as a function that computes some rows of its attention, ``rows(begin, end) -> (B, heads, end
- begin, N)``, so that neither all layers nor one whole layer has to exist at once. Only vectors are carried:
from the last layer to the first, ``v <- (1 - a) v + a v F``. That is L N^2 work; the product of the matrices
would be L N^3.

F is the attention with its heads fused, its small patch entries discarded and its rows brought to sum 1
again. Dividing ``v`` by the row sums instead of dividing F gives the same and writes no second matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tesela.attribution.methods.pyramid import Reduction
from tesela.core.errors import ConfigError

#: ``rows(begin, end)``: these rows of a layer's attention, or of anything else that says how its tokens mix,
#: (B, heads, rows, N).
AttentionRows = Callable[[int, int], Tensor]
Fusion = Literal["mean", "max", "min"]
FUSIONS: tuple[str, ...] = ("mean", "max", "min")


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutOptions:
    """What is done to a layer's attention before it is walked through."""

    head_fusion: Fusion = "mean"
    """How the heads become one: their mean, largest or smallest entry."""
    discard: float = 0.0
    """Share of the patch columns set to zero in each row, the smallest first; below 1. An entry on the
    diagonal always stays."""
    residual: float = 0.5
    """Share of the attention in a layer's mixing; the rest is the skip connection, which leaves a token where
    it is."""
    literature: bool = False
    """Add the identity before the rows are normalised, not after, as much published code does."""

    def __post_init__(self) -> None:
        if self.head_fusion not in FUSIONS:
            raise ConfigError(
                f"head_fusion cannot be {self.head_fusion!r}", hint=f"choose one of: {', '.join(FUSIONS)}"
            )
        if not 0.0 <= self.discard < 1.0:
            raise ConfigError(
                f"discard cannot be {self.discard}",
                hint="give a share from 0 (discards nothing) up to, not including, 1",
            )
        if not 0.0 <= self.residual <= 1.0:
            raise ConfigError(
                f"residual cannot be {self.residual}",
                hint="give a share from 0 (skip connection only) to 1 (attention only)",
            )

    @property
    def delicate(self) -> bool:
        """Whether rounding could change which entry is discarded or empty a row.

        Such attention is wanted in float64.
        """
        return self.discard > 0.0 or self.head_fusion == "min"


def roll(
    layers: Iterable[AttentionRows], start: Tensor, *, prefix: int, options: RolloutOptions, block: int = 256
) -> Tensor:
    """Walk the start vectors from the last layer down to the input.

    Args:
        layers: the **last layer first**.
        start: (B, S, N), how the head reads the last layer's tokens; each vector has sum 1.
        prefix: number of tokens before the patches (class, distillation, registers).
        options: fusion, discard, residual.
        block: rows computed at once.

    Returns:
        (B, S, N), in float64 where the device has it: the share of every input token; each vector has sum 1.
    """
    vectors = start.to(accurate(start.device))
    for rows in layers:
        vectors = step(vectors, rows, prefix=prefix, options=options, block=block)
    return vectors


def step(
    vectors: Tensor,
    rows: AttentionRows,
    *,
    prefix: int,
    options: RolloutOptions,
    block: int = 256,
    reduction: Reduction | None = None,
    normal: bool = False,
) -> Tensor:
    """One layer: ``v W`` for the layer's mixing matrix W, over blocks of its rows.

    The rows of the identity give W itself.

    Rows in which no vector has anything are not computed: of the last layer, a class token needs one row.

    Args:
        vectors: (B, S, N).
        rows: (B, heads, rows, N), or M columns with ``reduction``.
        prefix: columns before the patches.
        options: fusion, discard, residual.
        block: rows computed at once.
        reduction: what the M keys stand for; a query's own cell then takes the place of the diagonal.
        normal: each row of each head has sum 1, so that sums need not be taken.
    """
    moved: Tensor | None = None
    stayed = torch.zeros_like(vectors)
    own = None if reduction is None else reduction.own(vectors.device)
    for begin, end in blocks(vectors, block):
        heads = rows(begin, end)
        part = vectors[..., begin:end]
        if options.head_fusion == "mean" and options.discard == 0.0:
            total = (
                torch.ones_like(part[:, :1]) if normal else heads.sum(-1).mean(1).to(part.dtype).unsqueeze(1)
            )
            stay, spread = _shares(part, total, options)
            reached = through(heads, spread)
        else:
            fused = fuse(heads, options.head_fusion).to(vectors.dtype)
            diagonal = torch.arange(begin, end, device=vectors.device) if own is None else own[begin:end]
            fused = discard_smallest(fused, options.discard, diagonal=diagonal, prefix=prefix)
            stay, spread = _shares(part, fused.sum(-1).unsqueeze(1), options)
            reached = spread @ fused
        moved = reached.to(vectors.dtype) if moved is None else moved.add_(reached)
        stayed[..., begin:end] = stay
    if moved is None:
        return stayed
    return stayed.add_(moved if reduction is None else reduction.spread(moved))


def blocks(vectors: Tensor, block: int) -> Iterator[tuple[int, int]]:
    """Ranges of at most ``block`` rows that hold all entries of (B, S, N) which are not zero."""
    used = (vectors != 0).any(0).any(0).nonzero().flatten()
    if len(used) == 0:
        return
    first, last = int(used[0]), int(used[-1]) + 1
    for begin in range(first, last, block):
        yield begin, min(last, begin + block)


def through(heads: Tensor, spread: Tensor) -> Tensor:
    """(B, S, rows) times the mean over heads of (B, heads, rows, N), in one product."""
    count = heads.shape[1]
    return (spread / count).to(heads.dtype).repeat(1, 1, count) @ heads.flatten(1, 2)


def _shares(part: Tensor, total: Tensor, options: RolloutOptions) -> tuple[Tensor, Tensor]:
    """Share of ``part`` that stays at its token, and the factor of row F for the rest.

    A row of zeros counts as the unit row: all of it stays. So does one too small to be divided by.
    """
    alpha = options.residual
    scale = (1.0 - alpha) + alpha * total if options.literature else total
    empty = (total if not options.literature else scale) < torch.finfo(torch.float32).tiny
    portion = part / scale.masked_fill(empty, 1.0)
    stay = (1.0 - alpha) * (portion if options.literature else part)
    return torch.where(empty, part, stay), alpha * portion.masked_fill(empty, 0.0)


def fuse(heads: Tensor, how: str) -> Tensor:
    """(B, heads, rows, N) -> (B, rows, N)."""
    if how == "mean":
        return heads.mean(1)
    return heads.amax(1) if how == "max" else heads.amin(1)


def discard_smallest(fused: Tensor, share: float, *, diagonal: Tensor, prefix: int) -> Tensor:
    """Zero the smallest patch entries of each row.

    ``diagonal`` is each row's own column in the whole matrix, -1 where it has none.

    Of n patch columns the floor(share * n) smallest go, equal ones from the left; an entry on the diagonal
    that is among them stays, and nothing goes in its place. Prefix columns are never touched.
    """
    patches = fused[..., prefix:]
    count = math.floor(share * patches.shape[-1])
    if count == 0:
        return fused
    limit = patches.kthvalue(count, dim=-1, keepdim=True).values
    below = patches < limit
    equal = patches == limit
    room = count - below.sum(-1, keepdim=True)
    drop = below | (equal & (equal.cumsum(-1) <= room))
    columns = torch.arange(prefix, fused.shape[-1], device=fused.device)
    drop &= columns != diagonal[:, None]
    return torch.cat([fused[..., :prefix], patches.masked_fill(drop, 0.0)], dim=-1)


def accurate(device: torch.device) -> torch.dtype:
    """The widest floating type of the device."""
    return torch.float32 if device.type == "mps" else torch.float64
