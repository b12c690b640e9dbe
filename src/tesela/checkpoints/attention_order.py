"""Joint projections of other programs' queries, keys and values, in our rotary order.

Our rotary positions turn the pairs (i, i + d/4) of a head's first half by the row, of its second half by
the column. Others turn neighbours (2 i, 2 i + 1) or (i, i + d/2), and some the columns first. The same
rotations come of weights whose channels are put in another order, once and for all; that is exact, and is
undone on the way back.

Odd: a projection of keys without a bias is one with a bias of zero here. Trained further it may get one,
which has no place there then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tesela.checkpoints.rules import Rule
from tesela.core.errors import WeightsError


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionOrder:
    """How another program keeps the projections of one attention.

    Attributes:
        heads: of the attention.
        rotary: ``interleaved`` (neighbours) or ``half``, with ``_xy`` where columns come first; empty where
            nothing turns.
        keys: whether keys have a bias there.
    """

    heads: int
    rotary: str = ""
    keys: bool = True

    def rules(self, own: str, weights: Sequence[str], biases: Sequence[str] = ()) -> tuple[Rule, ...]:
        """The rules of the joint projection ``own``: a fused tensor, or one each.

        Args:
            own: our name of the layer.
            weights: theirs, one name or those of queries, keys and values.
            biases: theirs; without the keys' where these have none.
        """
        weight = Rule(own=f"{own}.weight", foreign=tuple(weights), join=self._join, split=self._split)
        if not biases:
            return (weight,)
        with_keys, without = (self._join, self._split), (self._join_biases, self._split_biases)
        join, split = with_keys if self.keys else without
        return weight, Rule(own=f"{own}.bias", foreign=tuple(biases), join=join, split=split)

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        return self._ordered(torch.cat(list(parts)), back=False)

    def _split(self, tensor: Tensor, count: int) -> Sequence[Tensor]:
        return self._ordered(tensor, back=True).chunk(count)

    def _join_biases(self, parts: Sequence[Tensor]) -> Tensor:
        query, value = parts
        return self._ordered(torch.cat([query, torch.zeros_like(query), value]), back=False)

    def _split_biases(self, tensor: Tensor, count: int) -> Sequence[Tensor]:
        del count
        query, keys, value = self._ordered(tensor, back=True).chunk(3)
        if tensor.device.type != "meta" and keys.any():
            raise WeightsError(
                "the keys of the model have a bias, which has no place there",
                hint="it was trained further; export it to another format",
            )
        return [query, value]

    def _ordered(self, tensor: Tensor, *, back: bool) -> Tensor:
        """Queries and keys of (3 H d, ...) in the other order."""
        if not self.rotary:
            return tensor
        apart = torch.unflatten(tensor, 0, (3, self.heads, -1))
        index = rotary_order(apart.shape[2], self.rotary).to(tensor.device)
        index = index.argsort() if back else index
        return torch.cat([apart[:2].index_select(2, index), apart[2:]]).flatten(0, 2)


def rotary_order(width: int, kind: str) -> Tensor:
    """For each channel of a head of ours, the number it has there.

    Args:
        width: of a head, a multiple of four.
        kind: as ``AttentionOrder.rotary``.
    """
    half = torch.arange(width // 2)
    style, _, columns = kind.partition("_")
    pair = (2 * half, 2 * half + 1) if style == "interleaved" else (half, half + width // 2)
    first, second = (one.chunk(2) for one in pair)
    row, column = (1, 0) if columns else (0, 1)
    return torch.cat([first[row], second[row], first[column], second[column]])
