"""Low-rank adapters on dense layers (LoRA, Hu et al. 2021, arXiv 2106.09685).

Equation 3 there: y = W x + b + (alpha / r) B A x.

W and b stay as they are; A (r, I) starts at random and B (O, r) at zero, so an adapted network begins as the
one it was. The update is added to W when training is over, and then costs nothing.

Odd: the base keeps its names in ``state_dict`` (``qkv.weight``), with ``lora_a`` and ``lora_b`` beside it;
but the attribute ``weight`` is W with the update in it, for attention reads rows of it where only some of the
results are wanted, and no dropout is at work. The fused qkv layer has one A for queries, keys and
values together, as adapters of fused layers usually have.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor, nn

from tesela.hardware.torch_private import is_untouched, own_parameter, share_parameters
from tesela.layers.attention.cpu_bf16 import Dense, dense
from tesela.layers.lora_config import TARGETS, LoraConfig


class LoraDense(Dense):
    """A dense layer with an adapter; its weight and bias are those of ``base``, frozen.

    Args:
        base: the layer to adapt, I inputs and O outputs.
        config: rank, scale and dropout.
    """

    def __init__(self, base: Dense, config: LoraConfig) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.kernel = base.in_features, base.out_features, base.kernel
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        share_parameters(self, base.requires_grad_(False))
        self.lora_a = nn.Parameter(base.weight.new_empty(config.rank, base.in_features))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_features, config.rank))

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """(O, I): the frozen weight with the update added; gradients reach the adapter."""
        return self.base_weight + self.config.scale * (self.lora_b @ self.lora_a)

    def is_its_weight(self) -> bool:
        """Not under dropout, which acts on the update's input."""
        return is_untouched(self, LoraDense) and not (self.training and self.dropout.p > 0)

    @property
    def base_weight(self) -> nn.Parameter:
        """(O, I): the frozen weight."""
        return own_parameter(self, "weight")

    def reset(self, generator: Generator | None = None) -> None:
        """A uniform within 1 / sqrt(I) either way, as in the authors' code; B zero."""
        bound = self.in_features**-0.5
        nn.init.uniform_(self.lora_a, -bound, bound, generator=generator)
        nn.init.zeros_(self.lora_b)

    def forward(self, input: Tensor) -> Tensor:
        """(..., I) to (..., O), by the short way through r values."""
        low = nn.functional.linear(self.dropout(input), self.lora_a)
        update = nn.functional.linear(low, self.lora_b)
        return dense(input, self.base_weight, self.bias, kernel=self.kernel) + self.config.scale * update

    @torch.no_grad()
    def merged(self) -> Dense:
        """An ordinary layer that computes the same."""
        plain = Dense(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        plain.kernel = self.kernel
        plain.weight = nn.Parameter(self.weight.detach().clone())
        if self.bias is not None:
            plain.bias = nn.Parameter(self.bias.detach().clone())
        return plain


def add_adapters(model: nn.Module, config: LoraConfig, *, generator: Generator | None = None) -> list[str]:
    """Adapt the dense layers of ``model`` that the targets name, in place.

    Args:
        model: any network of this package.
        config: which layers, and how.
        generator: draws the A; torch's global one if None.

    Returns:
        the names of the adapted layers, in the model's order; empty where it has none of them.
    """
    wanted = {name for target in config.targets for name in TARGETS[target]}
    names = [
        name
        for name, module in model.named_modules()
        if type(module) is Dense and name.rpartition(".")[2] in wanted
    ]
    for name in names:
        base = model.get_submodule(name)
        assert isinstance(base, Dense)
        adapter = LoraDense(base, config)
        adapter.reset(generator)
        model.set_submodule(name, adapter.train(base.training))
    return names


def adapters(model: nn.Module) -> Iterator[tuple[str, LoraDense]]:
    """The adapted layers of ``model`` by name."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraDense))


def merge_adapters(model: nn.Module) -> None:
    """Replace every adapted layer by an ordinary one that computes the same, in place."""
    for name, adapter in list(adapters(model)):
        model.set_submodule(name, adapter.merged().train(adapter.training))
