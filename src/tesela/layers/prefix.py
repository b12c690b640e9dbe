"""Tokens that stand before the patches: [class], distillation, registers, in this order.

The class token is the paper's; the distillation token is DeiT's (Touvron et al. 2021, arXiv 2012.12877);
registers (Darcet et al. 2024, arXiv 2309.16588) give the network room to write and are never read by the
head.

Odd: registers come after the positions are added and have none of their own, as in the published weights; the
others have positions unless the config says no.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn


class PrefixTokens(nn.Module):
    """Learnable tokens; each kind may be absent.

    Args:
        width: D.
        class_token: whether there is a [class] token.
        distillation_token: whether there is a distillation token.
        registers: number of register tokens.
    """

    def __init__(
        self, width: int, *, class_token: bool, distillation_token: bool = False, registers: int = 0
    ) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.empty(1, 1, width)) if class_token else None
        self.distillation_token = nn.Parameter(torch.empty(1, 1, width)) if distillation_token else None
        self.registers = nn.Parameter(torch.empty(1, registers, width)) if registers else None

    def reset(self, generator: Generator | None = None) -> None:
        """Class and distillation token zero.

        Registers normal with standard deviation 1e-6, so that they differ.
        """
        for token in (self.class_token, self.distillation_token):
            if token is not None:
                nn.init.zeros_(token)
        if self.registers is not None:
            nn.init.normal_(self.registers, std=1e-6, generator=generator)

    def special(self, batch: int) -> list[Tensor]:
        """Class and distillation token, each (B, 1, D); those that exist."""
        return [
            token.expand(batch, -1, -1)
            for token in (self.class_token, self.distillation_token)
            if token is not None
        ]

    def with_special(self, patches: Tensor) -> Tensor:
        """(B, n, D) with class and distillation token before it."""
        special = self.special(patches.shape[0])
        return torch.cat([*special, patches], dim=1) if special else patches

    def with_registers(self, tokens: Tensor) -> Tensor:
        """(B, N, D) with the registers between special and patch tokens."""
        if self.registers is None:
            return tokens
        at = (self.class_token is not None) + (self.distillation_token is not None)
        return torch.cat(
            [tokens[:, :at], self.registers.expand(tokens.shape[0], -1, -1), tokens[:, at:]], dim=1
        )
