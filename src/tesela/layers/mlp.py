"""The MLP of a block (paper, equation 3), plain or gated.

Dense, activation, dropout, dense, dropout.

SwiGLU (Shazeer 2020, arXiv 2002.05202) multiplies one half of the first layer's result, through SiLU, with
the other.

Odd: ``gelu`` is the exact one (erf), as in most published weights; the paper's JAX code uses the tanh
approximation, here ``gelu_tanh``; OpenAI's CLIP has x sigmoid(1.702 x), here ``quick_gelu``. A norm of the
hidden units before the last layer is that of NormFormer (arXiv 2110.09456) and EVA-02.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tesela.layers.attention.cpu_bf16 import Dense
from tesela.layers.initialise import xavier_uniform_


def _gelu_tanh(values: Tensor) -> Tensor:
    return F.gelu(values, approximate="tanh")


def _quick_gelu(values: Tensor) -> Tensor:
    return values * torch.sigmoid(1.702 * values)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": _gelu_tanh,
    "quick_gelu": _quick_gelu,
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
        bias: whether the dense layers have biases.
        norm: of the hidden units, after the activation.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        activation: str = "gelu",
        dropout: float = 0.0,
        bias: bool = True,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.expand = Dense(width, hidden, bias=bias)
        self.activation = ACTIVATIONS[activation]
        self.norm = nn.Identity() if norm is None else norm
        self.contract = Dense(hidden, width, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def reset(self, generator: Generator | None = None) -> None:
        """Xavier uniform weights, biases normal with standard deviation 1e-6."""
        xavier_uniform_(self.expand, generator=generator, bias_std=1e-6)
        xavier_uniform_(self.contract, generator=generator, bias_std=1e-6)

    def forward(self, tokens: Tensor) -> Tensor:
        """The same function of every token."""
        hidden = self.dropout(self.activation(self.expand(tokens)))
        result: Tensor = self.dropout(self.contract(self.norm(hidden)))
        return result


class SwiGlu(nn.Module):
    """(B, N, D) to (B, N, D): the gate's SiLU times the value, ``hidden`` units each, then back.

    Args:
        width: D.
        hidden: width of gate and of value; ``expand`` gives both, the gate first.
        dropout: after the product and after the last dense layer.
        bias: whether the dense layers have biases.
        norm: of the hidden units, after the product.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        dropout: float = 0.0,
        bias: bool = True,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.expand = Dense(width, 2 * hidden, bias=bias)
        self.norm = nn.Identity() if norm is None else norm
        self.contract = Dense(hidden, width, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def reset(self, generator: Generator | None = None) -> None:
        """Xavier uniform weights (fans of gate or value alone), biases normal, standard deviation 1e-6."""
        hidden = self.contract.in_features
        xavier_uniform_(self.expand, generator=generator, bias_std=1e-6, fan_out=hidden)
        xavier_uniform_(self.contract, generator=generator, bias_std=1e-6)

    def forward(self, tokens: Tensor) -> Tensor:
        """The same function of every token."""
        gate, value = self.expand(tokens).chunk(2, dim=-1)
        result: Tensor = self.dropout(self.contract(self.norm(self.dropout(F.silu(gate) * value))))
        return result
