"""DeiT (arXiv 2012.12877): a ViT with a distillation token and a head for it.

Touvron et al. 2021; that head learns from a teacher.

The class token's head learns the labels, the distillation token's head what the teacher says (section 3
there). At test time both are averaged; the head's ``both`` gives them apart.

Odd: the pooled vector holds both tokens, one after the other, so that the head is a function of it like any
other.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from tesela.layers.pool import Readout
from tesela.layers.trace import OFF, Trace
from tesela.models.vit.network import ViT


class TokensPool(nn.Module):
    """The first ``tokens`` tokens, one after the other.

    Args:
        tokens: how many.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.readout = Readout("first", tokens)

    def forward(self, tokens: Tensor, prefix: int, *, trace: Trace = OFF) -> Tensor:  # noqa: ARG002
        """(B, N, D) to (B, tokens * D)."""
        return trace("", tokens[:, : self.readout.tokens].flatten(1))


class DeiTHead(nn.Module):
    """(B, 2 D) to logits (B, K).

    Args:
        width: D.
        num_classes: K.
    """

    hidden: None = None

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, num_classes)
        self.distillation = nn.Linear(width, num_classes)

    def reset(self, generator: Generator | None = None) -> None:  # noqa: ARG002
        """Both zero."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def scale(self, factor: float) -> None:
        """Multiply all logits by ``factor`` from now on."""
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(factor)

    def both(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) of the class token and of the distillation token."""
        first, second = pooled.chunk(2, dim=1)
        return self.linear(first), self.distillation(second)

    def forward(self, pooled: Tensor, *, trace: Trace = OFF) -> Tensor:
        """The mean of both heads' logits."""
        by_class, by_teacher = self.both(pooled)
        trace("linear", by_class)
        trace("distillation", by_teacher)
        return trace("", (by_class + by_teacher) / 2)


class DeiT(ViT):
    """A DeiT backbone, (B, C, H, W) to tokens (B, 2 + n, D)."""

    def make_pool(self) -> TokensPool:
        """Class and distillation token side by side."""
        return TokensPool(self.config.special_tokens)

    def make_head(self, num_classes: int) -> DeiTHead:
        """One linear layer for each of the two tokens."""
        return DeiTHead(self.config.width, num_classes)
