"""Classification head (paper, section 3.1): linear, or an MLP with one tanh layer.

The MLP is for pre-training.

The last layer starts at zero, so a new network gives every class the same probability.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from tesela.layers.initialise import lecun_normal_
from tesela.layers.trace import OFF, Trace


class Head(nn.Module):
    """(B, D) to logits (B, K).

    Args:
        width: D.
        num_classes: K.
        hidden: width of the tanh layer; None for a linear head.
    """

    def __init__(self, width: int, num_classes: int, *, hidden: int | None = None) -> None:
        super().__init__()
        self.hidden = None if hidden is None else nn.Linear(width, hidden)
        self.linear = nn.Linear(width if hidden is None else hidden, num_classes)

    def reset(self, generator: Generator | None = None) -> None:
        """LeCun normal hidden layer, last layer zero."""
        if self.hidden is not None:
            lecun_normal_(self.hidden.weight, generator=generator)
            nn.init.zeros_(self.hidden.bias)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def scale(self, factor: float) -> None:
        """Multiply all logits by ``factor`` from now on."""
        with torch.no_grad():
            for parameter in self.linear.parameters():
                parameter.mul_(factor)

    def forward(self, pooled: Tensor, *, trace: Trace = OFF) -> Tensor:
        """The logits."""
        if self.hidden is not None:
            pooled = trace("hidden", torch.tanh(self.hidden(pooled)))
        return trace("", self.linear(pooled))
