"""The MLP of a block (paper, equation 3), plain or gated.

Dense, activation, dropout, dense, dropout.

SwiGLU (Shazeer 2020, arXiv 2002.05202) multiplies one half of the first layer's result, through SiLU, with
the other.

Odd: ``gelu`` is the exact one (erf), as in most published weights; the paper's JAX code uses the tanh
approximation, here ``gelu_tanh``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tesela.layers.attention.cpu_bf16 import Dense
from tesela.layers.initialise import xavier_uniform_


def _gelu_tanh(values: Tensor) -> Tensor:
    return F.gelu(values, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
}


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
        """Xavier uniform weights, biases normal with standard deviation 1e-6."""
        xavier_uniform_(self.expand, generator=generator, bias_std=1e-6)
        xavier_uniform_(self.contract, generator=generator, bias_std=1e-6)

    def forward(self, tokens: Tensor) -> Tensor:
        """The same function of every token."""
        hidden = self.dropout(self.activation(self.expand(tokens)))
        result: Tensor = self.dropout(self.contract(hidden))
        return result


class SwiGlu(nn.Module):
    """(B, N, D) to (B, N, D): the gate's SiLU times the value, ``hidden`` units each, then back.

    Args:
        width: D.
        hidden: width of gate and of value; ``expand`` gives both, the gate first.
        dropout: after the product and after the last dense layer.
    """

    def __init__(self, width: int, hidden: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.expand = Dense(width, 2 * hidden)
        self.contract = Dense(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def reset(self, generator: Generator | None = None) -> None:
        """Xavier uniform weights (fans of gate or value alone), biases normal, standard deviation 1e-6."""
        hidden = self.contract.in_features
        xavier_uniform_(self.expand, generator=generator, bias_std=1e-6, fan_out=hidden)
        xavier_uniform_(self.contract, generator=generator, bias_std=1e-6)

    def forward(self, tokens: Tensor) -> Tensor:
        """The same function of every token."""
        gate, value = self.expand(tokens).chunk(2, dim=-1)
        result: Tensor = self.dropout(self.contract(self.dropout(F.silu(gate) * value)))
        return result
