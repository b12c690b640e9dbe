"""The two-layer perceptron of a block (paper, equation 3): dense, activation, dropout, dense, dropout.

Odd: ``gelu`` is the exact one (erf), as in most published weights; the paper's JAX code uses the tanh approximation,
here ``gelu_tanh``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tesela.layers.initialise import xavier_uniform_
from tesela.layers.lean import Dense


def _gelu_tanh(values: Tensor) -> Tensor:
    return F.gelu(values, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "gelu_tanh": _gelu_tanh, "relu": F.relu}


class Mlp(nn.Module):
    """(B, N, D) to (B, N, D) through ``hidden`` units.

    Args:
        width: D.
        hidden: width of the hidden layer.
        activation: a name of ``ACTIVATIONS``.
        dropout: after each of the two dense layers.
    """

    def __init__(self, width: int, hidden: int, *, activation: str = "gelu", dropout: float = 0.0) -> None:
        super().__init__()
        self.expand = Dense(width, hidden)
        self.activation = ACTIVATIONS[activation]
        self.contract = Dense(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def reset(self, generator: Generator | None = None) -> None:
        """Xavier uniform weights, biases normal with deviation 1e-6."""
        xavier_uniform_(self.expand, generator=generator, bias_deviation=1e-6)
        xavier_uniform_(self.contract, generator=generator, bias_deviation=1e-6)

    def forward(self, tokens: Tensor) -> Tensor:
        """The same function of every token."""
        hidden = self.dropout(self.activation(self.expand(tokens)))
        result: Tensor = self.dropout(self.contract(hidden))
        return result
