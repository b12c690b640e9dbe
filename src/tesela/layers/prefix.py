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
        class_tokens: number of [class] tokens.
        distillation_token: whether there is a distillation token.
        registers: number of register tokens.
    """

    def __init__(
        self, width: int, *, class_tokens: int, distillation_token: bool = False, registers: int = 0
    ) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.empty(1, class_tokens, width)) if class_tokens else None
        self.distillation_token = nn.Parameter(torch.empty(1, 1, width)) if distillation_token else None
        self.registers = nn.Parameter(torch.empty(1, registers, width)) if registers else None

    def reset(self, generator: Generator | None = None) -> None:
        """Class and distillation token zero.

        Several alike, and registers, are normal with standard deviation 1e-6, so that they differ.
        """
        for token in (self.class_token, self.distillation_token):
            if token is not None and token.shape[1] == 1:
                nn.init.zeros_(token)
        several = self.class_token if self.class_token is not None and self.class_token.shape[1] > 1 else None
        for tokens in (several, self.registers):
            if tokens is not None:
                nn.init.normal_(tokens, std=1e-6, generator=generator)

    def special(self, batch: int) -> list[Tensor]:
        """Class tokens (B, n, D) and distillation token (B, 1, D); those that exist."""
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
        at = sum(
            special.shape[1] for special in (self.class_token, self.distillation_token) if special is not None
        )
        return torch.cat(
            [tokens[:, :at], self.registers.expand(tokens.shape[0], -1, -1), tokens[:, at:]], dim=1
        )
