"""Weight initialisation of the paper's JAX code, from a seedable generator.

Dense layers of the encoder: Xavier uniform, biases zero, in the MLP normal with standard deviation 1e-6.
Patch convolution and hidden layer of the head: LeCun normal (truncated at two standard deviations).
Positions: normal with standard deviation 0.02. Class token and last layer of the head: zero. LayerNorm:
one and zero.

Odd: the qkv projection is one matrix here and three there; each third is drawn with the fans of its own
matrix. A layer with own weights has a method ``reset(generator)``; a network's weights are never drawn in
a constructor.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

from torch import Generator, Tensor, nn

# Deviation of a unit normal cut at +-2: the drawn values are widened by its inverse, as in
# jax.nn.initializers.
_CUT_STD = 0.87962566103423978


@runtime_checkable
class Resettable(Protocol):
    """A layer that draws its own weights."""

    def reset(self, generator: Generator | None = None) -> None:
        """Initialise all weights that belong to this layer."""


def initialise(model: nn.Module, generator: Generator | None = None) -> None:
    """Initialise all weights of ``model``, in the order of its modules."""
    for module in model.modules():
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm, nn.BatchNorm2d, nn.GroupNorm)):
            module.reset_parameters()
        elif isinstance(module, Resettable):
            module.reset(generator)


def xavier_uniform_(
    layer: nn.Linear,
    *,
    generator: Generator | None = None,
    bias_std: float = 0.0,
    fan_in: int | None = None,
    fan_out: int | None = None,
) -> None:
    """Weights uniform in +-sqrt(6 / (fan_in + fan_out)), bias normal with ``bias_std``."""
    bound = math.sqrt(6.0 / ((fan_in or layer.in_features) + (fan_out or layer.out_features)))
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    if layer.bias is not None and bias_std:
        nn.init.normal_(layer.bias, std=bias_std, generator=generator)
    elif layer.bias is not None:
        nn.init.zeros_(layer.bias)


def lecun_normal_(weight: Tensor, *, generator: Generator | None = None) -> None:
    """Truncated normal of variance 1 / fan_in, for weights (out, in, ...)."""
    std = math.sqrt(1.0 / weight[0].numel()) / _CUT_STD
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std, generator=generator)
