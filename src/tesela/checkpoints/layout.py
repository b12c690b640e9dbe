"""Tensor table of a foreign network: two-way names, carried tensors, tokens kept otherwise.

A tensor of theirs that has no part in our network (a pooler, a mask token) is *carried*: handed back
beside the network's own, so that a bundle can keep it and an export can return it.

Odd: a token that has a position of its own there and is never read by the head is a register here.
``Fold`` adds its position once and for all, and carries both summands, because a sum of floats cannot be
taken apart to the same bits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tesela.checkpoints.rules import Rule, check_tensors, to_foreign, to_own
from tesela.models.tensors import Tensors

#: The name that folded tokens have among foreign tensors until a rule takes them.
REGISTERS = "(registers)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """Foreign tokens that become our registers.

    Attributes:
        tokens: their names and how many each is, in order; a token is (1, count, D).
        positions: name of the position table (1, rows, D).
        first: row of the first of them in the table; None where they have no rows.
        rows: how many of them have rows, the first ones; None for all.
        flat: whether a token is (D,) and the table (rows, D) there.
    """

    tokens: tuple[tuple[str, int], ...]
    positions: str
    first: int | None
    rows: int | None = None
    flat: bool = False

    @property
    def count(self) -> int:
        """Number of registers."""
        return sum(count for _, count in self.tokens)

    @property
    def _placed(self) -> int:
        return self.count if self.rows is None else self.rows

    @staticmethod
    def _sum(tokens: Tensor, rows: Tensor) -> Tensor:
        """Tokens with the rows added to the first of them."""
        placed = rows.shape[1]
        return torch.cat([tokens[:, :placed] + rows, tokens[:, placed:]], dim=1)

    def apply(self, foreign: Tensors) -> tuple[Tensors, Tensors]:
        """Foreign tensors with ``REGISTERS`` and without their rows of the table.

        And the summands, to be carried.
        """
        rest = dict(foreign)
        if self.flat:
            rest |= {name: rest[name][None] for name in self._names if name in rest}
        found, carried = self._apply(rest, foreign)
        if self.flat and found.keys() != foreign.keys():
            found[self.positions] = found[self.positions][0]
        return found, carried

    @property
    def _names(self) -> list[str]:
        return [*(name for name, _ in self.tokens), self.positions]

    def _apply(self, rest: Tensors, foreign: Tensors) -> tuple[Tensors, Tensors]:
        if self.flat:
            rest |= {name: rest[name][None] for name, _ in self.tokens if name in rest}
        tokens = {name: rest.pop(name) for name, _ in self.tokens if name in rest}
        if len(tokens) < len(self.tokens) or (self.first is not None and self.positions not in rest):
            return dict(foreign), {}
        registers = torch.cat(list(tokens.values()), dim=1)
        if self.first is None:
            return {**rest, REGISTERS: registers}, {}
        table, end = rest[self.positions], self.first + self._placed
        rows = table[:, self.first : end].contiguous()
        rest[self.positions] = torch.cat([table[:, : self.first], table[:, end:]], dim=1)
        return {**rest, REGISTERS: self._sum(registers, rows)}, {**tokens, self.positions: rows}

    def undo(self, foreign: Tensors, carried: Mapping[str, Tensor]) -> Tensors:
        """Tokens and their rows again.

        The carried ones where they still make up the registers, else rows of zeros.
        """
        rest = dict(foreign)
        if self.flat:
            rest[self.positions] = rest[self.positions][None]
        rest = self._undo(rest, carried)
        if self.flat:
            rest |= {name: rest[name][0, 0] for name, _ in self.tokens}
            rest[self.positions] = rest[self.positions][0]
        return rest

    def _undo(self, rest: Tensors, carried: Mapping[str, Tensor]) -> Tensors:
        registers = rest.pop(REGISTERS)
        names = [name for name, _ in self.tokens]
        tokens = list(torch.split_with_sizes(registers, [count for _, count in self.tokens], dim=1))
        if self.first is not None:
            rows = torch.zeros_like(registers[:, : self._placed])
            if all(name in carried for name in (*names, self.positions)):
                kept = [carried[name].to(registers) for name in names]
                kept_rows = carried[self.positions].to(registers)
                if torch.equal(self._sum(torch.cat(kept, dim=1), kept_rows), registers):
                    tokens, rows = kept, kept_rows
            table = rest[self.positions]
            rest[self.positions] = torch.cat([table[:, : self.first], rows, table[:, self.first :]], dim=1)
        return {**rest, **{name: token.contiguous() for name, token in zip(names, tokens, strict=True)}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """A foreign tensor that is several of ours, cut along its first axis.

    Attributes:
        name: of the tensor.
        parts: names that rules take, and how many of all shares each is.
    """

    name: str
    parts: tuple[tuple[str, int], ...]

    def apply(self, foreign: Tensors) -> Tensors:
        """Foreign tensors with the parts in its place."""
        rest = dict(foreign)
        if self.name not in rest:
            return rest
        whole, total = rest.pop(self.name), sum(share for _, share in self.parts)
        sizes = [share * (len(whole) // total) for _, share in self.parts]
        if sum(sizes) != len(whole):
            return dict(foreign)
        parts = torch.split_with_sizes(whole, sizes)
        return rest | {name: part for (name, _), part in zip(self.parts, parts, strict=True)}

    def undo(self, foreign: Tensors) -> Tensors:
        """The tensor again in the place of its parts."""
        rest = dict(foreign)
        if all(name in rest for name, _ in self.parts):
            rest[self.name] = torch.cat([rest.pop(name) for name, _ in self.parts])
        return rest


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorTable:
    """One kind of foreign checkpoint.

    Attributes:
        program: what it is called in messages, such as ``ViTForImageClassification``.
        rules: tensors of ours made of theirs.
        unused: names (regular expressions) of theirs that our network has no use for.
        fold: tokens that become registers.
        cuts: tensors that are several of ours.
    """

    program: str
    rules: tuple[Rule, ...]
    unused: tuple[str, ...] = ()
    fold: Fold | None = None
    cuts: tuple[Cut, ...] = ()

    def split(self, foreign: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        """Tensors that count, and those that are known and not used."""
        unused = {
            name: tensor
            for name, tensor in foreign.items()
            if any(re.fullmatch(pattern, name) for pattern in self.unused)
        }
        return {name: tensor for name, tensor in foreign.items() if name not in unused}, unused

    def read(self, foreign: Mapping[str, Tensor], *, source: str) -> tuple[Tensors, Tensors]:
        """Our tensors, and what is to be carried.

        Raises:
            WeightsError: naming what is unknown or has lost its partners.
        """
        used, carried = self.split(foreign)
        if self.fold is not None:
            used, summands = self.fold.apply(used)
            carried |= summands
        for cut in self.cuts:
            used = cut.apply(used)
        return to_own(used, self.rules, source=source), carried

    def write(self, own: Mapping[str, Tensor], carried: Mapping[str, Tensor] | None = None) -> Tensors:
        """Their tensors, the carried ones that belong to them included.

        Raises:
            WeightsError: naming what has no place there.
        """
        carried = carried or {}
        foreign = to_foreign(own, self.rules, target=self.program)
        for cut in self.cuts:
            foreign = cut.undo(foreign)
        if self.fold is not None:
            foreign = self.fold.undo(foreign, carried)
        return foreign | self.split(carried)[1]

    def check(self, foreign: Mapping[str, Tensor], own: Mapping[str, Tensor], *, source: str) -> None:
        """Compare a checkpoint with what our network ``own`` (its tensors, or meta ones) would be there.

        Raises:
            WeightsError: listing what is missing, not known or of another shape, under their names.
        """
        check_tensors(self.split(foreign)[0], self.write(own), source=source)
